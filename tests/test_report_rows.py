"""The quantities of each row, and the divergence from a base: against mpmath."""

import math

import mpmath
import naive_report
import numpy as np
import pytest
from helpers import assert_same_bits

from xentcli.backends import Scalars, for_statistics
from xentcli.backends.fields import Field
from xentcli.backends.reference_divergence import divergence, scaled
from xentcli.backends.reference_statistics import row_statistics
from xentcli.errors import OptionError
from xentcli.options import LossOptions

EPS = 2.0**-52
LIMITS = {  # relative errors that are allowed, in units of 2⁻⁵²
    "nll": 4,
    "confidence": 4,
    "p_target": 4,
    "entropy": 8,
    "brier": 8,
    "lse": 4,
    "target_gap": 2,
    "mean_gap": 8,
    "gap_variance": 16,
    "prediction": 0,
    "above": 0,
    "ties": 0,
}


def cases():
    rng = np.random.default_rng(7)
    yield "normal", rng.normal(size=(40, 7))
    yield "confident", rng.normal(size=(40, 5)) * 30
    yield "offset", rng.normal(size=(20, 6)) + 1e8
    yield "tiny differences", 3 + rng.normal(size=(20, 4)) * 1e-9
    yield "rounded, so with ties", np.round(rng.normal(size=(40, 9)))
    yield "all equal", np.full((4, 3), 0.3)
    yield "one class", rng.normal(size=(3, 1))
    yield "masked classes", np.where(rng.random((30, 8)) < 0.4, -np.inf, rng.normal(size=(30, 8)))
    yield "underflow", np.array([[0.0, -800.0, 1.0], [1000.0, 0.0, -3.0]])
    yield "float32", rng.normal(size=(30, 33)).astype(np.float32).astype(float) * 4


CASES = dict(cases())


def fields(logits, targets, scalars=None):
    return row_statistics(logits, np.asarray(targets), scalars or Scalars())


def assert_field(name, found, row, backend):
    """Relative to the exact value, or to the row's size where that is how a number is rounded.

    The kernel computes exp(−d) of float32 logits without the rounding error of d, and a variance as
    a difference.
    """
    exact = row[name]
    if mpmath.isinf(exact):
        assert found == float(exact)
        return
    size = max(abs(exact), mpmath.mpf(2.0**-1022) / EPS)  # what underflows has no relative error
    size = max(size, abs(row["lse"])) if name == "lse" else size
    limit = LIMITS[name]
    if backend == "cpu" and limit:
        limit += 4 * min(750, float(row["target_gap"] + row["mean_gap"] + 1))
        size = max(size, row["mean_gap"] ** 2) if name == "gap_variance" else size
    assert abs(mpmath.mpf(float(found)) - exact) <= size * EPS * limit, (name, found, exact)


@pytest.fixture
def statistics(backend):
    """The functions over rows of each backend that has them."""
    if backend == "cuda":
        pytest.skip("cuda computes no statistics of rows")
    return for_statistics(backend, (1, 1))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_are_exact(name, dtype, statistics):
    x = CASES[name].astype(dtype)
    x = x[(x > -np.inf).any(axis=1)]
    rng = np.random.default_rng(1)
    y = rng.integers(0, x.shape[1], len(x))
    found = np.empty((len(Field), len(x)))
    statistics.statistics(x[:, :, None], y, Scalars(), found)
    for i, (logits, target) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        exact = naive_report.row(logits, target)
        for key in LIMITS:
            assert_field(key, found[Field[key.upper()], i], exact, statistics.name)


def test_a_confident_row_keeps_the_digits_of_its_loss_and_brier_score():
    x = np.array([[40.0, 0.0]])
    found = fields(x, [0])
    exact = naive_report.row([40.0, 0.0], 0)
    assert found[Field.NLL, 0] == pytest.approx(float(exact["nll"]), rel=1e-15)
    assert found[Field.BRIER, 0] == pytest.approx(float(exact["brier"]), rel=1e-15)
    p = np.exp(x[0] - np.logaddexp(*x[0]))
    assert (p**2).sum() - 2 * p[0] + 1 == 0  # the usual formula has lost it all


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_a_row_without_probabilities_is_nan_in_every_field(bad):
    found = fields(np.array([bad, [1.0, 0.0]]), [0, 0])
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1]).all()


def test_a_masked_target_has_infinite_loss_and_the_rest_is_finite():
    found = fields(np.array([[-np.inf, 1.0, 0.0]]), [0])
    assert found[Field.NLL, 0] == np.inf
    assert found[Field.P_TARGET, 0] == 0
    assert found[Field.ABOVE, 0] == 2
    assert np.flatnonzero(~np.isfinite(found[:, 0])).tolist() == [Field.NLL, Field.TARGET_GAP]


