"""The functions that the CPU kernels bring along, against mpmath, one number and 16 at a time."""

import mpmath
import numpy as np
import pytest
from helpers import DIGITS, ulps
from numba import njit

from xentcli.arrays.dtypes import BF16, NAMES, narrow, widen
from xentcli.backends.cpu import arithmetic, exponential, half_types
from xentcli.backends.cpu.load_store import load, pointer, store
from xentcli.backends.cpu.simd import LANES

SPECIAL = [0.0, 1e-300, 1e-20, 0.34657359027997264, 0.3465735902799727, 708.5, 744.0, 745.13]
LARGEST = 900.0  # of what exponentials are taken of


def lifted(power):
    """exp(−x), times so many powers of two."""
    return lambda x: mpmath.ldexp(mpmath.exp(-x), power)


def in_one_word(first):
    """The sum of two of the words that are computed together."""

    @njit
    def total(x):
        words = exponential.exp_and_expm1_in_two_words(x, x - x)
        return words[first] + words[first + 1]

    return total


# A function, what it is exactly, the ULP that it may be off by, and the largest argument.
FUNCTIONS = {
    "exp": (njit(lambda x: exponential.exp_of_gap(x, x - x, True)[0]), lifted(900), 0.75, LARGEST),
    "exp, no error": (
        njit(lambda x: exponential.exp_of_gap(x, x - x, False)[0]),
        lifted(900),
        1.2,
        LARGEST,
    ),
    "log1p": (njit(lambda x: arithmetic.log1p(x, x - x)[0]), mpmath.log1p, 0.8, 1e5),
    "exp of an angle": (
        njit(lambda x: exponential.exp_and_expm1(x)[0]),
        lifted(500),
        1.2,
        LARGEST,
    ),
    "expm1 of an angle": (
        njit(lambda x: exponential.exp_and_expm1(x)[1]),
        lambda x: -mpmath.expm1(-x),
        1.5,
        LARGEST,
    ),
    "exp in two words": (
        in_one_word(0),
        lifted(500),
        0.51,
        LARGEST,
    ),
    "expm1 in two words": (
        in_one_word(2),
        lambda x: -mpmath.expm1(-x),
        0.51,
        LARGEST,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_in_ulps(name, rng):
    function, exact, limit, largest = FUNCTIONS[name]
    compiled = njit(lambda x: function(x))
    numbers = [
        *SPECIAL,
        *rng.uniform(0, 2, 400),
        *rng.uniform(0, 340, 400),
        *rng.uniform(0, largest, 99),
    ]
    with mpmath.workdps(DIGITS):
        worst = max(ulps(compiled(x), exact(mpmath.mpf(x)), "f8") for x in map(float, numbers))
    assert worst <= limit


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sixteen_numbers_have_the_bits_of_one(name, rng):
    function = FUNCTIONS[name][0]
    one = njit(lambda x: function(x))

    @njit
    def sixteen(x, out):
        store(pointer(out, 0), 0, function(load(pointer(x, 0), 0)))

    x = np.concatenate([SPECIAL, rng.uniform(0, 40, 8)])
    out = np.empty(16)
    sixteen(x, out)
    assert out.tolist() == [one(v) for v in x]


def test_the_ends_of_the_range():
    exp = njit(lambda x: exponential.exp_of_gap(x, 0.0, True)[0])
    assert [exp(0.0), exp(1500.0), exp(1e300), exp(np.inf)] == [2.0**900, 0.0, 0.0, 0.0]
    # The last normal numbers, and what lies below.
    assert exp(1330.0) == pytest.approx(float(mpmath.ldexp(mpmath.exp(-1330), 900)), rel=1e-15)
    both = njit(lambda x: exponential.exp_and_expm1(x))
    assert both(0.0) == (2.0**500, 0.0)


@njit
def boosted_line(x, top, out, taken):
    """exp(x − top) of float32, 16 at a time, without its power of two."""
    tops = load(pointer(top, 0), 0)
    for i in range(0, len(x), LANES):
        begun = exponential.exp_stage1_f32(load(pointer(x, 0), i), tops, None)
        e, rest = exponential.exp_stage3_f32(exponential.exp_stage2_f32(begun))
        store(pointer(out, 0), i, e)
        store(pointer(taken, 0), i, rest)


@pytest.mark.parametrize("top", [0.0, 5.1, -77.7, 1e-30, 1234.5, -1e8, 3e38])
def test_the_exponential_of_a_float32_difference(top, rng):
    """In units of 2⁻²⁴, which is what rounding to float32 costs at most. An entry of the gradient
    is e·factor/Σe: 1.2 + 0.3 for the sum + half a unit in the last place, about 2 ULP."""
    size = 1 << 18
    x = np.float32(top) - np.abs(rng.normal(size=size) * rng.choice([0.1, 1, 10, 40], size=size))
    x = np.minimum(x.astype("f4"), np.float32(top))
    out, taken = np.empty_like(x), np.empty_like(x)
    boosted_line(x, np.full(LANES, top, "f4"), out, taken)
    gap = x.astype("f8") - np.float64(np.float32(top))
    exact = np.where(gap < -120, 0.0, np.exp(gap) * 2.0**48)
    near = gap > -119.9
    assert (out[gap < -120.1] == 0).all()
    error = np.abs(out[near] - exact[near]) / exact[near] * 2**24
    both = np.abs(out[near].astype("f8") + taken[near] - exact[near]) / exact[near] * 2**24
    assert error.max() < 1.25
    assert both[gap[near] > -80].max() < 0.3
    assert both.max() < 0.5  # the second word becomes subnormal


def test_a_nan_stays_in_the_exponential_and_the_ends_are_exact():
    x = np.array([np.nan, -np.inf, 1.0, 1.0 - 121, -3e38] + [0.0] * 11, "f4")
    out, taken = np.empty_like(x), np.empty_like(x)
    boosted_line(x, np.full(LANES, 1.0, "f4"), out, taken)
    assert np.isnan(out[0])
    assert out[1:5].tolist() == [0.0, 2.0**48, 0.0, 0.0]


def converters():
    """Loads and stores of the half types, compiled now."""

    @njit
    def from_half(x, out):
        for i in range(0, len(x), LANES):
            store(pointer(out, 0), i, load(pointer(x, 0), i))

    return from_half


@pytest.mark.parametrize("in_hardware", [True, False])
@pytest.mark.parametrize("dtype", [NAMES["f16"], BF16], ids=["f16", "bf16"])
def test_half_types_are_widened_and_rounded_like_everywhere(monkeypatch, in_hardware, dtype, rng):
    monkeypatch.setattr(half_types, "IN_HARDWARE", in_hardware and half_types.IN_HARDWARE)
    bits = np.uint16 if dtype == NAMES["f16"] else np.int16
    convert = converters()
    halves = np.arange(1 << 16, dtype=np.uint16)
    wide = np.empty(1 << 16, "f4")
    convert(halves.view(bits), wide)
    np.testing.assert_array_equal(wide, widen(halves.view(dtype), np.dtype("f4")))

    single = rng.integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    edges = wide.view(np.uint32)[:, None] + np.array([0, 1, 2**32 - 1, 1 << 12, 1 << 15], "u4")
    single = np.concatenate([single, edges.reshape(-1)]).view("f4")
    rounded = np.empty(len(single), bits)
    with np.errstate(invalid="ignore"):
        converters()(single, rounded)
        expected = narrow(single, dtype).view(np.uint16)
    expected[expected == 0x8000] = 0  # no result is −0.0
    is_nan = np.isnan(single)
    np.testing.assert_array_equal(rounded.view(np.uint16)[~is_nan], expected[~is_nan])
    assert np.isnan(widen(rounded.view(dtype)[is_nan], np.dtype("f4"))).all()
