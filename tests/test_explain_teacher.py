"""One row against a teacher, step by step: the numbers are those of the loss, and add up."""

import json

import numpy as np
import pytest
from cli import assert_error, inside
from helpers import assert_same_bits

from xentcli import Teacher, cross_entropy, log_softmax, softmax

N, C, K = 3, 7, 3
TAILS = ["bucket", "uniform", "subset", "teacher", "drop"]
CASES = [
    (divergence, tail)
    for divergence in ("ce", "forward-kl", "reverse-kl", "jsd")
    for tail in (None, *TAILS)
    if (divergence, tail) != ("reverse-kl", "teacher")
]


@pytest.fixture
def job(files, rng):
    x, t = rng.standard_normal((2, N, C)) * 2
    y = rng.integers(0, C, N)
    y[2] = -100
    log_q = log_softmax(t)
    indices = np.argsort(-log_q, axis=1)[:, :K]
    arrays = {"x": x, "z": t, "y": y, "v": np.take_along_axis(log_q, indices, axis=1), "i": indices}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return arrays


def explained(capfdbinary, *arguments):
    result = inside(capfdbinary, "explain", *arguments, "--json")
    assert (result.code, result.err) == (0, "")
    return json.loads(result.text)


def options_of(divergence, tail):
    """The options of the command line, and those of `Teacher`."""
    how = {"divergence": divergence, "kind": "log-probs" if tail else "logits", "tail": tail}
    if divergence == "jsd":
        how["beta"] = 0.3
    names = {"kind": "--teacher-kind"}
    flags = [(names.get(k, f"--{k}"), v) for k, v in how.items() if v is not None]
    return [word for pair in flags for word in pair], how


@pytest.mark.parametrize(("divergence", "tail"), CASES)
def test_the_numbers_are_those_of_the_loss_and_add_up(divergence, tail, job, capfdbinary):
    flags, how = options_of(divergence, tail)
    arrays = (job["v"], job["i"]) if tail else (job["z"], None)
    files = ["--teacher", "v.npy", "--teacher-indices", "i.npy"] if tail else ["--teacher", "z.npy"]
    more = ["--temperature", 2, "--scale-t2", "--alpha", 0.25]
    teacher = Teacher(*arrays, alpha=0.25, scale_t2=True, **how)
    whole = cross_entropy(job["x"], job["y"], teacher=teacher, temperature=2.0)
    each = cross_entropy(job["x"], job["y"], teacher=teacher, temperature=2.0, reduction="none")
    share = 0.0
    for row in range(N):
        d = explained(capfdbinary, "x.npy", "y.npy", *files, *flags, *more, "--row", row)
        assert_same_bits(d["gradient"], whole.grad[row])
        assert d["loss"] == each.loss[row]
        share += d["share"]
        if d["ignored"]:
            continue
        assert d["value"] == pytest.approx(sum(d["terms"]) + d["bucket"], rel=1e-12)
        assert d["loss"] == pytest.approx(d["value"] + 0.75 * d["hard_loss"], rel=1e-12)
        parts = np.array(d["row_gradient"]) * 0.25 * 4 / 2 + d["hard_gradient"]
        np.testing.assert_allclose(parts, d["gradient"], atol=1e-16)
    assert share == pytest.approx(whole.loss, rel=1e-12)


def test_both_distributions_and_the_tail(job, capfdbinary):
    flags, _ = options_of("forward-kl", "uniform")
    files = ["--teacher", "v.npy", "--teacher-indices", "i.npy"]
    d = explained(capfdbinary, "x.npy", *files, *flags, "--row", 1)
    q = np.exp(job["v"][1])
    np.testing.assert_allclose(d["p"], softmax(job["x"][1]), rtol=1e-14)
    np.testing.assert_allclose(np.array(d["q"])[job["i"][1]], q, rtol=1e-14)
    assert d["captured"] == pytest.approx(q.sum(), rel=1e-14)
    assert d["rest"] == pytest.approx(1 - q.sum(), rel=1e-13)
    assert sum(d["q"]) == pytest.approx(1, rel=1e-14)
    assert np.flatnonzero(d["stored"]).tolist() == sorted(job["i"][1].tolist())
    flags, _ = options_of("forward-kl", "bucket")
    bucket = explained(capfdbinary, "x.npy", *files, *flags, "--row", 1)
    assert sum(bucket["q"]) == pytest.approx(q.sum(), rel=1e-14)
    flags, _ = options_of("forward-kl", "uniform")
    page = inside(capfdbinary, "explain", "x.npy", *files, *flags, "--row", 1).text
    for words in (
        "Student",
        "Teacher",
        "Loss",
        "share r evenly",
        "p_r",
        "falls",
        "rises",
        "stored",
    ):
        assert words in page


@pytest.mark.parametrize("suffix", ["svg", "html", "md", "tex"])
def test_every_form(suffix, job, capfdbinary):
    flags, _ = options_of("jsd", "bucket")
    files = ["--teacher", "v.npy", "--teacher-indices", "i.npy"]
    command = ["explain", "x.npy", *files, *flags, "-o", f"page.{suffix}"]
    assert inside(capfdbinary, *command).code == 0


def test_a_row_of_another_class_axis_and_classes_that_are_missing(files, rng, capfdbinary):
    x, t = rng.standard_normal((4, C, 3)), rng.standard_normal((4, C - 2, 3))
    np.save("x.npy", x)
    np.save("t.npy", t)
    flags = ["--teacher-kind", "logits", "--divergence", "ce", "--teacher-classes", "pad"]
    command = ["x.npy", "--teacher", "t.npy", *flags, "--class-axis", 1, "--row", 7]
    d = explained(capfdbinary, *command)
    teacher = Teacher(t, kind="logits", divergence="ce", classes="pad")
    expected = cross_entropy(x, teacher=teacher, class_axis=1, backend="numpy")
    assert_same_bits(d["gradient"], expected.grad[2, :, 1])
    assert d["q"][-2:] == [0, 0]


def test_a_row_out_of_range(job, capfdbinary):
    flags, _ = options_of("ce", None)
    result = inside(capfdbinary, "explain", "x.npy", "--teacher", "z.npy", *flags, "--row", 9)
    assert_error(result, 2, "--row: 9 is out of range for 3 rows")


@pytest.mark.parametrize("divergence", ["ce", "forward-kl", "reverse-kl", "jsd"])
def test_a_class_of_the_bucket_has_its_share_of_the_buckets_gradient(divergence, job, capfdbinary):
    """As the page says of the gradient's formula, which is that of the stored classes."""
    flags, _ = options_of(divergence, "bucket")
    command = ["x.npy", "--teacher", "v.npy", "--teacher-indices", "i.npy", *flags, "--row", 1]
    d = explained(capfdbinary, *command)
    p, q, value = d["p_rest"], d["rest"], d["value"]
    m = 0.3 * q + 0.7 * p
    others = ~np.array(d["stored"])
    stored_p = np.array(d["p"])[~others]
    stored_m = 0.3 * np.array(d["q"])[~others] + 0.7 * stored_p
    pull = p * np.log(p / m) + (stored_p * np.log(stored_p / stored_m)).sum()
    own = {
        "ce": p - q,
        "forward-kl": p - q,
        "reverse-kl": p * (np.log(p / q) - value),
        "jsd": 0.7 * p * (np.log(p / m) - pull),
    }[divergence]
    share = np.array(d["p"])[others] / p
    np.testing.assert_allclose(np.array(d["row_gradient"])[others], share * own, rtol=1e-9)
    assert "p / p_r times that of the bucket" in inside(capfdbinary, "explain", *command).text
