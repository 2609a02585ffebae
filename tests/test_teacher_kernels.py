"""The CPU kernels for a teacher: the promised accuracy over many rows, and the same bits by every
way through them."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import assert_same_bits
from test_kernels import in_kind

from xentcli import Teacher, cross_entropy, softmax
from xentcli.arrays.dtypes import NAMES, narrow, widen
from xentcli.backends.cpu import backend, kept, kernels

# By which kernel: float32 logits of all classes, all classes, some classes, and at a temperature.
WAYS = {
    "fast": ({"divergence": "forward-kl"}, None, 1.5),
    "fast ce": ({"divergence": "ce"}, None, 1.0),
    "general": ({"divergence": "jsd", "beta": 0.3}, None, 1.5),
    "top": ({"divergence": "forward-kl", "tail": "bucket"}, 20, 1.0),
    "top, drop": ({"divergence": "reverse-kl", "tail": "drop"}, 7, 1.0),
    "top, subset": ({"divergence": "jsd", "beta": 0.6, "tail": "subset"}, 7, 1.0),
    "top, temperature": ({"divergence": "ce", "tail": "teacher"}, 20, 1.5),
    "top, uniform": ({"divergence": "forward-kl", "tail": "uniform"}, 7, 1.0),
}
CLASSES = [16, 65, 1000]
KINDS = ["f16", "bf16", "f32", "f64"]
# The first two are compiled for every test; the others take long.
QUICK = {("f32", "fast"), ("f32", "top")}


def problem(classes, kind, rows=37, seed=3):
    """Logits of a student and of a teacher that is near it, some rows confident or excluding
    classes, and targets of which some are ignored."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, classes)) * 4
    t = x + rng.normal(size=x.shape)
    x[::5, 0] += 30
    t[::10, 0] += 30
    t[3], t[6, 1:] = x[3], -np.inf
    x[7, 4:6] = t[7, 4:6] = -np.inf
    y = np.zeros(rows, int)
    y[4::11] = -100
    wide = "f8" if kind == "f64" else "f4"
    return narrow(x.astype(wide), NAMES[kind]), narrow(t.astype(wide), NAMES[kind]), y


def teacher_of(t, how, stored):
    """All of the teacher's logits, or the log-probabilities of its most likely classes."""
    if stored is None:
        return Teacher(t, kind="logits", **how)
    t = widen(t, NAMES["f64"])
    log_q = t - np.log(np.exp(t - t.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    log_q -= t.max(axis=1, keepdims=True)
    indices = np.argsort(-log_q, axis=1, kind="stable")[:, :stored]
    return Teacher(np.take_along_axis(log_q, indices, axis=1), indices, kind="log-probs", **how)


def ways(*kinds):
    """Kinds and kernels, of which the most are in the slow tier."""
    pairs = itertools.product(kinds, WAYS)
    slow = {True: [], False: [pytest.mark.slow]}
    return [pytest.param(*pair, marks=slow[pair in QUICK]) for pair in pairs]


def ulps_of_terms(x, how, temperature, exact, kind):
    """A unit in the last place at the sum of the sizes of each entry's terms: of p and q, or of p
    times logarithms and the value."""
    p = softmax(widen(x, NAMES["f64"]), temperature=temperature) / temperature
    if how.get("tail") == "subset":
        p = np.where(exact.grad != 0, p, 0)
        p = p / np.maximum(p.sum(axis=1, keepdims=True) * temperature, 1e-300)
    if how["divergence"] in ("reverse-kl", "jsd"):
        size = p * (1 + np.abs(np.log(np.maximum(p, 1e-300))) + np.abs(exact.loss[:, None]))
    else:
        size = p + np.abs(p - exact.grad)
    bits, least = {"f16": (11, -14), "bf16": (8, -126), "f32": (24, -126), "f64": (53, -1022)}[kind]
    _, power = np.frexp(np.fmax(size, np.abs(exact.grad)))
    return np.ldexp(1.0, np.maximum(power, least + 1) - bits)


@pytest.mark.parametrize("past_caches", [True, False])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("kind", "name"), ways(*KINDS))
def test_every_kind_and_width_against_the_reference(monkeypatch, kind, name, classes, past_caches):
    """Within 2 ULP of the terms."""
    monkeypatch.setattr(backend, "STREAM_FROM", 0 if past_caches else 1 << 60)
    how, stored, temperature = WAYS[name]
    x, t, y = problem(classes, kind)
    stored = stored and min(stored, classes - 1)
    options = {"teacher": teacher_of(t, how, stored), "temperature": temperature}
    options["reduction"] = "none"
    a = cross_entropy(x, y, backend="cpu", out=in_kind(x.shape, kind), **options)
    b = cross_entropy(x, y, backend="numpy", out=in_kind(x.shape, "f64"), **options)
    found, answered = widen(a.grad, NAMES["f64"]), ~np.isnan(b.grad)
    assert (np.isnan(found) == ~answered).all()
    off = np.abs(found - b.grad) / ulps_of_terms(x, how, temperature, b, kind)
    assert off[answered].max() <= (8 if kind == "f64" else 2)
    # Where student and teacher are equal, only the rounding of terms near 1 is left of the loss.
    rtol, atol = 1e-14 if kind == "f64" else 2.5e-7, 2 * 2.0**-53
    np.testing.assert_allclose(a.loss, b.loss, rtol=rtol, atol=atol)
    np.testing.assert_allclose(a.lse, b.lse, rtol=1e-14 if kind == "f64" else 1e-7)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("kind", "name"), ways("f32"))
