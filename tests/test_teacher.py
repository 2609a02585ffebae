"""Losses against a teacher: exact values, limits, and how the options go together."""

import itertools

import mpmath
import numpy as np
import pytest
import teacher_oracle as oracle
from backends import BACKENDS, up_to
from exact import error
from helpers import assert_same_bits

from xentcli import DataError, OptionError, Teacher, cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import BF16, narrow, widen
from xentcli.engine.teacher.mass import MassTotals

pytestmark = pytest.mark.backends

TAILS = ["bucket", "uniform", "subset", "teacher", "drop"]
LOSSES = {
    "ce": {"divergence": "ce"},
    "forward-kl": {"divergence": "forward-kl"},
    "reverse-kl": {"divergence": "reverse-kl"},
    "jsd": {"divergence": "jsd", "beta": 0.3},
}
ULPS = {"f4": 2.0, "f8": 8.0}  # of the terms
NAMES = {"f4": "f32", "f8": "f64"}
C = 9


def together(divergence, tail):
    """Whether the two go together: a teacher of zeros has an infinite reverse KL."""
    return not (divergence == "reverse-kl" and tail == "teacher")


COMBINATIONS = [pair for pair in itertools.product(LOSSES, [None, *TAILS]) if together(*pair)]


def spread(rng, shape, width):
    """Logits of rows from nearly uniform to very confident."""
    scale = np.geomspace(1e-3, width, shape[0])[:, None]
    return rng.standard_normal(shape) * scale


def top_of(logits, k):
    """The log-probabilities of the k largest, and their classes in a mixed order."""
    log_q = log_softmax(np.asarray(logits, "f8"))
    indices = np.argsort(-log_q, axis=1, kind="stable")[:, :k][:, ::-1]
    return np.take_along_axis(log_q, indices, axis=1), indices


def assert_exact(r, exact, dtype):
    """Values and gradients within the ULP that are promised, of the terms."""
    limit, name = ULPS[dtype], NAMES[dtype]
    counted = "f64" if dtype == "f8" else "f32"
    losses = np.atleast_1d(r.loss)
    for loss, row, e in zip(losses, r.grad.astype(float), exact, strict=True):
        assert error(loss, e.value, "f64", e.size, counted) <= limit
        for g, expected, size in zip(row, e.gradient, e.sizes, strict=True):
            assert error(g, expected, name, size) <= limit


def stored_rows(values, indices=None):
    columns = range(C) if indices is None else None
    return [
        dict(zip(columns or indices[i].tolist(), row.tolist(), strict=True))
        for i, row in enumerate(values)
    ]


# Exact values


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("divergence", "tail"), COMBINATIONS)
def test_values_and_gradients_are_exact(rng, backend, dtype, divergence, tail):
    x = spread(rng, (3, C), 12).astype(dtype)
    t = spread(rng, (3, C), 6).astype(dtype)
    values, indices, kind, temperatures = t, None, "logits", (1.7, 2.5)
    if tail:
        values, indices = top_of(t, 4)
        values, kind, temperatures = values.astype(dtype), "log-probs", (1.7, None)
    how = {"kind": kind, "temperature": temperatures[1], "tail": tail, **LOSSES[divergence]}
    r = cross_entropy(
        x,
        teacher=Teacher(values, indices, **how),
        temperature=temperatures[0],
        reduction="none",
        backend=backend,
    )
    exact = [
        oracle.exact(
            row,
            oracle.Case(
                stored,
                kind,
                divergence,
                tail,
                how.get("beta"),
                temperatures[0],
                temperatures[1] or 1.0,
            ),
        )
        for row, stored in zip(x, stored_rows(values, indices), strict=True)
    ]
    assert_exact(r, exact, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "jsd"])
