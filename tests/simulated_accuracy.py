"""Digits of the CUDA kernels on Numba's simulator; `test_cuda_kernels.py` runs this.

`test_accuracy.py` runs on the simulator too, with rows of one part. Here rows have several parts,
and what the formulas stand on is tested by itself: arithmetic with two words, and what the
simulator does in the place of a device.
"""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from helpers import exactly, ulps
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_kernels import short_parts  # noqa: F401 (a fixture of every test here)

from xentcli import cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import NAMES, narrow, widen
from xentcli.backends import Scalars
from xentcli.backends.accuracy import PROMISES
from xentcli.backends.cuda import CudaBackend, simulator, two_words

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of kernels that run as Python

INF, NAN = math.inf, math.nan
mp = mpmath.mp
CLASSES = [7, 45]  # of short rows, and of three parts of 16 classes
CUDA = {"backend": "cuda"}


def wide(pair):
    """Two words as one number."""
    return mp.mpf(float(pair[0])) + mp.mpf(float(pair[1]))


def pairs(low, high, count=300):
    """Numbers of two words between two powers of ten."""
    rng = np.random.default_rng(9)
    for high_word in 10.0 ** rng.uniform(low, high, count):
        yield np.float64(high_word), np.float64(high_word * rng.uniform(-1, 1) * 2.0**-53)


@mpmath.workdps(60)
def test_two_words_of_an_exponential_have_67_bits():
    for high, low in pairs(-12, 2.81):
        x = wide((-high, -low))
        e, rest = two_words.exp_and_rest((-high, -low))
        assert abs(wide(e) / mp.exp(x) - 1) < mp.mpf(2) ** -67
        assert abs(wide(rest) / -mp.expm1(x) - 1) < mp.mpf(2) ** -67


@mpmath.workdps(60)
def test_two_words_of_a_logarithm_have_67_bits():
    rng = np.random.default_rng(10)
    for x in pairs(-17, 15):
        exact = mp.log1p(wide(x))
        near = np.float64(float(exact) * (1 + rng.uniform(-2, 2) * 2.0**-52))
        assert abs(wide(two_words.improved_log1p(x, near)) / exact - 1) < mp.mpf(2) ** -67


@mpmath.workdps(60)
def test_products_and_quotients_of_two_words_have_100_bits():
    for a, b in zip(pairs(-50, 50), reversed(list(pairs(-50, 50))), strict=True):
        exact = wide(a) * wide(b), wide(a) / wide(b), wide(a) + wide(b)
        found = two_words.multiply(a, b), two_words.divide(a, b), two_words.add_pairs(a, b)
        for one, other in zip(found, exact, strict=True):
            assert abs(wide(one) / other - 1) < mp.mpf(2) ** -100


def test_the_series_is_that_of_the_exponential():
    """Up to the power whose successor no longer counts."""
    powers = range(18, 5, -1)
    assert tuple(float(Fraction(1, math.factorial(k))) for k in powers) == two_words.SERIES
    for k, name in ((5, "INVERSE_120"), (4, "INVERSE_24"), (3, "INVERSE_6"), (2, "HALF")):
        high, low = getattr(two_words, name)
        assert abs(Fraction(high) + Fraction(low) - Fraction(1, math.factorial(k))) < 2.0**-108
    assert (mp.log(2) / 2) ** 18 / math.factorial(19) < mp.mpf(2) ** -78


@pytest.mark.parametrize("size", [1e-310, 1e-150, 1.0, 1e150, 1e308])
def test_a_number_keeps_its_bits_beside_a_power_of_two(size):
    for high, low in pairs(-3, 0, 20):
        given = high * size, low * size
        *found, n = two_words.normalised(*given)
        assert 0.5 <= found[0] < 2.0**25
        assert wide(found) * mp.mpf(2) ** int(n) == wide(given)
        assert two_words.times_large_power(found[0], n) == given[0]
    for value in (0.0, INF, NAN):
        np.testing.assert_equal(two_words.normalised(value, 0.0)[0], value)
    assert two_words.times_large_power(1.0, 1e300) == INF
    assert two_words.times_large_power(-1.0, -4000.0) == 0


NUMBERS = st.floats(allow_nan=False) | st.sampled_from([1.0, -1.0, 5e-324, 1.7e308, 1e-160])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_fma_is_rounded_once(a, b, c):
    found = simulator.fma(np.float64(a), b, c)
    if not all(map(math.isfinite, (a, b, c))):
        np.testing.assert_equal(found, np.float64(a) * b + c)
        return
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        assert found == float(exact)
    except OverflowError:
        assert found == (INF if exact > 0 else -INF)


def test_a_power_of_two_that_makes_no_sense_is_no_error():
    """On a device it is any number, which is not used."""
    for biased in (1e300, -1e300, INF, NAN, 0.0):
        simulator.times_power(np.float64(1.0), biased)
    assert simulator.times_power(3.0, two_words.ROUND + 5.0) == 96