def test_no_way_through_memory_changes_a_bit(monkeypatch, kind, name, classes):
    how, stored, temperature = WAYS[name]
    x, t, y = problem(classes, kind)
    stored = stored and min(stored, classes - 1)
    teacher = teacher_of(t, how, stored)
    options = {"backend": "cpu", "temperature": temperature, "reduction": "none"}
    expected = cross_entropy(x, y, teacher=teacher, **options)

    def same(x, given=teacher, y=y, **more):
        found = cross_entropy(x, y, teacher=given, **{**options, **more})
        if found.grad is not None:
            assert_same_bits(np.asarray(found.grad).reshape(-1), expected.grad.reshape(-1))
        assert_same_bits(found.loss.reshape(-1), expected.loss)
        assert_same_bits(found.lse.reshape(-1), expected.lse)

    same(np.asfortranarray(x))
    if stored is None:
        same(x, teacher_of(np.asfortranarray(t), how, None))
    for offset in (1, 5):
        room = np.empty(x.size + offset, "f4")
        room[offset:] = x.reshape(-1)
        same(room[offset:].reshape(x.shape))
        same(x, out=np.empty(x.size + offset, "f4")[offset:].reshape(x.shape))
    in_place = x.copy()
    same(in_place, out=in_place)
    fortran = np.asfortranarray(x)
    same(fortran, out=fortran)
    for threads in (1, 2, 3):
        same(x, threads=threads)
    monkeypatch.setattr(backend, "STREAM_FROM", 0)
    same(x)
    same(x, grad=False)


@pytest.mark.parametrize("name", ["fast", pytest.param("top", marks=pytest.mark.slow)])
@pytest.mark.parametrize("upstream", [1e30, 1e-30])
def test_rows_out_of_float32s_range_are_exact_and_change_no_other(name, upstream):
    """Exponentials that are 0 in float32, factors that are no float32, values that overflow."""
    how, stored, temperature = WAYS[name]
    x, t, y = problem(100, "f32")
    alone = [np.arange(0, 37, 3), np.arange(37) % 3 != 0]
    x[alone[0], 1] += [40.0, 100.0, 130.0, 200.0, 1000.0, 3e37, 3e38, -3e38, 5, 6, 7, 8, 9]
    t[9, 1] += 200
    x[12], t[15] = np.inf, np.nan
    scale = np.ones(37)
    scale[::2] = upstream
    teacher = teacher_of(t, how, stored)
    options = {"temperature": temperature, "reduction": "none", "upstream": scale}
    a = cross_entropy(x, y, teacher=teacher, backend="cpu", **options)
    b = cross_entropy(x, y, teacher=teacher, backend="numpy", out=np.empty(x.shape), **options)
    np.testing.assert_allclose(a.loss, b.loss, rtol=2.5e-7)
    unscaled = SimpleNamespace(loss=b.loss, grad=b.grad / scale[:, None])
    unit = ulps_of_terms(x, how, temperature, unscaled, "f64") * 2.0**29 * scale[:, None]
    close = np.abs(a.grad - b.grad) <= 2 * np.maximum(unit, 2.0**-149)
    assert (close | (np.isnan(a.grad) & np.isnan(b.grad))).all()
    in_place = x.copy()
    cross_entropy(in_place, y, teacher=teacher, backend="cpu", out=in_place, **options)
    assert_same_bits(in_place, a.grad)
    usual = alone[1] & (scale == 1)
    some = teacher_of(t[usual], how, stored)
    rest = {"temperature": temperature, "reduction": "none"}
    c = cross_entropy(x[usual], y[usual], teacher=some, backend="cpu", **rest)
    assert_same_bits(a.grad[usual], c.grad)
    assert_same_bits(a.loss[usual], c.loss)


