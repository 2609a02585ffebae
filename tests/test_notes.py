"""Things that look right and are not: each note appears, and not on a thousand ordinary inputs."""

from pathlib import Path

import numpy as np
import pytest
from cli import LOGITS, TARGETS, assert_done, assert_error, inside, npy, run

from xentcli import cross_entropy
from xentcli.arrays.dtypes import BF16, NAMES, narrow, widen
from xentcli.engine import logits_check
from xentcli.engine.logits_check import LogitsCheck
from xentcli.engine.notes import ProbabilityCheck
from xentcli.errors import OptionError, ShapeError
from xentcli.files.opening import load
from xentcli.files.options import ReadOptions


def softmax(x):
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


# What models put out, and what people make of it before they compute a loss.
ORDINARY = {
    "normal": lambda rng, shape: rng.normal(size=shape) * rng.choice([0.1, 1, 5, 30]),
    "log-probabilities": lambda rng, shape: np.log(softmax(rng.normal(size=shape) * 3)),
    "positive": lambda rng, shape: rng.random(shape),
    "relu": lambda rng, shape: np.maximum(rng.normal(size=shape), 0),
    "zeros": lambda rng, shape: np.zeros(shape),
    "one-hot": lambda rng, shape: np.eye(shape[1])[rng.integers(0, shape[1], shape[0])],
    "sigmoid": lambda rng, shape: 1 / (1 + np.exp(-rng.normal(size=shape) * 3)),
    "masked": lambda rng, shape: np.where(rng.random(shape) < 0.1, -1e4, rng.normal(size=shape)),
    "cosines": lambda rng, shape: rng.uniform(-1, 1, shape),
    "integers": lambda rng, shape: rng.integers(-5, 6, shape),
}