def row_of(rng, classes, gap):
    """A row, the target's place, and the same with one logit above all others."""
    x = rng.normal(size=(1, classes)) * rng.choice([1e-3, 1.0, 8.0])
    x[0, rng.integers(classes)] += gap
    return x, np.array([rng.integers(classes)])


OPTIONS = {
    "plain": [{}],
    "factors": [
        {"temperature": 1.3},
        {"temperature": 0.1, "upstream": [-1.7]},
        {"weight": True, "sample_weight": [0.3]},
    ],
    "softcap": [{"softcap": 30.0}, {"softcap": 100.0, "temperature": 0.37}, {"softcap": 1e5}],
}
EVERY_OPTION = [(kind, options) for kind in OPTIONS for options in OPTIONS[kind]]


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("kind", "options"), EVERY_OPTION, ids=str)
def test_float64_rows_keep_the_promise(kind, options, classes):
    rng = np.random.default_rng(6)
    if "weight" in options:
        options = {**options, "weight": rng.uniform(0.1, 3, classes)}
    limits = PROMISES["f64", kind]
    for gap in (0.0, 5.0, 40.0):
        x, y = row_of(rng, classes, gap)
        r = cross_entropy(x, y, reduction="none", **CUDA, **options)
        given = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in options.items()}
        loss, grad = exactly(x, y, 200, reduction="none", **given)
        assert ulps(r.loss[0], loss[0], "f8") <= limits.loss
        for c, exact in enumerate(grad[0]):
            limit = limits.target if c == y[0] else limits.others
            assert ulps(r.grad[0, c], exact, "f8") <= limit, (c, y, gap)


@pytest.mark.parametrize("classes", [2, 45])
@pytest.mark.parametrize("count", [3, 16061])
def test_a_scale_comes_with_its_error(classes, count):
    """The mean over 16,061 equal rows had an entry 2.35 ULP off."""
    x = np.full((1, classes, 1), -1.81817555)
    x[0, 1] = -0.69285772
    scale = np.array([1.0 / count])
    error = float(Fraction(1, count) / Fraction(scale[0].item()) - 1)
    results, grad = np.empty((2, 1)), np.empty_like(x)
    scalars = Scalars(scale_error=error)
    CudaBackend().rows(x, np.array([1]), np.ones(classes), scale, scalars, results, grad)
    _, exact = exactly(x[..., 0], [1], normalizer=count)
    assert max(ulps(g, e, "f8") for g, e in zip(grad[0, :, 0], exact[0], strict=True)) <= 1.6


def test_many_masses_are_summed_with_their_errors():
    """In one word the sum of 63 equal ones was off by 14 units."""
    for classes in (63, 16 * 45):
        x = np.zeros((1, classes))
        x[0, 0] = 1.0
        r = cross_entropy(x, [0], label_smoothing=1.0, reduction="none", **CUDA)
        loss, grad = exactly(x, [0], 50, label_smoothing=1.0, reduction="none")
        assert ulps(r.loss[0], loss[0], "f8") <= 2
        for c in (0, 1, classes - 1):
            assert abs(float(r.grad[0, c] - grad[0][c])) <= 2 * np.spacing(1 / classes)


# Logits, target and options, with entries that are far below 1 or above.
FAR = [
    ([735.0] + [0.0] * 17, 0, {"upstream": [1e20]}),
    ([735.0] + [0.0] * 17, 1, {"upstream": [-1e20]}),
    ([746.0] + [0.0] * 99, 0, {}),
    ([1300.0, 0.0, 1.0], 0, {"upstream": [1e270]}),
    ([0.0, -1360.0], 0, {"weight": [1.5, 1.0], "upstream": [1e300]}),
    ([1e308, -1e308], 1, {"temperature": 10.0}),
    ([1e308, -1e308, 0.0], 1, {"temperature": 1e300}),
    ([0.0, 1.0], 1, {"temperature": 1e300, "upstream": [1e300]}),
    ([0.0, 1e-5], 1, {"weight": [1.0, 1.5], "upstream": [1e308]}),
    ([0.0, 1e-5], 1, {"upstream": [5e-324]}),
    ([0.0, -1e-305], 0, {"temperature": 1e-308, "upstream": [1e308]}),
    ([0.0, 1.0, -1.0], 0, {"temperature": 1e-160, "softcap": 1e-160, "upstream": [1e-160]}),
    ([3.0, -1.0], 0, {"softcap": 1e308}),
    ([10003.0, 9999.0, 10001.0], 1, {"softcap": 1e5}),
    ([300.0, 200.0, -300.0], 1, {"softcap": 1.0, "upstream": [1e250]}),
]


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(("row", "target", "options"), FAR, ids=lambda v: str(v)[:30])
def test_the_ends_of_the_range(row, target, options, long):
    if long:
        row = row + [row[-1]] * (40 if len(row) < 40 else 0)
        options = {k: v + [1.0] * 40 if k == "weight" else v for k, v in options.items()}
    r = cross_entropy([row], [target], reduction="none", **CUDA, **options)
    loss, grad = exactly([row], [target], 1000, reduction="none", **options)
    assert ulps(r.loss[0], loss[0], "f8") <= 2
    for found, exact in zip(r.grad[0], grad[0], strict=True):
        assert ulps(found, exact, "f8") <= 3