@pytest.mark.parametrize("divergence", ["ce", "forward-kl", "reverse-kl", "jsd"])
@pytest.mark.parametrize("gap", [80.0, 115.0, 130.0, 300.0, 900.0])
def test_others_that_are_0_in_float32_are_a_bucket(divergence, gap):
    """Some stored classes are near the largest, and all others are far below."""
    x = np.random.default_rng(2).normal(size=(4, 60)).astype("f4")
    x[:, 5:] -= gap
    how = {"divergence": divergence, "kind": "probs", "tail": "bucket"}
    how["beta"] = 0.3 if divergence == "jsd" else None
    teacher = Teacher(np.full((4, 5), 0.1999), np.tile(np.arange(5), (4, 1)), **how)
    options = {"teacher": teacher, "reduction": "none"}
    a = cross_entropy(x, backend="cpu", **options)
    b = cross_entropy(x.astype("f8"), backend="numpy", **options)
    assert np.isfinite(b.loss).all()
    np.testing.assert_allclose(a.loss, b.loss, rtol=2.5e-7)
    stored = slice(5 if gap > 700 else None)  # a share of what float64 has not is not pulled
    np.testing.assert_allclose(a.grad[:, stored], b.grad[:, stored], rtol=1e-6, atol=1e-9)
    assert np.isfinite(a.grad).all()


@pytest.mark.parametrize("classes", [65, 1000])
@pytest.mark.parametrize(
    "name", ["fast", *(pytest.param(n, marks=pytest.mark.slow) for n in ("general", "top"))]
)
def test_a_small_divergence_keeps_its_digits(classes, name):
    """Logits that differ by 10⁻⁶, of rows between nearly uniform and confident."""
    how, stored, _ = WAYS[name]
    rng = np.random.default_rng(5)
    t = rng.uniform(0.5, 1, (20, classes)) * np.geomspace(1e-2, 16, 20)[:, None]
    t = t.astype("f4")
    x = (t + rng.choice([-1e-6, 0, 1e-6], t.shape)).astype("f4")
    teacher = teacher_of(t, how, stored)
    a, b = (
        cross_entropy(x, teacher=teacher, reduction="none", backend=b) for b in ("cpu", "numpy")
    )
    assert (b.loss > 0).all()
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_numbas_parallel_loops_give_the_same_bits(monkeypatch, name):
    """Where machine code can be neither kept nor loaded."""
    how, stored, temperature = WAYS[name]
    x, t, y = problem(100, "f32")
    t.setflags(write=False)
    options = {"teacher": teacher_of(t, how, stored), "temperature": temperature}
    expected = cross_entropy(x, y, backend="cpu", **options)
    monkeypatch.setattr(kept, "find", lambda kernel, notify: None)
    for more in ({}, {"grad": False}):
        found = cross_entropy(x, y, backend="cpu", threads=2, **options, **more)
        assert found.loss == expected.loss
        assert_same_bits(found.lse, expected.lse)
        if found.grad is not None:
            assert_same_bits(found.grad, expected.grad)


def test_all_kernels_for_a_teacher_have_a_way_without_kept_code():
    from xentcli.backends.cpu import parallel

    assert parallel.FUNCTIONS.keys() == kernels.FUNCTIONS.keys()
