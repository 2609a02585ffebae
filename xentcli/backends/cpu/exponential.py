"""The exponential: range reduction, a polynomial, and scaling by a power of two.

exp(−g) = 2ⁿ·(1 + s), −g = n·ln 2 + r, |r| ≤ ln 2 / 2, and s = r + r²·t(r). The polynomials are
minimax for t = (eʳ − 1 − r) / r², weighted by one unit in the last place of 1 + s.

A call of the C library's exp would keep the loop scalar, and takes 150 ns where 256-bit registers
are in use. Everything takes one number or a vector of 16.
"""

from __future__ import annotations

import math
from typing import Any

from xentcli.backends import elementary
from xentcli.backends.cpu.arithmetic import (
    add,
    difference,
    difference_below,
    fast_add,
    inline_jit,
    negative,
    polynomial,
    product,
    split_polynomial,
)
from xentcli.backends.cpu.simd import (
    constant,
    fma,
    fmin,
    less,
    less_equal_or_nan,
    power_of_two,
    select,
    select_min,
)
from xentcli.backends.elementary import (
    EXP_39,
    EXP_45,
    EXP_51,
    LN2_HIGH,
    LN2_LOW,
    PER_LN2,
    ROUND,
)

# For float32.
F32_MIN_DIFFERENCE = -120.0
F32_ROUND = 12582912.0
F32_LN2_HIGH = 0.693145751953125
F32_LN2_LOW = 1.42860677e-06

LN2 = math.log(2.0)

# A row's exponentials are kept multiplied by a power of two, so that the smallest are normal
# numbers too: a subnormal gradient is rounded once, and a large factor brings small ones back.
SCALE_BITS = 900
F32_SCALE_BITS = 48
ONE = 2.0**SCALE_BITS  # what exp(0) is kept as
UNSCALE = 2.0**-SCALE_BITS
GAP_OF_0 = (SCALE_BITS + 1023) * LN2  # its power of two has the bits of 0
MAX_SCALED_GAP = 1330.0  # beyond, exp(−gap)·2⁹⁰⁰ is not a normal number, and is kept as 0

# So are the slope of a softcap and what it is made of.
SLOPE_BITS = 500
SLOPE_ONE = 2.0**SLOPE_BITS
SLOPE_UNIT = 2.0**-SLOPE_BITS

exp_series = polynomial(elementary.EXP)


@inline_jit
def exp_series_f32(r, square):
    """The polynomial for float32: as exact as by Horner's rule, in three steps after another."""
    low = fma(r, constant(r, elementary.EXP_SINGLE[2]), constant(r, elementary.EXP_SINGLE[3]))
    high = fma(r, constant(r, elementary.EXP_SINGLE[0]), constant(r, elementary.EXP_SINGLE[1]))
    return fma(r, fma(square, high, low), constant(r, elementary.EXP_SINGLE[4]))


# (eʳ − 1 − r − r²/2 − r³/6) / r⁴, to 2⁻⁷⁴ of eʳ.
EXP_TAIL = tuple(1.0 / math.factorial(k) for k in range(16, 3, -1))
exp_tail = polynomial(EXP_TAIL)
SIXTH, SIXTH_LOW = 1.0 / 6.0, 9.25185853854297e-18  # 1/6 in two words


@inline_jit
def nearest_power(gap):
    """n of −gap = n·ln 2 + r, n + 1.5·2⁵², and −gap − n·ln 2 without the last bits of ln 2."""
    biased = fma(gap, constant(gap, -PER_LN2), constant(gap, ROUND))
    n = biased - ROUND
    return n, biased, fma(n, constant(gap, -LN2_HIGH), negative(gap))


@inline_jit
def reduce_range(gap, error):
    """r of −gap − error, its rounding error, and n + 1.5·2⁵²."""
    n, biased, high = nearest_power(gap)
    low = fma(n, constant(gap, LN2_LOW), error)
    r = high - low
    return r, (high - r) - low, biased