def test_temperature_and_softcap_come_first():
    x, y = CASES["normal"], np.zeros(40, int)
    options = LossOptions(temperature=2.5, softcap=1.5)
    capped = 1.5 * np.tanh(x / 2.5 / 1.5)
    found = fields(x, y, Scalars.of(options))
    np.testing.assert_allclose(found, fields(capped, y), rtol=1e-14)
    np.testing.assert_allclose(capped, scaled(x, Scalars.of(options)), rtol=1e-15)


def test_probability_targets_have_the_fields_that_are_defined():
    x, q = CASES["normal"][:5, :3], np.array([[0.2, 0.3, 0.5]] * 4 + [[0.0, 1.0, 0.0]])
    found = row_statistics(x, q, Scalars())
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[Field.NLL], -(q * np.log(p)).sum(axis=1), rtol=1e-14)
    np.testing.assert_allclose(found[Field.BRIER], ((p - q) ** 2).sum(axis=1), rtol=1e-12)
    assert np.isnan(found[[Field.P_TARGET, Field.ABOVE, Field.TIES]]).all()
    hard = row_statistics(x[4:], np.array([1]), Scalars())
    np.testing.assert_allclose(found[Field.NLL, 4:], hard[Field.NLL], rtol=1e-15)


@pytest.mark.parametrize("classes", [1, 7, 16, 17, 64, 65, 300])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_kernel_has_what_the_reference_has(classes, dtype, statistics):
    rng = np.random.default_rng(classes)
    x = (rng.normal(size=(60, classes)) * rng.choice([0.1, 1.0, 5.0], (60, 1))).astype(dtype)
    x[1], x[2], x[3, 0], x[4] = x[1, 0], np.round(x[2]), np.nan, -np.inf
    x[5, -1], x[6, 0] = -np.inf, np.inf
    y = rng.integers(0, classes, 60)
    y[5], y[7] = classes - 1, -1
    for options in (LossOptions(temperature=0.7), LossOptions(temperature=2.0, softcap=3.0)):
        how = Scalars.of(options)
        expected = np.full((len(Field), 60), np.nan)
        keep = y >= 0
        expected[:, keep] = row_statistics(x[keep].astype(float), y[keep], how)
        found = np.empty((len(Field), 60))
        statistics.statistics(x[:, :, None], y, how, found)
        assert (np.isnan(found) == np.isnan(expected)).all()
        counts = [Field.PREDICTION, Field.ABOVE, Field.TIES]
        np.testing.assert_array_equal(found[counts], expected[counts])
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)


def test_the_bits_of_a_row_depend_on_nothing_else(statistics):
    rng = np.random.default_rng(9)
    for classes in (5, 70):
        x = rng.normal(size=(2, 30, classes)).astype(np.float32)
        y = rng.integers(-1, classes, 60)
        found = np.empty((3, len(Field), 60))
        statistics.statistics(x.reshape(60, classes, 1), y, Scalars(), found[0])
        box = np.ascontiguousarray(x.transpose(0, 2, 1))  # (outer, C, inner)
        statistics.statistics(box, y, Scalars(), found[1])
        for i in range(60):
            one = np.empty((len(Field), 1))
            statistics.statistics(
                x.reshape(60, classes, 1)[i : i + 1], y[i : i + 1], Scalars(), one
            )
            found[2, :, i] = one[:, 0]
        assert_same_bits(found[1], found[0])
        assert_same_bits(found[2], found[0])
        assert np.isnan(found[0][:, y < 0]).all()


def test_ties_with_a_masked_target_do_not_count_what_lies_beyond_the_end(statistics):
    x = np.array([[0.0, -np.inf, -np.inf, 1.0, -np.inf]])
    found = np.empty((len(Field), 1))
    statistics.statistics(x[:, :, None], np.array([1]), Scalars(), found)
    assert (found[Field.ABOVE, 0], found[Field.TIES, 0]) == (2, 2)


def test_cuda_and_many_classes():
    with pytest.raises(OptionError, match="by numpy and cpu, not by cuda"):
        for_statistics("cuda", (1, 1))
    assert for_statistics("cpu", (1, (1 << 24) + 1)).name == "numpy"
    assert for_statistics("auto", (10, 10)).name == "numpy"


# The divergence