@pytest.mark.parametrize("classes", CLASSES)
def test_where_exponentials_end(classes):
    """Below exp(−1370) they are 0, whatever they are multiplied by."""
    x = np.zeros((1, classes))
    for gap, factor in ((1369.0, 1), (1371.0, 0)):
        x[0, 1:] = -gap
        grad = cross_entropy(x, [0], upstream=[1e300], reduction="none", **CUDA).grad[0]
        exact = float(mp.exp(-gap) * mp.mpf(10) ** 300) * factor
        np.testing.assert_allclose(grad[1:], exact, rtol=1e-14)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("upstream", [1e20, -1e20, 1e10, -1e-5, 1.0])
def test_far_classes_of_float32(classes, upstream):
    """Beyond a gap of 120 an exponential is less than the smallest normal number."""
    for gap, target in ((121.0, 0), (121.0, 1), (160.0, 0), (90.0, 2)):
        x = np.zeros((1, classes), "f4")
        x[0, 0] = gap
        r = cross_entropy(x, [target], upstream=[upstream], reduction="none", **CUDA)
        _, grad = exactly(x, [target], 300, upstream=[upstream], reduction="none")
        for c in (0, 1, 2, classes - 1):
            assert ulps(r.grad[0, c], grad[0][c], "f4") <= 2
        assert not (np.signbit(r.grad) & (r.grad == 0)).any()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_nothing_is_minus_zero(kind, classes):
    """Neither entries nor logarithms that round to zero, nor losses times a negative weight."""
    x = np.zeros((2, classes))
    x[0, 0], x[1, 0] = 30.0, 1500.0
    x = narrow(x, NAMES[kind])
    out = narrow(np.full(x.shape, 7.0), NAMES[kind])
    for scale in (-1e-8, -1e-40, -1.0):
        r = cross_entropy(x, [1, 0], upstream=[scale] * 2, reduction="none", out=out, **CUDA)
        for array in (widen(r.grad, NAMES["f64"]), r.loss):
            assert not (np.signbit(array) & (array == 0)).any()
    for function in (softmax, log_softmax):
        p = widen(function(x, out=out, **CUDA), NAMES["f64"])
        assert not (np.signbit(p) & (p == 0)).any()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("junk", [NAN, INF])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}], ids=str)
def test_a_weight_of_zero_hides_no_nan(junk, options, classes):
    for dtype in ("f4", "f8"):
        x = np.ones((1, classes), dtype)
        x[0, 2] = junk
        weight = np.zeros(classes)
        r = cross_entropy(x, [0], weight=weight, reduction="none", **CUDA, **options)
        assert np.isnan(r.loss).all()
        assert np.isnan(r.grad).all()
        q = np.zeros(x.shape)
        r = cross_entropy(x, q, target_kind="probs", reduction="none", **CUDA, **options)
        assert np.isnan(r.loss).all()
        assert np.isnan(r.grad).all()


@pytest.mark.parametrize("classes", CLASSES)
def test_a_negative_weight_of_a_masked_class(classes):
    x, weight = np.zeros((1, classes)), np.ones(classes)
    x[0, 3], weight[3] = -INF, -2.0
    r = cross_entropy(x, [0], weight=weight, label_smoothing=0.1, reduction="none", **CUDA)
    assert r.loss[0] == -INF
    assert np.isfinite(r.grad).all()


ANY = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-5, 5)
POSITIVE = st.floats(5e-324, 1.7e308) | st.floats(0.1, 10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(["f4", "f8"]), st.sampled_from([1, 3, 18]))
def test_no_numbers_are_an_error(data, dtype, classes):
    """Of any size, in logits and options. What they give is tested elsewhere."""
    numbers = st.lists(ANY, min_size=classes, max_size=classes)
    x = np.array([data.draw(numbers)]).astype(dtype)
    options = {
        "temperature": data.draw(POSITIVE),
        "softcap": data.draw(st.none() | POSITIVE),
        "z_loss": data.draw(st.just(0.0) | POSITIVE),
        "label_smoothing": data.draw(st.sampled_from([0.0, 0.1, 1.0])),
        "weight": data.draw(st.none() | numbers),
        "upstream": [data.draw(ANY)],
    }
    r = cross_entropy(x, [classes - 1], reduction="none", **CUDA, **options)
    assert not (np.signbit(r.grad) & (r.grad == 0)).any()