def ordinary(count):
    """Logits, targets and options of that many ordinary losses."""
    rng = np.random.default_rng(16)
    for number in range(count):
        shape = int(rng.integers(2, 40)), int(rng.integers(3, 60))
        kind = list(ORDINARY)[number % len(ORDINARY)]
        logits = ORDINARY[kind](rng, shape)
        dtype = list(NAMES.values())[number // len(ORDINARY) % len(NAMES)]
        if kind != "integers":
            logits = narrow(logits, dtype)
        if number % 3:
            targets = rng.integers(0, shape[1], shape[0])
        else:
            targets = narrow(softmax(rng.normal(size=shape)), dtype)
        options = {"softcap": 30.0} if number % 2 else {}
        yield kind, logits, targets, options


def test_a_thousand_ordinary_inputs_have_no_note():
    for kind, logits, targets, options in ordinary(1000):
        found = cross_entropy(logits, targets, grad=False, backend="numpy", **options).notes
        assert not found, (kind, logits.dtype, options, found)


@pytest.mark.parametrize("dtype", NAMES)
def test_probabilities_as_logits_are_noted(dtype):
    rng = np.random.default_rng(1)
    for _ in range(100):
        shape = int(rng.integers(2, 40)), int(rng.integers(3, 60))
        logits = narrow(softmax(rng.normal(size=shape)), NAMES[dtype])
        (note,) = cross_entropy(logits, np.zeros(shape[0], int), backend="numpy").notes
        assert "as probabilities do" in note.text
        assert note.strict


@pytest.mark.parametrize("dtype", NAMES)
def test_masked_logits_that_a_softcap_makes_finite_are_counted(dtype):
    logits = np.random.default_rng(1).normal(size=(7, 5))
    logits[2, 1:3] = logits[6, 0] = -np.inf
    given = narrow(logits, NAMES[dtype]), np.full(7, 4)
    (note,) = cross_entropy(*given, softcap=5, backend="numpy").notes
    assert (
        note.text
        == "softcap=5.0 makes 3 logits of -inf finite, so that masked classes get a probability"
    )
    assert note.strict
    assert not cross_entropy(*given, backend="numpy").notes
    logits[2, 1] = np.nan
    logits[3, 3] = np.inf
    given = narrow(logits, NAMES[dtype]), np.full(7, 4)
    texts = [note.text for note in cross_entropy(*given, softcap=5, backend="numpy").notes]
    assert any("makes 2 logits of -inf finite" in text for text in texts)


@pytest.mark.parametrize("dtype", ["f2", "bf16", "f4"])
@pytest.mark.parametrize("first", [[0.5, 0.25, 3.0], [0.5, 0.25, 0.1]], ids=["value", "row"])
def test_the_first_row_tells_that_logits_are_no_probabilities(monkeypatch, dtype, first):
    """All logits in bfloat16 were converted for that: 11 ms, where their kernel takes 4."""
    looked_at = []
    monkeypatch.setattr(logits_check, "all_right", lambda q, _: bool(looked_at.append(q.size)))
    x = np.array([[first], [[0.5, 0.25, 0.25]]], "f4").reshape(2, 3, 1)
    x = narrow(x, BF16) if dtype == "bf16" else x.astype(dtype)
    monkeypatch.setattr(logits_check, "widen", lambda a, d: looked_at.append(a.size) or widen(a, d))
    LogitsCheck().add(x)
    assert all(size <= 3 for size in looked_at)


def test_counts_of_parts_are_added():
    parts = [LogitsCheck(softcap=5.0) for _ in range(3)]
    for check in parts[:2]:
        check.add(np.array([[[1.0], [-np.inf]]]))
    for check in parts[1:]:
        parts[0].merge(check)
    assert (parts[0].masked, parts[0].rows) == (2, 2)


def test_masked_logits_are_counted_by_every_command_and_in_pieces(files, capfdbinary):
    logits = np.random.default_rng(1).normal(size=(400, 3000)).astype("f4")
    logits[[5, 390], 7] = -np.inf
    np.save("l.npy", logits)
    np.save("t.npy", np.arange(400))
    for command in ("grad l.npy t.npy -o g.npy", "loss l.npy t.npy", "softmax l.npy -o p.npy"):
        result = inside(capfdbinary, *command.split(), "--softcap", "30", "--backend", "numpy")
        assert result.code == 0
        assert "l.npy: --softcap 30.0 makes 2 logits of -inf finite" in result.err
        strict = inside(
            capfdbinary, *command.split(), "--softcap", "30", "--strict", "--backend", "numpy"
        )
        assert_error(strict, 1, "makes 2 logits of -inf finite")


@pytest.mark.parametrize("value", [-1, 0, 255, 1 << 40])
def test_an_ignore_index_beside_probabilities_is_an_error(value):
    with pytest.raises(OptionError, match="applies to class indices, not to probabilities"):
        cross_entropy(LOGITS, softmax(LOGITS), ignore_index=value)
    cross_entropy(LOGITS, softmax(LOGITS), ignore_index=-100)


@pytest.mark.parametrize(
    "command", ["grad l.npy q.npy", "loss l.npy q.npy", "explain l.npy q.npy", "report l.npy q.npy",
                "check l.npy q.npy g.npy"]
)  # fmt: skip
@pytest.mark.parametrize("value", ["-100", "-1", "1"])
def test_every_command_refuses_an_ignore_index_beside_probabilities(
    command, value, files, capfdbinary
):
    np.save("q.npy", softmax(LOGITS))
    np.save("g.npy", (softmax(LOGITS) - softmax(LOGITS)) / 2)
    result = inside(capfdbinary, *command.split(), "--ignore-index", value)
    assert_error(result, 2, f"--ignore-index: {value} applies to class indices")
    result = inside(
        capfdbinary, *command.replace("q.npy", "t.npy").split(), "--ignore-index", value
    )
    assert "applies to" not in result.err


@pytest.mark.parametrize(
    ("logits", "targets"),
    [((7,), (7, 3)), ((7, 1), (7, 3)), ((1, 7), (7, 3)), ((2, 4), (2, 3, 4)), ((2, 4), (2, 4, 3))],
)
def test_swapped_inputs_are_named_where_the_shapes_show_it(logits, targets):
    words = rf"swapped: the logits, of shape \({', '.join(map(str, targets))}\), come first"
    with pytest.raises(ShapeError, match=words):
        cross_entropy(np.zeros(logits, int), np.zeros(targets))


@pytest.mark.parametrize(
    ("logits", "targets"), [((7, 3), (6,)), ((7, 3), (7, 2)), ((7, 3), (3,)), ((7,), (2, 3))]
)
def test_other_shapes_are_not_taken_for_swapped(logits, targets):
    with pytest.raises(ShapeError) as error:
        cross_entropy(np.zeros(logits), np.zeros(targets, int))
    assert "swapped" not in str(error.value)


# The kind of the logits


@pytest.mark.parametrize("dtype", NAMES)
def test_probabilities_become_their_logarithms(dtype, files):
    p = softmax(np.random.default_rng(1).normal(size=(30, 4)))
    p[3] = [0.5, 0.0, 0.5, 0.0]
    array = narrow(p, NAMES[dtype])
    Path("p.npy").write_bytes(npy(array.view("V2") if array.dtype == BF16 else array))
    given = {"dtype": "bf16"} if array.dtype == BF16 else {}
    found = load("p.npy", ReadOptions(kind="probs", **given))
    assert found.dtype == (np.float64 if dtype == "f64" else np.float32)
    with np.errstate(divide="ignore"):
        expected = np.log(widen(array, NAMES["f64"]))
    np.testing.assert_allclose(found, expected, rtol=2e-7)
    assert found[3, 1] == -np.inf


def test_integers_of_one_hot_rows_are_probabilities_too(files):
    np.save("p.npy", np.eye(3, dtype=int))
    found = load("p.npy", ReadOptions(kind="probs"))
    np.testing.assert_array_equal(found, np.where(np.eye(3) == 1, 0.0, -np.inf))


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_the_kind_goes_with_every_command(suffix, files, capfdbinary):
    p = softmax(np.random.default_rng(1).normal(size=(30, 3)))
    np.save("p.npy", p)
    np.savetxt("p.csv", p, delimiter=",", fmt="%.17g")
    np.save("x.npy", np.log(p))
    np.save("y.npy", np.arange(30) % 3)
    for command in ("grad FILE y.npy -f npy", "softmax FILE -f npy", "report FILE y.npy --json",
                    "calibrate FILE y.npy --json", "explain FILE y.npy --row 7"):  # fmt: skip
        right = inside(capfdbinary, *command.replace("FILE", "x.npy").split())
        kind = ["--logits-kind", "probs", "--strict"]
        kind = kind[:2] if "explain" in command else kind
        found = inside(capfdbinary, *command.replace("FILE", f"p.{suffix}").split(), *kind)
        assert found.code == 0, found.err
        assert found.out == right.out
    piped = run(
        "softmax", "-", "--logits-kind", "probs", "-f", "csv", stdin=Path("p.csv").read_bytes()
    )
    assert piped.code == 0, piped.err
    np.testing.assert_allclose(np.loadtxt(piped.text.splitlines(), delimiter=","), p, rtol=1e-14)


def test_a_negative_probability_is_an_error_with_its_place(files, capfdbinary):
    np.save("p.npy", np.where(np.arange(30000).reshape(3, -1) == 20001, -0.25, 0.5))
    result = inside(capfdbinary, "softmax", "p.npy", "--logits-kind", "probs")
    assert_error(result, 1, "p.npy: probability -0.25 at number 20001 is negative")


def test_log_probabilities_are_taken_as_they_are(files, capfdbinary):
    np.save("p.npy", np.log(softmax(LOGITS)))
    result = inside(capfdbinary, "loss", "p.npy", "t.npy", "--logits-kind", "log-probs", "--strict")
    assert_done(result)
    assert float(result.text) == pytest.approx(1.5 * np.log(2))


# The bits of bfloat16


@pytest.mark.parametrize("dtype", ["<u2", "<i2", ">u2", ">i2"])
def test_integers_of_16_bits_are_bfloat16_where_the_option_says_so(dtype, files, capfdbinary):
    bits = narrow(LOGITS, BF16)
    np.save("b.npy", bits.view("V2"))
    np.save("u.npy", bits.view("<u2").astype(np.uint16).view("u2").astype(dtype))
    if dtype[1:] == "i2":
        np.save("u.npy", bits.view("<i2").astype(dtype))
    words = ["grad", "FILE", "t.npy", "--dtype", "bf16", "-f", "npy"]
    right, found = (inside(capfdbinary, words[0], name, *words[2:]) for name in ("b.npy", "u.npy"))
    assert found.code == 0, found.err
    assert found.out == right.out
    name = np.dtype(dtype).newbyteorder("=").name
    assert f"note: u.npy: dtype {name} was read as the bits of bfloat16" in found.err
    assert "note" not in right.err
    strict = inside(capfdbinary, words[0], "u.npy", *words[2:], "--strict")
    assert_error(strict, 1, "bits of bfloat16")
    assert found.out != inside(capfdbinary, "grad", "u.npy", "t.npy", "-f", "npy").out


def test_targets_of_16_bits_stay_integers(files, capfdbinary):
    np.save("t.npy", TARGETS.astype("u2"))
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--dtype", "bf16", "--strict")
    assert float(result.text) == pytest.approx(1.5 * np.log(2))


def test_raw_integers_of_16_bits_are_what_their_layout_says(files, capfdbinary):
    np.array([[3, 1, 2]], "<i2").tofile("l.bin")
    raw = ["--raw", "i16", "--shape", "1,3", "--dtype", "bf16", "-f", "csv"]
    result = inside(capfdbinary, "softmax", "l.bin", *raw, "--strict")
    assert result.text.startswith("0.66")


@pytest.mark.parametrize("classes", [2, 100, 5000])
@pytest.mark.parametrize("wrong", [None, 0, 0.5, 1])
def test_several_threads_look_for_what_is_no_distribution(rng, classes, wrong):
    q = rng.random((2_400_000 // classes, classes))
    q /= q.sum(axis=1, keepdims=True)
    if wrong is not None:
        q[int(wrong * (len(q) - 1))] *= 1.5
    found = []
    for threads in (1, 4):
        check = ProbabilityCheck()
        check.add(q, threads)
        found.append([note.text for note in check.notes()])
    assert found[0] == found[1]
    assert bool(found[0]) == (wrong is not None)