@pytest.mark.parametrize("tail", [None, "bucket", "uniform", "subset"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_small_divergence_keeps_its_digits(rng, backend, divergence, tail, dtype):
    """Logits that differ by 10⁻⁶: the usual formula has no digit left in float32."""
    t = rng.uniform(0.5, 1, (4, C)).astype(dtype)
    x = (t + 1e-6 * rng.standard_normal((4, C)) + 0.25).astype(dtype)
    assert (x != t + np.asarray(0.25, dtype)).any()
    values, indices, kind = t.astype("f8"), None, "logits"
    if tail:
        values, indices = top_of(t, 5)
        kind = "log-probs"
    how = {"kind": kind, "tail": tail, **LOSSES[divergence]}
    r = cross_entropy(x, teacher=Teacher(values, indices, **how), reduction="none", backend=backend)
    for row, stored, loss in zip(x, stored_rows(values, indices), r.loss, strict=True):
        case = oracle.Case(stored, kind, divergence, tail, how.get("beta"))
        with oracle.mp.workdps(50):
            expected = oracle.value([oracle.mp.mpf(float(v)) for v in row], case)
            assert abs(oracle.mp.mpf(float(loss)) / expected - 1) < 1e-6


KINDS = ["logits", "log-probs", "probs", "counts"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", [False, True], ids=["dense", "top"])
def test_every_kind_of_numbers(rng, backend, kind, top):
    x = rng.standard_normal((3, C))
    counts = rng.integers(1, 9, (3, C))
    log_q = np.log(counts / counts.sum(axis=1, keepdims=True))
    values = {"logits": log_q + 3, "log-probs": log_q, "probs": np.exp(log_q), "counts": counts}
    indices = np.broadcast_to(np.arange(C), (3, C))[:, ::-1] if top else None
    given = values[kind][:, ::-1] if top else values[kind]
    teacher = Teacher(
        given, indices, kind=kind, divergence="forward-kl", tail="drop" if top else None
    )
    r = cross_entropy(x, teacher=teacher, backend=backend)
    q, log_p = np.exp(log_q), log_softmax(x)
    assert r.loss == pytest.approx(np.mean(np.sum(q * (log_q - log_p), axis=1)), rel=1e-12)
    np.testing.assert_allclose(r.grad, (softmax(x) - q) / 3, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_are_counts_and_the_same_class_is_added(rng, backend):
    x = rng.standard_normal((2, C))
    ids = np.array([[4, 4, 2, 4], [0, 1, -1, 1]])
    r = cross_entropy(
        x, teacher=Teacher(np.ones((2, 4), "i4"), ids, divergence="ce"), backend=backend
    )
    q = np.zeros((2, C))
    q[0, [4, 2]], q[1, [0, 1]] = [0.75, 0.25], [1 / 3, 2 / 3]
    assert r.loss == pytest.approx(np.mean(np.sum(-q * log_softmax(x), axis=1)), rel=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("divergence", "tail"), [p for p in COMBINATIONS if p[1]])
def test_empty_slots_are_as_if_they_were_not_there(rng, backend, divergence, tail):
    x = rng.standard_normal((3, C))
    values, indices = top_of(rng.standard_normal((3, C)), 3)
    wide, ids = np.full((3, 6), 7.0), np.full((3, 6), -1)
    wide[:, [1, 2, 4]], ids[:, [1, 2, 4]] = values, indices
    wide[:, 0], ids[:, 0] = -np.inf, 8  # either of the three marks a slot as empty
    wide[:, 3], ids[:, 3] = -1000.0, indices[:, 0]
    how = {"kind": "log-probs", "tail": tail, **LOSSES[divergence]}
    plain, padded = (
        cross_entropy(x, teacher=Teacher(v, i, **how), backend=backend)
        for v, i in ((values, indices), (wide, ids))
    )
    assert plain.loss == padded.loss
    assert_same_bits(plain.grad, padded.grad)
    assert plain.captured == padded.captured


# Limits


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tail", ["bucket", "uniform"])
@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl"])
def test_what_sums_to_less_than_1_over_all_classes_has_no_rest(rng, backend, tail, divergence):
    x = rng.standard_normal((3, C))
    log_q, indices = top_of(rng.standard_normal((3, C)), C)
    log_q += np.log(0.9)
    dense = np.take_along_axis(log_q, np.argsort(indices, axis=1), axis=1)
    how = {"kind": "log-probs", "divergence": divergence}
    a = cross_entropy(x, teacher=Teacher(log_q, indices, tail=tail, **how), backend=backend)
    b = cross_entropy(x, teacher=Teacher(dense, **how), backend=backend)
    assert a.loss == pytest.approx(b.loss, rel=1e-13)
    np.testing.assert_allclose(a.grad, b.grad, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("divergence", "tail"), [p for p in COMBINATIONS if p[1]])
def test_all_classes_stored_is_a_dense_teacher(rng, backend, divergence, tail):
    x = rng.standard_normal((5, C)) * 3
    log_q, indices = top_of(rng.standard_normal((5, C)), C)
    dense = np.take_along_axis(log_q, np.argsort(indices, axis=1), axis=1)
    how = {"kind": "log-probs", **LOSSES[divergence]}
    a = cross_entropy(x, teacher=Teacher(log_q, indices, tail=tail, **how), backend=backend)
    b = cross_entropy(x, teacher=Teacher(dense, **how), backend=backend)
    assert a.loss == pytest.approx(b.loss, rel=1e-13)
    np.testing.assert_allclose(a.grad, b.grad, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tail", [None, "bucket", "uniform", "teacher", "drop"])
@pytest.mark.parametrize("divergence", ["ce", "forward-kl"])
def test_a_one_hot_teacher_is_a_class_index(rng, backend, tail, divergence):
    x, y = rng.standard_normal((6, C)) * 4, rng.integers(0, C, 6)
    y[2] = -100
    q, indices = np.eye(C)[y.clip(0)], None
    if tail:
        q, indices = np.ones((6, 1)), y[:, None].clip(0)
    teacher = Teacher(q, indices, kind="probs", divergence=divergence, tail=tail)
    soft = cross_entropy(x, y, teacher=teacher, temperature=1.5, backend=backend)
    hard = cross_entropy(x, y, temperature=1.5)
    assert soft.loss == pytest.approx(hard.loss, rel=1e-13)
    np.testing.assert_allclose(soft.grad, hard.grad, atol=1e-15)
    assert soft.ignored == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("end", [0, 1])
def test_jsd_tends_to_the_divergences(rng, backend, end):
    """JSD/β → KL(q‖p) for β → 0, JSD/(1 − β) → KL(p‖q) for β → 1."""
    x, t = rng.standard_normal((2, 4, C))
    small = 1e-7
    jsd = Teacher(t, kind="logits", divergence="jsd", beta=1 - small if end else small)
    kl = Teacher(t, kind="logits", divergence="reverse-kl" if end else "forward-kl")
    a, b = (cross_entropy(x, teacher=each, backend=backend) for each in (jsd, kl))
    assert a.loss / small == pytest.approx(b.loss, rel=1e-5)
    np.testing.assert_allclose(a.grad / small, b.grad, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "jsd"])
def test_a_student_equal_to_its_teacher_has_no_loss(rng, backend, divergence):
    x = (rng.standard_normal((5, C)) * 20).astype("f4")
    teacher = Teacher(x, kind="logits", **LOSSES[divergence])
    r = cross_entropy(x, teacher=teacher, reduction="none", backend=backend)
    assert (np.abs(r.loss) < 1e-20).all()
    single = backend == "cpu" and divergence == "forward-kl"  # the kernel computes in float32
    limit = 2.0**-22 * 2 * softmax(x.astype("f8")) if single else 1e-15
    assert (np.abs(r.grad) <= limit).all()


# How the options go together


@pytest.fixture
def job(rng):
    """Logits, a top-K teacher of them, and targets of which some are ignored."""
    x, t = rng.standard_normal((2, 7, C)) * 2
    y = rng.integers(0, C, 7)
    y[[1, 4]] = -100
    return x, y, top_of(t, 4)


HOW = {"kind": "log-probs", "divergence": "forward-kl", "tail": "bucket"}


def test_reductions_weights_and_upstream_scale_the_rows(rng, job):
    x, y, (values, indices) = job
    v, u = rng.random(7) + 0.5, rng.standard_normal(7)
    teacher, here = Teacher(values, indices, **HOW), y != -100
    each = cross_entropy(x, y, teacher=teacher, reduction="none", sample_weight=v, upstream=u)
    plain = cross_entropy(x, y, teacher=teacher, reduction="none")
    np.testing.assert_allclose(each.loss, v * plain.loss, rtol=1e-15)
    np.testing.assert_allclose(each.grad, (v * u)[:, None] * plain.grad, rtol=1e-15)
    assert not plain.loss[~here].any()
    assert not plain.grad[~here].any()
    mean = cross_entropy(x, y, teacher=teacher, sample_weight=v, upstream=2.0)
    assert mean.loss == pytest.approx(np.sum(v * plain.loss) / v[here].sum(), rel=1e-14)
    np.testing.assert_allclose(mean.grad, 2 * v[:, None] * plain.grad / v[here].sum(), rtol=1e-14)
    over = cross_entropy(x, y, teacher=teacher, normalizer=4.0)
    assert over.loss == pytest.approx(plain.loss.sum() / 4, rel=1e-14)
    total = cross_entropy(x, y, teacher=teacher, reduction="sum")
    assert total.loss == pytest.approx(plain.loss.sum(), rel=1e-14)
    assert (mean.rows, mean.ignored) == (7, 2)


def test_an_ignored_row_is_not_looked_at(job):
    x, y, (values, indices) = job
    x, values, indices = x.copy(), values.copy(), indices.copy()
    before = cross_entropy(x, y, teacher=Teacher(values, indices, **HOW))
    x[1], values[1], indices[1] = np.nan, np.nan, 10**6
    after = cross_entropy(x, y, teacher=Teacher(values, indices, **HOW))
    assert_same_bits(before.grad, after.grad)
    assert before.loss == after.loss
    assert before.captured == after.captured


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_alpha_mixes_with_the_hard_targets_at_temperature_1(rng, job, dtype):
    x, y, (values, indices) = job
    x = x.astype(dtype)
    w, v = rng.random(C) + 0.5, rng.random(7) + 0.5
    hard_options = {"label_smoothing": 0.1, "z_loss": 0.01, "weight": w, "sample_weight": v}
    soft_options = {"temperature": 2.0, "sample_weight": v, "weight": w}
    how = {**HOW, "tail": "drop"}
    mixed = cross_entropy(
        x,
        y,
        teacher=Teacher(values, indices, alpha=0.3, scale_t2=True, **how),
        **{**hard_options, **soft_options},
    )
    soft = cross_entropy(x, y, teacher=Teacher(values, indices, **how), **soft_options)
    hard = cross_entropy(x, y, **hard_options)
    assert mixed.loss == pytest.approx(0.3 * 4 * soft.loss + 0.7 * hard.loss, rel=1e-14)
    expected = 0.3 * 4 * soft.grad.astype(float) + 0.7 * hard.grad
    assert mixed.grad.dtype == hard.grad.dtype
    rtol = 1e-14 if dtype == "f8" else 4e-7
    np.testing.assert_allclose(mixed.grad, expected, rtol=0, atol=rtol)


def test_a_mixed_gradient_that_underflows_is_no_negative_zero():
    teacher = Teacher([[0.0, -40.0]], kind="logits", divergence="ce", alpha=0.5)
    out = np.ones((1, 2), "f2")
    r = cross_entropy([[30.0, 0.0]], [0], teacher=teacher, out=out)
    assert_same_bits(r.grad, np.zeros((1, 2), "f2"))


def test_probabilities_as_hard_targets(rng, job):
    x, _, (values, indices) = job
    q = softmax(rng.standard_normal((7, C)))
    mixed = cross_entropy(x, q, teacher=Teacher(values, indices, alpha=0.5, **HOW))
    soft = cross_entropy(x, teacher=Teacher(values, indices, **HOW))
    hard = cross_entropy(x, q)
    assert mixed.loss == pytest.approx((soft.loss + hard.loss) / 2, rel=1e-14)
    np.testing.assert_allclose(mixed.grad, (soft.grad + hard.grad) / 2, atol=1e-16)


@pytest.mark.parametrize("tail", [None, "uniform", "subset", "teacher", "drop"])
@pytest.mark.parametrize("divergence", ["ce", "forward-kl"])
def test_class_weights_multiply_the_terms(rng, job, tail, divergence):
    x, _, (values, indices) = job
    x, values, indices = x[:2], values[:2], indices[:2]
    if tail is None:
        values, indices = log_softmax(rng.standard_normal((2, C))), None
    w = rng.random(C) + 0.25
    teacher = Teacher(values, indices, kind="log-probs", tail=tail, divergence=divergence)
    r = cross_entropy(x, teacher=teacher, weight=w, reduction="none")
    exact = [
        oracle.exact(
            row, oracle.Case(stored, "log-probs", divergence, tail, weight=tuple(w.tolist()))
        )
        for row, stored in zip(x, stored_rows(values, indices), strict=True)
    ]
    for loss, row, e in zip(r.loss, r.grad, exact, strict=True):
        assert loss == pytest.approx(float(e.value), rel=1e-12)
        np.testing.assert_allclose(row, np.array(e.gradient, float), atol=1e-14)


def test_a_softcap_caps_the_student(rng):
    x, t = rng.standard_normal((2, 3, C)) * 3
    teacher = Teacher(t, kind="logits", divergence="reverse-kl")
    r = cross_entropy(x, teacher=teacher, softcap=4.0, reduction="none")
    plain = cross_entropy(4 * np.tanh(x / 4), teacher=teacher, reduction="none")
    np.testing.assert_allclose(r.loss, plain.loss, rtol=1e-12)
    np.testing.assert_allclose(r.grad, plain.grad / np.cosh(x / 4) ** 2, atol=1e-14)


def test_a_softcap_that_unmasks_classes_is_noted():
    teacher = Teacher([[0.5, 0.5, 0.0]], kind="probs", divergence="ce")
    notes = cross_entropy([[1.0, 2.0, -np.inf]], teacher=teacher, softcap=30.0).notes
    assert any("makes 1 logit of -inf finite" in note.text for note in notes)


def test_a_stored_rest_is_used_as_it_is(rng, job):
    x, _, (values, indices) = job
    rest = np.log(rng.random(7))
    for tail in ("bucket", "uniform"):
        teacher = Teacher(values, indices, rest, kind="log-probs", divergence="ce", tail=tail)
        r = cross_entropy(x, teacher=teacher, reduction="none")
        for row, stored, one, loss in zip(
            x, stored_rows(values, indices), rest, r.loss, strict=True
        ):
            case = oracle.Case(stored, "log-probs", "ce", tail, rest=float(np.exp(one)))
            assert loss == pytest.approx(float(oracle.value(row.tolist(), case)), rel=1e-13)


@pytest.mark.parametrize("fewer", ["teacher", "student"])
def test_classes_that_one_lacks_are_padded(rng, fewer):
    x, t = rng.standard_normal((2, 4, C))
    cut = slice(0, C - 3)
    if fewer == "teacher":
        full = np.full((4, C), -np.inf)
        full[:, cut] = t = t[:, cut]
        whole = cross_entropy(x, teacher=Teacher(full, kind="logits", divergence="forward-kl"))
        how = {"divergence": "forward-kl"}
    else:
        full = np.full((4, C), -np.inf)
        full[:, cut] = x = x[:, cut]
        how = {"divergence": "jsd", "beta": 0.4}
        whole = cross_entropy(full, teacher=Teacher(t, kind="logits", **how))
    r = cross_entropy(x, teacher=Teacher(t, kind="logits", classes="pad", **how))
    assert r.loss == whole.loss
    assert_same_bits(r.grad, np.ascontiguousarray(whole.grad[:, : x.shape[1]]))


# Arrays as people have them


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tail", [None, "uniform", "subset"])
def test_the_class_axis_may_be_anywhere(rng, backend, tail):
    x, t = rng.standard_normal((2, 4, C, 3))
    y = rng.integers(0, C, (4, 3))
    y[1, 1] = -100
    values, indices = t, None
    if tail:
        log_q = log_softmax(t, class_axis=1)
        indices = np.argsort(-log_q, axis=1)[:, :4]
        values = np.take_along_axis(log_q, indices, axis=1)
    how = {"kind": "log-probs" if tail else "logits", "tail": tail, "divergence": "forward-kl"}
    a = cross_entropy(x, y, teacher=Teacher(values, indices, **how), class_axis=1, backend=backend)
    moved = (None if i is None else np.moveaxis(i, 1, -1).copy() for i in (values, indices))
    b = cross_entropy(
        np.moveaxis(x, 1, -1).copy(), y, teacher=Teacher(*moved, **how), backend=backend
    )
    assert a.loss == b.loss
    assert_same_bits(a.grad, np.moveaxis(b.grad, -1, 1).copy())
    assert_same_bits(a.lse, b.lse)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_gradient_in_place_has_the_same_bits(rng, backend, alpha, job):
    x, y, (values, indices) = job
    teacher = Teacher(values, indices, alpha=alpha, **HOW)
    plain = cross_entropy(x, y, teacher=teacher, backend=backend)
    room = x.copy()
    assert cross_entropy(room, y, teacher=teacher, out=room, backend=backend).grad is room
    assert_same_bits(room, plain.grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_teacher_in_the_memory_of_the_gradient_is_copied(rng, backend):
    n = up_to(4000, 20)  # more than one block of the reference
    x, room = rng.standard_normal((n, C)), rng.standard_normal((n + 1, C))
    plain = Teacher(room[:-1].copy(), kind="logits", divergence="ce")
    expected = cross_entropy(x, teacher=plain, backend=backend)
    teacher = Teacher(room[:-1], kind="logits", divergence="ce")
    over = cross_entropy(x, teacher=teacher, out=room[1:], backend=backend)
    assert_same_bits(over.grad, expected.grad)


HALVES = {"f2": np.dtype("f2"), "bf16": BF16}


@pytest.mark.slow  # kernels of their own are compiled
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("tail", [None, "bucket"])
def test_half_numbers_are_widened_and_rounded_once(rng, backend, half, tail):
    dtype = HALVES[half]
    x, t = (narrow(rng.standard_normal((5, C)), dtype) for _ in range(2))
    values, indices, kind = t, None, "logits"
    if tail:
        values, indices = top_of(widen(t, np.dtype("f8")), 3)
        values, kind = narrow(values, dtype), "log-probs"
    how = {"kind": kind, "tail": tail, "divergence": "forward-kl"}
    wide = widen(values, np.dtype("f4"))
    a = cross_entropy(x, teacher=Teacher(values, indices, **how), backend=backend)
    b = cross_entropy(
        widen(x, np.dtype("f4")), teacher=Teacher(wide, indices, **how), backend=backend
    )
    assert a.loss == pytest.approx(b.loss, rel=1e-6)
    np.testing.assert_allclose(a.grad, b.grad, atol=2e-8)
    out = np.empty((5, C), dtype)
    r = cross_entropy(x, teacher=Teacher(values, indices, **how), out=out, backend=backend)
    np.testing.assert_allclose(
        widen(r.grad, np.dtype("f8")), b.grad, rtol=2.0**-8 if half == "bf16" else 2.0**-11
    )


# Edges


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_and_infinities(backend):
    inf = np.inf
    x = np.array([[0.0, -inf, 1.0], [0.0, 1.0, -inf], [np.nan, 0, 1], [inf, 0, 1], [-inf] * 3])
    q = np.array([[0.5, 0.0, 0.5], [0.5, 0.25, 0.25], *[[0.2, 0.3, 0.5]] * 3])
    results = {
        name: cross_entropy(
            x, teacher=Teacher(q, kind="probs", **loss), reduction="none", backend=backend
        )
        for name, loss in LOSSES.items()
    }
    for name, r in results.items():
        assert np.isfinite(r.loss[0]), name
        assert np.isfinite(r.grad[0]).all()
        assert np.isnan(r.loss[2:]).all()
        assert np.isnan(r.grad[2:]).all()
    p = softmax(x[1])
    for name in ("ce", "forward-kl"):
        assert results[name].loss[1] == inf
        np.testing.assert_allclose(results[name].grad[1], p - q[1], rtol=1e-14)
    for name in ("reverse-kl", "jsd"):
        assert np.isfinite(results[name].loss[1])
        assert np.isfinite(results[name].grad[1]).all()
    zero = cross_entropy(
        [[0.0, 1.0, 2.0]],
        teacher=Teacher([[0.5, 0.5, 0.0]], kind="probs", divergence="reverse-kl"),
        backend=backend,
    )
    assert zero.loss == inf
    assert np.isnan(zero.grad).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_bucket_of_classes_that_the_student_excludes(backend, temperature):
    """Both give the bucket nothing: it adds nothing, and its classes have the gradient 0."""
    x, stored = np.array([[0.5, 2.0, -np.inf, -np.inf]]), [[0, 1]]
    for name, loss in LOSSES.items():
        teacher = Teacher([[0.5, 0.5]], stored, kind="probs", tail="bucket", **loss)
        r = cross_entropy(x, teacher=teacher, backend=backend, temperature=temperature)
        two = Teacher([[0.5, 0.5]], kind="probs", **loss)
        alone = cross_entropy(x[:, :2], teacher=two, backend=backend, temperature=temperature)
        assert r.loss == pytest.approx(alone.loss, rel=1e-14), name
        np.testing.assert_allclose(r.grad[:, :2], alone.grad, rtol=1e-14)
        assert_same_bits(r.grad[:, 2:], np.zeros((1, 2)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_probability_that_underflows_is_no_zero(backend):
    """Infinite by the definition: only the other distribution excludes the class."""
    x, one = np.array([[1000.0, 0.0, 1.0]]), {"kind": "probs", "divergence": "reverse-kl"}
    for teacher in (
        Teacher([[1.0, 0.0, 0.0]], **one),
        Teacher([[1.0]], [[0]], tail="bucket", **one),
        Teacher([[1.0]], [[0]], tail="uniform", **one),
    ):
        r = cross_entropy(x, teacher=teacher, backend=backend)
        assert r.loss == np.inf
        assert np.isnan(r.grad).all()
    for divergence in ("ce", "forward-kl"):
        teacher = Teacher([[0.0, -2000.0, -700.0]], kind="log-probs", divergence=divergence)
        r = cross_entropy([[1.0, -np.inf, 0.0]], teacher=teacher, backend=backend)
        assert r.loss == np.inf
        assert np.isfinite(r.grad).all()


def test_a_class_whose_weight_is_0_adds_nothing():
    teacher = Teacher([[0.5, 0.5]], kind="probs", divergence="ce")
    r = cross_entropy([[0.0, -np.inf]], teacher=teacher, weight=[1.0, 0.0])
    assert r.loss == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows_and_one_class(backend):
    teacher = Teacher(np.zeros((0, 3)), kind="logits", divergence="ce")
    assert np.isnan(cross_entropy(np.zeros((0, 3)), teacher=teacher, backend=backend).loss)
    for tail in (None, "bucket", "subset"):
        indices = None if tail is None else [[0]]
        teacher = Teacher([[-0.0]], indices, kind="log-probs", divergence="forward-kl", tail=tail)
        r = cross_entropy([[3.0]], teacher=teacher, backend=backend)
        assert r.loss == 0
        assert_same_bits(r.grad, np.zeros((1, 1)))


def test_all_rows_ignored(job):
    x, y, (values, indices) = job
    for alpha in (1.0, 0.5):
        teacher = Teacher(values, indices, alpha=alpha, **HOW)
        assert np.isnan(cross_entropy(x, np.full_like(y, -100), teacher=teacher).loss)
        r = cross_entropy(x, np.full_like(y, -100), teacher=teacher, empty_mean="zero")
        assert r.loss == 0
        assert not r.grad.any()
        assert r.captured is None


# Notes


def test_what_cannot_be_probabilities_is_noted(rng):
    x = rng.standard_normal((3, C))
    teacher = Teacher(
        np.full((3, 2), 0.6), [[0, 1]] * 3, kind="probs", divergence="ce", tail="drop"
    )
    (note,) = cross_entropy(x, teacher=teacher).notes
    assert note.strict
    assert "sum to more than 1" in note.text
    assert "row 0 sums to 1.2" in note.text
    teacher = Teacher(rng.standard_normal((3, C)) + 3, kind="log-probs", divergence="ce")
    (note,) = cross_entropy(x, teacher=teacher).notes
    assert "do not sum to 1" in note.text


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("kind", ["probs", "counts"])
def test_negative_probabilities_and_counts_are_noted(kind, top):
    """Although they sum to 1, as counts always do."""
    values = np.array([[0.5, 0.5, 0.0], [0.75, -0.5, 0.75]]) * (1 if kind == "probs" else 8)
    indices = [[0, 1, 2]] * 2 if top else None
    how = {"tail": "bucket"} if top and kind == "probs" else {}
    teacher = Teacher(values, indices, kind=kind, divergence="ce", **how)
    notes = cross_entropy(np.zeros((2, 3)), teacher=teacher).notes
    assert notes[0].strict
    assert "1 of 2 rows" in notes[0].text
    assert "are negative or" in notes[0].text
    assert "row 1 has -0.5" in notes[0].text
    ignored = cross_entropy(np.zeros((2, 3)), [0, -100], teacher=teacher).notes
    assert not ignored


def test_probabilities_as_a_teachers_logits_are_noted(rng):
    x, t = rng.standard_normal((2, 3, C))
    teacher = Teacher(softmax(t), kind="logits", divergence="ce")
    (note,) = cross_entropy(x, teacher=teacher).notes
    assert (note.where, note.strict) == ("teacher", True)
    assert note.text.endswith("as probabilities do; kind='probs'")
    for values, kind in ((t, "logits"), (softmax(t), "probs")):
        assert not cross_entropy(x, teacher=Teacher(values, kind=kind, divergence="ce")).notes


def test_captured_mass_is_merged_in_order():
    dtype = np.dtype("f4")
    whole, first, second = (MassTotals(dtype, whole=False) for _ in range(3))
    mass, present = np.array([0.5, 0.75, 1.5, 0.125, 2.0, 0.25]), np.array([1, 1, 1, 0, 1, 1]) > 0
    whole.add(mass, present)
    first.add(mass[:2], present[:2])
    second.add(mass[2:], present[2:])
    first.merge(second)
    assert first.captured() == whole.captured() == (1.0, 0.25, 5)
    assert first.notes() == whole.notes()
    assert "row 4 sums to 2" in first.notes()[0].text


def test_the_captured_mass_is_that_of_the_rows_that_count(job):
    x, y, (values, indices) = job
    captured = cross_entropy(x, y, teacher=Teacher(values, indices, **HOW)).captured
    q = np.exp(values).sum(axis=1)
    here = np.flatnonzero(y != -100)
    assert captured.mean == pytest.approx(q[here].mean(), rel=1e-14)
    assert captured.least == pytest.approx(q[here].min(), rel=1e-14)
    assert captured.row == here[np.argmin(q[here])]


# Errors

TOP = {"kind": "log-probs", "divergence": "forward-kl", "tail": "bucket"}
DENSE = {"kind": "logits", "divergence": "forward-kl"}
WRONG = [
    (
        {"kind": "log-probs", "divergence": "forward-kl"},
        True,
        {},
        "bucket: .*TRL.*; uniform: .*drop",
    ),
    ({"kind": "log-probs", "tail": "drop"}, True, {}, "divergence: is required"),
    ({"divergence": "ce"}, False, {}, "teacher_kind: is required"),
    ({"kind": "logits", "divergence": "jsd"}, False, {}, "beta: is required for jsd"),
    ({**DENSE, "beta": 0.5}, False, {}, "beta: applies to jsd"),
    ({**DENSE, "divergence": "jsd", "beta": 0}, False, {}, "forward-kl"),
    ({**DENSE, "divergence": "jsd", "beta": 1}, False, {}, "reverse-kl"),
    ({**DENSE, "divergence": "jsd", "beta": 1.5}, False, {}, "beta: 1.5 is not allowed"),
    ({**DENSE, "divergence": "kl"}, False, {}, "divergence: 'kl' is not allowed"),
    ({**DENSE, "tail": "drop"}, False, {}, "tail: applies to a teacher that stores some"),
    ({**TOP, "divergence": "reverse-kl", "tail": "teacher"}, True, {}, "reverse-kl is infinite"),
    ({**TOP, "temperature": 2.0}, True, {}, "teacher_temperature: applies to logits"),
    ({**DENSE, "alpha": 0.5}, False, {}, "alpha: 0.5 is for a loss with hard targets too"),
    ({**DENSE, "alpha": 0.0}, False, {"targets": [0, 1]}, "alpha: 0 leaves the teacher out"),
    (DENSE, False, {"label_smoothing": 0.1}, "label_smoothing: applies to the hard targets"),
    (DENSE, False, {"z_loss": 0.1}, "z_loss: applies to the hard targets"),
    (DENSE, False, {"targets": np.eye(C)[:2]}, "targets: probabilities have no effect"),
    (DENSE, False, {"softcap": 3.0, "temperature": 2.0}, "softcap: "),
    ({**DENSE, "divergence": "reverse-kl"}, False, {"weight": np.ones(C)}, "weight: applies to ce"),
    (TOP, True, {"weight": np.ones(C)}, "weight: the bucket"),
]


@pytest.mark.parametrize(("how", "top", "more", "message"), WRONG, ids=range(len(WRONG)))
def test_options_that_do_not_go_together(rng, how, top, more, message):
    x = rng.standard_normal((2, C))
    values, indices = top_of(x, 3) if top else (x, None)
    more = dict(more)
    with pytest.raises(OptionError, match=message):
        cross_entropy(x, more.pop("targets", None), teacher=Teacher(values, indices, **how), **more)


def test_arrays_that_do_not_fit(rng):
    x = rng.standard_normal((2, C))
    values, indices = top_of(x, 3)
    wrong = [
        (Teacher(values, **DENSE), "the teacher has 3 classes, the logits have 9"),
        (Teacher(x[:1], **DENSE), "shape .1, 9. does not fit"),
        (Teacher(values, indices[:, :2], **TOP), "teacher_indices: shape"),
        (Teacher(values, indices + 0.5, **TOP), "not a whole number"),
        (Teacher(values, indices * 100, **TOP), "class ind.* outside 0 to 8; first: row"),
        (Teacher(values, np.full((2, 3), -2), **TOP), "row 0 has -2"),
        (Teacher(values, indices * 0, **TOP), "row 0 has class 0 twice"),
        (Teacher(values, np.full((2, 3), -1), **TOP), "2 rows without any stored class"),
        (Teacher(values[:, :0], indices[:, :0], **TOP), "stores no class"),
        (Teacher(values, indices, [0.1], **TOP), "teacher_rest: shape"),
        (Teacher(None, **DENSE), "teacher: expected an array of numbers"),
        (Teacher(values > 0, indices, **TOP), "dtype bool is not supported"),
    ]
    for teacher, message in wrong:
        with pytest.raises(DataError, match=message):
            cross_entropy(x, teacher=teacher)


def test_the_oracle_can_fail(rng):
    x = spread(rng, (3, C), 5)
    r = cross_entropy(x, teacher=Teacher(x[::-1], **DENSE), reduction="none")
    wrong = [
        oracle.exact(row, oracle.Case(stored, "logits", "reverse-kl"))
        for row, stored in zip(x, stored_rows(x[::-1]), strict=True)
    ]
    with pytest.raises(AssertionError):
        assert_exact(r, wrong, "f8")


def test_classes_that_the_student_lacks_cannot_be_capped(rng):
    x, z = rng.standard_normal((2, 3)), rng.standard_normal((2, 5))
    teacher = Teacher(z, kind="logits", divergence="forward-kl", classes="pad")
    with pytest.raises(OptionError, match="the teacher has 5"):
        cross_entropy(x, teacher=teacher, softcap=2.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_slots_are_no_classes_under_a_softcap(backend):
    x, q = np.array([[1.0, 2.0, 3.0, 0.5]]), np.array([0.5, 0.3])
    teacher = Teacher(
        [[0.5, 0.3, 0.0]], [[0, 1, -1]], kind="probs", tail="subset", divergence="forward-kl"
    )
    if backend == "cuda":
        with pytest.raises(OptionError, match="are computed by numpy, not by cuda"):
            cross_entropy(x, teacher=teacher, softcap=2.0, backend=backend)
        return
    r = cross_entropy(x, teacher=teacher, softcap=2.0, backend=backend)
    p, q = softmax(2 * np.tanh(x[:, :2] / 2))[0], q / 0.8
    assert abs(r.loss - (q * np.log(q / p)).sum()) < 1e-12
    slope = 1 - np.tanh(x[0, :2] / 2) ** 2
    assert np.abs(r.grad[0] - [*((p - q) * slope), 0, 0]).max() < 1e-12


@pytest.mark.parametrize("tail", ["drop", "bucket"])
@pytest.mark.parametrize("divergence", ["reverse-kl", "forward-kl"])
def test_a_student_that_is_sure_of_a_class_that_is_not_stored(backend, divergence, tail):
    """The rounding of the stored numbers is as large as what a tiny p leaves of the loss."""
    x, log_q = [40.0, 0.5, 1.0, -0.3, 2.0], [-0.7, -1.9, -2.3]
    teacher = Teacher([log_q], [[1, 2, 4]], kind="log-probs", divergence=divergence, tail=tail)
    found = cross_entropy([x], teacher=teacher, backend=backend).loss
    mp = mpmath.mp.clone()
    mp.dps = 60
    lse = mp.log(mp.fsum(mp.exp(mp.mpf(v)) for v in x))
    pairs = [(mp.mpf(x[c]) - lse, mp.mpf(q)) for c, q in zip((1, 2, 4), log_q, strict=True)]
    if tail == "bucket":
        p, q = (1 - mp.fsum(mp.exp(pair[side]) for pair in pairs) for side in (0, 1))
        pairs.append((mp.log(p), mp.log(q)))
    sign = {"reverse-kl": (0, 1), "forward-kl": (1, 0)}[divergence]
    exact = mp.fsum(mp.exp(pair[sign[0]]) * (pair[sign[0]] - pair[sign[1]]) for pair in pairs)
    assert abs(found - exact) <= 1e-14 * abs(exact)