def kl_of(statistics, base, model):
    """KL of each row by a backend."""
    found = np.empty(len(base))
    statistics.divergence(base[:, :, None], model[:, :, None], Scalars(), found)
    return found


@pytest.mark.parametrize("difference", [1e-12, 1e-8, 1e-6, 1e-3, 0.1, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("offset", [0.0, 7.0])
def test_kl_is_exact_for_rows_that_are_close_and_far(difference, offset, statistics):
    rng = np.random.default_rng(3)
    base = rng.normal(size=(20, 8)) * 4
    model = base + difference * rng.normal(size=base.shape) + offset
    found = kl_of(statistics, base, model)
    for b, z, value in zip(base.tolist(), model.tolist(), found, strict=True):
        exact = naive_report.kl(b, z)
        assert abs(mpmath.mpf(float(value)) - exact) <= 16 * EPS * exact


def test_the_usual_formula_would_fail_the_test_of_kl():
    rng = np.random.default_rng(3)
    base = rng.normal(size=8) * 4
    model = base + 1e-8 * rng.normal(size=8)
    p, q = (np.exp(z) / np.exp(z).sum() for z in (base, model))
    exact = float(naive_report.kl(base.tolist(), model.tolist()))
    assert abs((p * np.log(p / q)).sum() - exact) > 1e-2 * exact


def test_kl_is_zero_of_equal_rows_and_never_negative(statistics):
    base = np.random.default_rng(5).normal(size=(1000, 50)) * 3
    assert (kl_of(statistics, base, base + 2.0) < 1e-30).all()
    assert (kl_of(statistics, base, base) == 0).all()
    near = base + np.random.default_rng(6).normal(size=base.shape) * 1e-13
    assert (kl_of(statistics, base, near) >= 0).all()


def test_kl_of_masked_classes(statistics):
    inf = np.inf
    base = np.array([[0.0, 1.0, -inf], [0.0, -inf, -inf], [0.0, 1.0, 2.0], [0.0, 900.0, 0.0]])
    model = np.array([[0.0, 1.0, 3.0], [5.0, -inf, -inf], [0.0, -inf, 2.0], [900.0, 0.0, 0.0]])
    found = kl_of(statistics, base, model)
    exact = [
        float(naive_report.kl(b, z)) for b, z in zip(base.tolist(), model.tolist(), strict=True)
    ]
    assert found[2] == exact[2] == math.inf
    np.testing.assert_allclose(found, exact, rtol=1e-15)


def test_kl_of_broken_rows_is_nan(statistics):
    good, bad = [0.0, 1.0], [0.0, math.nan]
    found = kl_of(statistics, np.array([bad, good, good]), np.array([good, bad, good]))
    assert np.isnan(found).tolist() == [True, True, False]


@pytest.mark.parametrize("classes", [1, 7, 16, 17, 64, 65, 300])
def test_kl_of_any_dtypes_and_layouts(classes, statistics):
    rng = np.random.default_rng(classes)
    base = (rng.normal(size=(6, 4, classes)) * 3).astype(np.float32)
    model = (base + rng.normal(size=base.shape) * 0.1).astype(np.float16)
    for options in (LossOptions(), LossOptions(temperature=0.7), LossOptions(softcap=4.0)):
        how = Scalars.of(options)
        rows = (box.reshape(24, classes).astype(float) for box in (base, model))
        expected = divergence(*(scaled(x, how) for x in rows))
        flat, boxed = np.empty(24), np.empty(24)
        statistics.divergence(
            base.reshape(24, classes, 1), model.reshape(24, classes, 1), how, flat
        )
        boxes = (np.ascontiguousarray(box.transpose(0, 2, 1)) for box in (base, model))
        statistics.divergence(*boxes, how, boxed)
        assert_same_bits(boxed, flat)
        np.testing.assert_allclose(flat, expected, rtol=1e-11, atol=1e-17)


@pytest.mark.slow  # Numba compiles its parallel loops in this process
def test_numbas_parallel_loops_give_the_same_bits(monkeypatch):
    from xentcli.backends.cpu import kept

    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 70, 3)).astype(np.float32)
    y = rng.integers(-1, 70, 15)
    found = np.empty((2, len(Field), 15))
    apart = np.empty((2, 15))
    for k in range(2):
        kernels = for_statistics("cpu", (1, 1), threads=2)
        kernels.statistics(x, y, Scalars(), found[k])
        kernels.divergence(x, x * np.float32(1.1), Scalars(), apart[k])
        monkeypatch.setattr(kept, "find", lambda kernel, notify: None)
    assert_same_bits(found[1], found[0])
    assert_same_bits(apart[1], apart[0])