@inline_jit
def exp_terms(power, r, curved):
    """power·(1 + r + curved) as a sum of two terms; |curved| is less than a fifth of |r|."""
    high = fma(power, r, power)
    return high, fma(power, curved, fma(power, r, power - high))


@inline_jit
def exp_of_gap(gap, error, exact):
    """exp(−gap − error)·2⁹⁰⁰ for gap ≥ 0, within 0.75 ULP, and its rounding error.

    Both are 0 beyond `MAX_SCALED_GAP` and of NaN. Unless `exact`, the error of the gap is left
    out, the result is within 1.2 ULP, and its error counts as 0.
    """
    far, zero = constant(gap, MAX_SCALED_GAP), constant(gap, 0.0)
    near = fmin(gap, far)
    if exact:
        r, lost, biased = reduce_range(near, error)
        power = power_of_two(biased, SCALE_BITS)
        high, rest = exp_terms(power, r, fma(r * r, exp_series(r), lost))
        high, rest = fast_add(high, rest)
    else:
        n, biased, reduced = nearest_power(near)
        r = fma(n, constant(gap, -LN2_LOW), reduced)
        power = power_of_two(biased, SCALE_BITS)
        high, rest = fma(power, fma(r * r, exp_series(r), r), power), zero
    return select(less(gap, far), high, zero), select(less(gap, far), rest, zero)


# For results with the digits of float32, with fewer terms.


def _expm1(coefficients: tuple[float, ...]) -> Any:
    series = split_polynomial(coefficients)

    @inline_jit
    def value_at(r):
        square = r * r
        return fma(square, series(r, square), r)

    return value_at


expm1_51, expm1_45, expm1_39 = map(_expm1, (EXP_51, EXP_45, EXP_39))


@inline_jit
def short_range(gap, bits):
    """r of −gap = n·ln 2 + r within 2⁻⁵⁵·n, and 2ⁿ⁺ᵇⁱᵗˢ."""
    biased = fma(gap, constant(gap, -PER_LN2), constant(gap, ROUND))
    r = fma(biased - ROUND, constant(gap, -LN2), negative(gap))
    return r, power_of_two(biased, bits)


# The exponential in three stages, for software pipelines: `exp_pipeline`, `long_rows_pass`.


@inline_jit
def gap_stage1(gap, error, exact):
    """The first stage of exp(−gap − error)·2⁹⁰⁰ for gap ≥ 0, NaN of NaN, 0 beyond `GAP_OF_0`.

    If `exact`, as `exp_of_gap`; otherwise the error of the gap is left out.
    """
    zero = constant(gap, 0.0)
    if not exact:
        r, power = short_range(select_min(constant(gap, GAP_OF_0), gap), SCALE_BITS)
        return r, zero, power
    far = constant(gap, MAX_SCALED_GAP)
    near = less_equal_or_nan(gap, far)
    r, lost, biased = reduce_range(select(near, gap, far), select(near, error, zero))
    return r, lost, select(near, power_of_two(biased, SCALE_BITS), zero)


@inline_jit
def gap_stage2(parts, exact, cancels):
    """The second stage: the exponential as a sum, or if not `exact` as a product; then its relative
    error is 2⁻⁵¹ if terms may cancel, and otherwise 2⁻³⁹."""
    r, lost, power = parts
    if exact:
        return exp_terms(power, r, fma(r * r, exp_series(r), lost))
    if cancels:
        return power, expm1_51(r)
    return power, expm1_39(r)


@inline_jit
def gap_stage3(parts, exact):
    """The third stage: the exponential, and its rounding error."""
    if exact:
        return fast_add(parts[0], parts[1])
    return fma(parts[0], parts[1], parts[0]), constant(parts[0], 0.0)


@inline_jit
def exp_stage1(x, peak):
    """The first stage of exp(x − peak)·2⁹⁰⁰ of float64 x ≤ peak, NaN of NaN."""
    gap, error = difference(peak, x)
    return gap_stage1(gap, error, True)


