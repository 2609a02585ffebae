"""`xent check` of a loss against a teacher: its oracle, and what it passes and refuses."""

import itertools

import mpmath
import numpy as np
import pytest
import teacher_oracle as mp_oracle
from cli import assert_error, captured, inside
from helpers import DIGITS

from xentcli import DataError, OptionError, Teacher, cross_entropy, log_softmax
from xentcli.check import assert_grad_close, assert_loss_close, check
from xentcli.check.oracles.rows import FloatRows, scale_of
from xentcli.check.oracles.teacher import TeacherOracle
from xentcli.engine.problem import Extras, build
from xentcli.engine.rows import RowPiece
from xentcli.engine.teacher.task import task_of
from xentcli.options import LossOptions

N, C, K = 7, 6, 3
LOSSES = {
    "ce": {"divergence": "ce"},
    "forward-kl": {"divergence": "forward-kl"},
    "reverse-kl": {"divergence": "reverse-kl"},
    "jsd": {"divergence": "jsd", "beta": 0.3},
}
TAILS = [None, "bucket", "uniform", "subset", "teacher", "drop"]
COMBINATIONS = [
    pair for pair in itertools.product(LOSSES, TAILS) if pair != ("reverse-kl", "teacher")
]


def of_tail(logits, tail, dtype="f8", kind="log-probs"):
    """A teacher's values, indices and kind: of all classes, or of the K largest."""
    if tail is None:
        return logits.astype(dtype), None, "logits"
    log_q = log_softmax(logits.astype("f8"))
    indices = np.argsort(-log_q, axis=1, kind="stable")[:, :K]
    values = np.take_along_axis(log_q, indices, axis=1)
    return (np.exp(values) if kind == "probs" else values).astype(dtype), indices, kind


def exact_rows(x, teacher, **options):
    """What the oracle says of each row."""
    how = LossOptions(reduction="none", **options)
    problem, arrays = build(x.shape, None, how, Extras()), teacher.arrays
    task = task_of(problem.layout, arrays, how, teacher.options, Extras(), has_rest=len(arrays) > 2)
    piece = RowPiece.of_arrays(problem, x, None, arrays)
    return TeacherOracle(how, scale_of(problem, how), task)(FloatRows.of(piece, task))


# The oracle


