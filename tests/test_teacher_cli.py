"""A teacher from files: the same bits as in memory, what is said, and `softmax --top`, which
writes one."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli import assert_error, bash, inside
from helpers import assert_same_bits

from xentcli import Teacher, cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import BF16, narrow
from xentcli.engine import rows
from xentcli.files.npy import reader as npy_reader

N, C, K = 23, 11, 4
TOP = ["--teacher-kind", "log-probs", "--divergence", "forward-kl", "--tail", "bucket"]
HOW = {"kind": "log-probs", "divergence": "forward-kl", "tail": "bucket"}
PAIR = ["--teacher", "v.npy", "--teacher-indices", "i.npy"]


@pytest.fixture
def job(files, rng):
    """Student and teacher logits, targets of which some are ignored, and a top-K teacher."""
    x, t = (rng.standard_normal((2, N, C)) * 4).astype("f4")
    y = rng.integers(0, C, N)
    y[::5] = -100
    log_q = log_softmax(t)
    indices = np.argsort(-log_q, axis=1)[:, :K].astype("i4")
    arrays = {"x": x, "z": t, "y": y, "v": np.take_along_axis(log_q, indices, axis=1), "i": indices}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return arrays


def in_memory(job, how=None, **options):
    return cross_entropy(
        job["x"], job["y"], teacher=Teacher(job["v"], job["i"], **(how or HOW)), **options
    )


@pytest.mark.parametrize("slab", [1, 3 * C, 10_000])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_bits_do_not_depend_on_the_slabs(slab, alpha, job, capfdbinary, monkeypatch):
    monkeypatch.setattr(rows, "SLAB", slab)
    command = ["grad", "x.npy", "y.npy", *PAIR, *TOP, "--alpha", alpha, "--temperature", "1.5"]
    assert inside(capfdbinary, *command, "-q", "-o", "g.npy", "--loss-out", "l.npy").code == 0
    expected = in_memory(job, {**HOW, "alpha": alpha}, temperature=1.5)
    assert_same_bits(np.load("g.npy"), expected.grad)
    assert_same_bits(np.load("l.npy"), np.float64(expected.loss))


@pytest.mark.parametrize("slab", [1, 3 * C])
def test_a_dense_teacher_streams_beside_the_logits(slab, job, capfdbinary, monkeypatch):
    monkeypatch.setattr(rows, "SLAB", slab)
    options = ["--teacher-kind", "logits", "--divergence", "jsd", "--beta", "0.2"]
    command = ["grad", "x.npy", "--teacher", "z.npy", *options, "-o", "g.npy", "-q"]
    assert inside(capfdbinary, *command).code == 0
    teacher = Teacher(job["z"], kind="logits", divergence="jsd", beta=0.2)
    assert_same_bits(np.load("g.npy"), cross_entropy(job["x"], teacher=teacher).grad)


def test_a_class_axis_in_the_middle_streams(files, rng, capfdbinary, monkeypatch):
    monkeypatch.setattr(rows, "SLAB", 2 * C)
    x, t = rng.standard_normal((2, 6, C, 5))
    indices = np.argsort(-t, axis=1)[:, :K]
    values = np.take_along_axis(log_softmax(t, class_axis=1), indices, axis=1)
    for name, array in {"x": x, "v": values, "i": np.asfortranarray(indices)}.items():
        np.save(f"{name}.npy", array)
    command = ["grad", "x.npy", *PAIR, *TOP, "--class-axis", "1", "-o", "g.npy", "-q"]
    assert inside(capfdbinary, *command).code == 0
    expected = cross_entropy(x, teacher=Teacher(values, indices, **HOW), class_axis=1)
    assert_same_bits(np.load("g.npy"), expected.grad)


def write_pairs(job):
    """The same teacher in every form that can be read."""
    from xentcli.files.npz import save_npz
    from xentcli.files.safetensors import save_safetensors

    v, i = job["v"], job["i"]
    for name, array, form in (("v", v, "%.9g"), ("i", i, "%d")):
        np.savetxt(f"{name}.csv", array, delimiter=",", fmt=form)
    for save, suffix in ((save_npz, "npz"), (save_safetensors, "safetensors")):
        for name, members in (
            ("pair", {"values": v, "indices": i}),
            ("other", {"top": v, "ids": i, "x": v}),
        ):
            with Path(f"{name}.{suffix}").open("wb") as file:
                save(file, members)


KEYS = ["--teacher-key", "top", "--teacher-indices-key", "ids"]
SOURCES = {
    "npy": PAIR,
    "csv": ["--teacher", "v.csv", "--teacher-indices", "i.csv", "--dtype", "f32"],
    "npz": ["--teacher", "pair.npz"],
    "safetensors": ["--teacher", "pair.safetensors"],
    "keys": ["--teacher", "other.npz", *KEYS],
    "one file by its keys twice": [
        "--teacher",
        "other.safetensors",
        "--teacher-indices",
        "other.safetensors",
        *KEYS,
    ],
    "two archives": [
        "--teacher",
        "pair.npz",
        "--teacher-indices",
        "other.npz",
        "--teacher-indices-key",
        "ids",
    ],
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_bits_do_not_depend_on_the_source(source, job, capfdbinary):
    write_pairs(job)
    command = ["grad", "x.npy", "y.npy", *SOURCES[source], *TOP, "-o", "g.npy", "-q"]
    result = inside(capfdbinary, *command)
    assert (result.code, result.err) == (0, "")
    assert_same_bits(np.load("g.npy"), in_memory(job).grad)


def test_indices_are_integers_whatever_the_logits_are_read_as(job, capfdbinary):
    half = narrow(job["x"], BF16)
    np.save("b.npy", half.view("V2"))
    np.save("u.npy", job["i"].astype("u2"))
    pair = ["--teacher", "v.npy", "--teacher-indices", "u.npy"]
    command = ["grad", "b.npy", "y.npy", *pair, *TOP, "--dtype", "bf16", "-o", "g.npy", "-q"]
    assert inside(capfdbinary, *command).code == 0
    expected = np.empty((N, C), BF16)
    teacher = Teacher(job["v"], job["i"], **HOW)
    cross_entropy(half, job["y"], teacher=teacher, out=expected)
    assert np.load("g.npy").tobytes() == expected.tobytes()


def test_a_slow_reader_beside_the_logits_is_read_by_its_units(files, rng, capfdbinary, monkeypatch):
    monkeypatch.setattr(npy_reader, "SAFE", 0)
    monkeypatch.setattr(npy_reader.FortranReader, "best_count", 1)
    monkeypatch.setattr(rows, "SLAB", 1)
    x, t = rng.standard_normal((2, 4, 5, C))
    log_q = log_softmax(t)
    indices = np.argsort(-log_q, axis=-1)[..., :K]
    values = np.take_along_axis(log_q, indices, axis=-1)
    arrays = {"x": x, "v": np.asfortranarray(values), "i": np.asfortranarray(indices)}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    command = ["grad", "x.npy", *PAIR, *TOP, "-o", "g.npy", "-q"]
    assert inside(capfdbinary, *command).code == 0
    expected = cross_entropy(x, teacher=Teacher(values, indices, **HOW))
    assert_same_bits(np.load("g.npy"), expected.grad)


def test_pipes(job):
    script = f"xent grad x.npy y.npy --teacher - --teacher-indices <(cat i.npy) {' '.join(TOP)} -q"
    result = bash(script + " -o g.npy", stdin=Path("v.npy").read_bytes())
    assert (result.code, result.err) == (0, "")
    assert_same_bits(np.load("g.npy"), in_memory(job).grad)


def test_what_is_said(job, capfdbinary):
    result = inside(capfdbinary, "loss", "x.npy", "y.npy", *PAIR, *TOP)
    expected = in_memory(job)
    mean, least, row = expected.captured
    words = f"teacher stores {mean:.6g} of its probability, at least {least:.6g} (row {row})"
    assert f"loss {expected.loss:.9g} (mean over 18 rows, 5 ignored); {words}; " in result.err
    about = json.loads(inside(capfdbinary, "loss", "x.npy", "y.npy", *PAIR, *TOP, "--json").out)
    assert about["captured"] == {"mean": mean, "least": least, "row": row}
    dense = ["--teacher", "z.npy", "--teacher-kind", "logits", "--divergence", "ce"]
    assert b"stores" not in inside(capfdbinary, "loss", "x.npy", *dense).err.encode()


@pytest.mark.parametrize(("broken", "least"), [(slice(1), True), (slice(None), False)])
def test_a_teacher_that_is_nan_is_null_in_json(broken, least, job, capfdbinary):
    """The mean mass too, and the least one where there is no other."""
    job["v"][broken, 0] = np.nan
    np.save("v.npy", job["v"])
    result = inside(capfdbinary, "loss", "x.npy", *PAIR, *TOP, "--json")
    about = json.loads(result.out)
    assert result.code == 0
    assert (about["loss"], about["captured"]["mean"]) == (None, None)
    assert isinstance(about["captured"]["least"], float) == least


def test_an_ignore_index_without_targets_ignores_nothing(job, capfdbinary):
    command = ["loss", "x.npy", *PAIR, *TOP, "-q"]
    plain = inside(capfdbinary, *command)
    assert plain.code == 0
    assert inside(capfdbinary, *command, "--ignore-index", "3") == plain


def test_losses_of_rows(job, capfdbinary):
    command = ["loss", "x.npy", "y.npy", *PAIR, *TOP, "--reduction", "none", "-q"]
    lines = inside(capfdbinary, *command).text.split()
    assert [float(line) for line in lines] == in_memory(job, reduction="none").loss.tolist()


def test_targets_in_an_archive_with_the_logits(job, capfdbinary):
    np.savez("both.npz", logits=job["x"], targets=job["y"])
    soft = [*PAIR, *TOP, "--alpha", "0.5"]
    result = inside(capfdbinary, "grad", "both.npz", *soft, "-o", "g.npy", "-q")
    assert (result.code, result.err) == (0, "")
    assert_same_bits(np.load("g.npy"), in_memory(job, {**HOW, "alpha": 0.5}).grad)


WRONG = {
    "no tail": (["x.npy", *PAIR, *TOP[:4]], 2, "--tail: is required", "bucket: all others"),
    "no kind": (["x.npy", *PAIR, *TOP[2:]], 2, "--teacher-kind: is required", "log-probs"),
    "no teacher": (["x.npy", "y.npy", *TOP[4:]], 2, "--tail: applies to a loss", "--teacher FILE"),
    "indices without a teacher": (["x.npy", "y.npy", *PAIR[2:]], 2, "--teacher-indices: ", "FILE"),
    "alpha without targets": (["x.npy", *PAIR, *TOP, "--alpha", "0.5"], 2, "TARGETS", ""),
    "beta 0": (
        ["x.npy", *PAIR, *TOP[:2], "--divergence", "jsd", "--beta", "0"],
        2,
        "--beta: 0",
        "forward-kl",
    ),
    "another number of rows": (["x.npy", "--teacher", "l.npy", *TOP], 1, "l.npy: shape (2, 3)", ""),
    "a class out of range": (
        ["x.npy", "--teacher", "v.npy", "--teacher-indices", "far.npy", *TOP],
        1,
        "far.npy: ",
        "-1 marks",
    ),
    "no such key": (
        ["x.npy", "--teacher", "v.npy", "--teacher-key", "a", *TOP],
        2,
        "--teacher-key",
        "",
    ),
    "rest alone": (
        ["x.npy", "--teacher", "z.npy", "--teacher-rest", "y.npy", *TOP[:4]],
        2,
        "--teacher-rest: ",
        "",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors(case, job, capfdbinary):
    np.save("far.npy", job["i"] + C)
    arguments, code, *words = WRONG[case]
    result = inside(capfdbinary, "grad", *arguments, "-o", "g.npy")
    assert_error(result, code, *filter(None, words))


# softmax --top


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "npz.gz"])
@pytest.mark.parametrize("slab", [3 * C, 10_000])
def test_top_writes_a_teacher_that_is_read_by_its_name(suffix, slab, job, capfdbinary, monkeypatch):
    monkeypatch.setattr(rows, "SLAB", slab)
    name = f"top.{suffix}"
    command = ["softmax", "z.npy", "--log", "--top", K, "-o", name]
    result = inside(capfdbinary, *command)
    assert result.code == 0
    assert f"values ({N}, {K}) float32, indices ({N}, {K}) int32 -> {name}" in result.err
    taught = ["grad", "x.npy", "y.npy", "--teacher", name, *TOP, "-o", "g.npy", "-q"]
    assert inside(capfdbinary, *taught).code == 0
    assert_same_bits(np.load("g.npy"), in_memory(job).grad)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_largest_are_exact_and_sorted_and_ties_go_to_the_lowest_class(
    log, dtype, files, rng, capfdbinary
):
    x = rng.integers(-3, 4, (40, C)).astype(dtype)
    x[3] = 0.0
    np.save("x.npy", x)
    flags = ["--log"] if log else []
    command = ["softmax", "x.npy", "--top", 5, "--rest", *flags, "--temperature", "0.7"]
    assert inside(capfdbinary, *command, "-o", "top.npz", "-q").code == 0
    top = np.load("top.npz")
    full = (log_softmax if log else softmax)(x, temperature=0.7)
    order = np.array([sorted(range(C), key=lambda c: (-row[c], c))[:5] for row in x])
    assert_same_bits(top["indices"], order.astype("i4"))
    assert_same_bits(top["values"], np.take_along_axis(full, order, axis=1))
    others = softmax(x.astype("f8"), temperature=0.7)
    np.put_along_axis(others, order, 0.0, axis=1)
    rest = others.sum(axis=1)
    np.testing.assert_allclose(top["rest"], np.log(rest) if log else rest, rtol=3e-7)


def test_the_rest_of_a_confident_row_is_a_sum(files, capfdbinary):
    np.save("x.npy", np.array([[60.0, 0.0, 1.0, 2.0]]))
    command = ["softmax", "x.npy", "--log", "--top", 1, "--rest", "-o", "top.npz", "-q"]
    assert inside(capfdbinary, *command).code == 0
    expected = (1 + np.e + np.e**2) * np.exp(-60)
    assert np.exp(np.load("top.npz")["rest"]) == pytest.approx([expected], rel=1e-13)
    options = ["--teacher-kind", "log-probs", "--divergence", "forward-kl", "--tail", "bucket"]
    taught = ["loss", "x.npy", "--teacher", "top.npz", *options, "-q"]
    assert abs(float(inside(capfdbinary, *taught).text)) < 1e-38


def test_top_of_another_axis_and_of_rows_without_an_answer(files, rng, capfdbinary):
    x = rng.standard_normal((3, C, 4))
    x[1, 2, 3] = np.nan
    np.save("x.npy", x)
    command = ["softmax", "x.npy", "--log", "--top", 3, "--rest", "--class-axis", 1]
    assert inside(capfdbinary, *command, "-o", "top.npz", "-q").code == 0
    top, full = np.load("top.npz"), log_softmax(x, class_axis=1)
    assert_same_bits(top["values"], np.take_along_axis(full, top["indices"].astype(int), axis=1))
    assert np.isnan(top["values"][1, :, 3]).all()
    assert np.isnan(top["rest"][1, 3])
    assert top["rest"].shape == (3, 4)
    assert_error(inside(capfdbinary, *command, "-o", "t.npz", "--strict"), 1, "not finite")


def test_what_top_cannot_do(job, capfdbinary):
    wrong = [
        (["--top", 2, "-o", "t.npy"], 2, "--top writes several arrays", "top.npz"),
        (["--top", C + 1, "-o", "t.npz"], 2, "--top: 12 is more than the logits' 11 classes"),
        (["--rest", "-o", "t.npy"], 2, "--rest: ", "--top 64 --rest"),
        (["--top", 0, "-o", "t.npz"], 2, "--top"),
    ]
    for arguments, code, *words in wrong:
        assert_error(inside(capfdbinary, "softmax", "z.npy", *arguments), code, *words)
    about = json.loads(
        inside(capfdbinary, "softmax", "z.npy", "--top", 2, "-o", "t.npz", "--json").out
    )
    assert about["top"]["values"] == {"shape": [N, 2], "dtype": "float32"}