@inline_jit
def exp_stage2(parts):
    """The second stage."""
    return gap_stage2(parts, True, True)


@inline_jit
def exp_stage3(parts):
    """The third stage: the exponential, and its rounding error."""
    return gap_stage3(parts, True)


@inline_jit
def times_inverse(high, low, inverse):
    """A product in two words."""
    total = high * inverse[0]
    rest = fma(high, inverse[0], constant(high, 0.0) - total)
    return total, rest + fma(high, inverse[1], low * inverse[0])


@inline_jit
def exp_stage1_f32(x, peak, inverse):
    """The first stage of exp((x − peak)·inverse)·2⁴⁸ of float32 x ≤ peak; `inverse` has two words,
    or is None for 1."""
    gap, error = difference_below(x, peak)
    if inverse is not None:
        gap, error = times_inverse(gap, error, inverse)
    near = less_equal_or_nan(constant(gap, F32_MIN_DIFFERENCE), gap)  # true of NaN, which is kept
    zero = constant(gap, 0.0)
    biased = fma(gap, constant(gap, PER_LN2), constant(gap, F32_ROUND))
    n = biased - constant(gap, F32_ROUND)
    high = select(near, fma(n, constant(gap, -F32_LN2_HIGH), gap), zero)  # exact
    low = select(near, fma(n, constant(gap, -F32_LN2_LOW), error), zero)
    power = select(near, power_of_two(biased, F32_SCALE_BITS), zero)
    return high, low, high + low, power


@inline_jit
def exp_stage2_f32(parts):
    """The second stage."""
    high, low, r, power = parts
    square = r * r
    curved = fma(square, exp_series_f32(r, square), low)
    return high, curved, high + curved, power


@inline_jit
def exp_stage3_f32(parts):
    """The third stage: the exponential, NaN of NaN, and its rounding error."""
    high, curved, s, power = parts
    e = fma(power, s, power)
    return e, fma(power, curved, fma(power, high, power - e))


@inline_jit
def exp_and_expm1(gap):
    """exp(−gap)·2⁵⁰⁰, and 1 − exp(−gap), for 0 ≤ gap ≤ 960."""
    n, biased, reduced = nearest_power(gap)
    r = fma(n, constant(gap, -LN2_LOW), reduced)
    s, scaled = fma(r * r, exp_series(r), r), power_of_two(biased, SLOPE_BITS)
    power = scaled * SLOPE_UNIT
    return fma(scaled, s, scaled), fma(0.0 - power, s, 1.0 - power)


@inline_jit
def exp_and_expm1_in_two_words(gap, error):
    """The same of gap + error, both in two words."""
    r, lost, biased = reduce_range(gap, error)
    scaled = power_of_two(biased, SLOPE_BITS)
    power = scaled * SLOPE_UNIT
    s, s_low = _expm1_in_two_words(r, lost)
    high, low = fast_add(constant(gap, 1.0), 0.0 - power)
    m, m_low = add(high, low - power * s_low, 0.0 - power * s)
    e = fma(scaled, s, scaled)
    return e, fma(scaled, s, scaled - e) + scaled * s_low, m, m_low


@inline_jit
def _expm1_in_two_words(r, lost):
    """exp(r + lost) − 1, with an error of 2⁻⁶² for |r| ≤ ln 2 / 2."""
    square, square_low = product(r, r)
    cube, cube_low = product(square, r)
    third, third_low = product(cube, constant(r, SIXTH))
    third_low = third_low + (cube * SIXTH_LOW + (cube_low + square_low * r) * SIXTH)
    high, low = fast_add(r, square * 0.5)
    high, more = fast_add(high, third)
    rest = fma(square * square, exp_tail(r), fma(high, lost, lost))
    return fast_add(high, rest + (low + more + (square_low * 0.5 + third_low)))