@pytest.mark.parametrize("kind", ["log-probs", pytest.param("probs", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("divergence", "tail"), COMBINATIONS)
def test_the_oracle_agrees_with_the_definition(divergence, tail, kind, rng):
    if tail is None and kind == "probs":
        return
    x, z = rng.standard_normal((2, 2, C)) * [[[1.0]], [[6.0]]]
    values, indices, kind = of_tail(z, tail, kind=kind)
    how = {"kind": kind, "tail": tail, **LOSSES[divergence]}
    mine = exact_rows(x, Teacher(values, indices, **how), temperature=1.7)
    for row in range(2):
        classes = range(C) if indices is None else indices[row].tolist()
        case = mp_oracle.Case(
            dict(zip(classes, values[row].tolist(), strict=True)),
            kind,
            divergence,
            tail,
            how.get("beta"),
            1.7,
            1.7,
        )
        exact = mp_oracle.exact(x[row], case)
        with mpmath.workdps(DIGITS):
            found = mpmath.mpf(mine.losses.high[row]) + mpmath.mpf(mine.losses.low[row])
            assert abs(found - exact.value) <= exact.size * mpmath.mpf(2) ** -90
            for c, (wanted, size) in enumerate(zip(exact.gradient, exact.sizes, strict=True)):
                found = mpmath.mpf(mine.grad.high[row, c]) + mpmath.mpf(mine.grad.low[row, c])
                assert abs(found - wanted) <= size * mpmath.mpf(2) ** -90


def test_a_kl_divergence_of_nearly_equal_distributions_keeps_its_digits(rng):
    x = rng.standard_normal((1, C))
    z = x + 1e-9 * rng.standard_normal((1, C))
    mine = exact_rows(x, Teacher(z, kind="logits", divergence="forward-kl"))
    case = mp_oracle.Case(dict(enumerate(z[0].tolist())), "logits", "forward-kl")
    exact = mp_oracle.exact(x[0], case).value
    assert abs(mine.losses.high[0] - exact) <= 1e-12 * exact


# What passes, and what does not


@pytest.fixture
def data(rng):
    """Logits, a teacher's logits, targets of which some are ignored, and weights."""
    x, z = rng.standard_normal((2, N, C)) * 3
    t = rng.integers(0, C, N)
    t[1] = -100
    return {"x": x, "z": z, "t": t, "v": rng.random(N) + 0.5, "w": rng.random(C) + 0.5}


@pytest.mark.parametrize("dtype", ["f4", pytest.param("f8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("alpha", [0.3, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("divergence", "tail"), COMBINATIONS)
def test_our_own_gradient_is_exact_and_a_wrong_one_is_not(divergence, tail, alpha, dtype, data):
    x, y = data["x"].astype(dtype), data["t"]
    values, indices, kind = of_tail(data["z"], tail, dtype)
    how = {"kind": kind, "tail": tail, "alpha": alpha, "scale_t2": True, **LOSSES[divergence]}
    options = {"temperature": 1.7, "sample_weight": data["v"]}
    if divergence in ("ce", "forward-kl") and tail != "bucket":
        options["weight"] = data["w"]
    options["teacher"] = Teacher(values, indices, **how)
    r = cross_entropy(x, y, backend="numpy", **options)
    assert check(x, y, r.grad, loss=r.loss, exact=True, **options).ok
    wrong = r.grad.copy()
    wrong[np.unravel_index(np.abs(wrong).argmax(), wrong.shape)] *= 1.001
    assert not check(x, y, wrong, **options).ok
    report = check(x, y, r.grad, loss=r.loss * 1.0001, **options)
    assert not report.statistics.off
    assert report.loss.off


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_losses_follow_the_reduction(reduction, data):
    teacher = Teacher(data["z"], kind="logits", divergence="jsd", beta=0.5, alpha=0.4)
    options = {"teacher": teacher, "reduction": reduction, "label_smoothing": 0.1}
    r = cross_entropy(data["x"], data["t"], backend="numpy", **options)
    assert_loss_close(data["x"], data["t"], r.loss, exact=True, **options)
    assert_grad_close(data["x"], data["t"], r.grad, exact=True, **options)
    with pytest.raises(AssertionError, match="FAIL loss"):
        assert_loss_close(data["x"], data["t"], np.asarray(r.loss) + 0.1, **options)


def test_a_naive_gradient_passes_at_plain_precision(data):
    x, z = data["x"].astype("f4"), data["z"].astype("f4")
    p, q = (np.exp(a - a.max(axis=1, keepdims=True)) for a in (x, z))
    p, q = (a / a.sum(axis=1, keepdims=True) for a in (p, q))
    x_pq = np.log(p) - np.log(q)
    value = (p * x_pq).sum(axis=1, keepdims=True)
    grad = (p * (x_pq - value) / np.float32(N)).astype("f4")
    teacher = Teacher(z, kind="logits", divergence="reverse-kl")
    report = check(x, None, grad, loss=value.mean(), teacher=teacher)
    assert (report.ok, report.precision) == (True, "plain")


def test_a_teacher_of_other_classes_is_padded(data):
    for columns in (C - 2, C + 2):
        z = np.resize(data["z"], (N, columns))
        teacher = Teacher(z, kind="logits", divergence="jsd", beta=0.4, classes="pad")
        r = cross_entropy(data["x"], teacher=teacher, backend="numpy")
        assert check(data["x"], None, r.grad, loss=r.loss, teacher=teacher, exact=True).ok


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("divergence", "tail"), COMBINATIONS)
def test_numbers_that_are_not_finite_and_extreme_ones(divergence, tail, dtype, data):
    x, z = data["x"].astype(dtype), data["z"].astype(dtype)
    x[0, 1], x[1, 2], x[2, 3], z[3, 1] = -np.inf, np.nan, np.inf, np.nan
    if (divergence, tail) != ("reverse-kl", "drop"):  # whose value is 1e-19 where it is less
        x[4] *= 200
    z[5] *= 100
    if tail is None:
        z[0, 1] = z[4, 0] = -np.inf
    values, indices, kind = of_tail(z, tail, dtype)
    if indices is not None:
        values[4, 0], indices[5, 1] = -2000, -1
    teacher = Teacher(values, indices, kind=kind, tail=tail, **LOSSES[divergence])
    for softcap in (None, 5.0):
        how = {"reduction": "none", "softcap": softcap, "teacher": teacher}
        r = cross_entropy(x, backend="numpy", **how)
        assert check(x, None, r.grad, loss=r.loss, **how).ok


def test_other_layouts_and_empty_slots(rng):
    x = rng.standard_normal((2, C, 4)).astype("f4")
    values, indices = -rng.random((2, K, 4)) - 1, np.argsort(rng.random((2, C, 4)), axis=1)[:, :K]
    indices[0, 1, 2] = -1
    teacher = Teacher(values, indices, kind="log-probs", divergence="forward-kl", tail="bucket")
    r = cross_entropy(x, teacher=teacher, backend="numpy", class_axis=1)
    assert check(x, None, r.grad, loss=r.loss, teacher=teacher, class_axis=1, exact=True).ok


def test_errors(data):
    good = {"kind": "logits", "divergence": "ce"}
    x, z = data["x"], data["z"]
    with pytest.raises(OptionError, match="finite-diff"):
        check(x, None, x, teacher=Teacher(z, **good), method="finite-diff")
    with pytest.raises(OptionError, match="expected a Teacher"):
        check(x, None, x, teacher=z)
    with pytest.raises(OptionError, match="tail"):
        check(x, None, x, teacher=Teacher(z, np.tile(np.arange(C), (N, 1)), **good))
    with pytest.raises(DataError, match="targets"):
        check(x, None, x)


# From files


def test_files(data, files, capfdbinary):
    values, indices, kind = of_tail(data["z"], "bucket", "f4")
    np.save("x.npy", data["x"].astype("f4"))
    np.save("t.npy", data["t"])
    np.savez("top.npz", values=values, indices=indices)
    how = ["--teacher", "top.npz", "--teacher-kind", kind, "--divergence", "forward-kl"]
    how += ["--tail", "bucket", "--temperature", "2", "-q"]
    for targets in ([], ["t.npy"]):
        grad = inside(capfdbinary, "grad", "x.npy", *targets, *how, "-o", "g.npy")
        assert grad.code == 0
        result = inside(capfdbinary, "check", "x.npy", *targets, "g.npy", *how, "--exact")
        assert (result.code, result.text[:20]) == (0, "PASS gradient, exact")
    np.save("wrong.npy", np.load("g.npy") * 2)
    assert inside(capfdbinary, "check", "x.npy", "t.npy", "wrong.npy", *how).code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.npy"], "Missing argument"),
        (["x.npy", "--teacher", "x.npy"], "Missing argument 'GRAD'"),
        (["x.npy", "x.npy", "x.npy", "--divergence", "ce"], "there is none"),
    ],
)
def test_wrong_use(arguments, words, files, data):
    np.save("x.npy", data["x"])
    assert_error(captured("check", *arguments), 2, words)
