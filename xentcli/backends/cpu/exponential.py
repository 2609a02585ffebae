"""The exponential: range reduction, a polynomial, and scaling by a power of two.

exp(−g) = 2ⁿ·(1 + s), −g = n·ln 2 + r, |r| ≤ ln 2 / 2, and s = r + r²·t(r). The polynomials are
minimax for t = (eʳ − 1 − r) / r², weighted by one unit in the last place of 1 + s.

A call of the C library's exp would keep the loop scalar, and takes 150 ns where 256-bit registers
are in use. Everything takes one number or a vector of 16.
"""

from __future__ import annotations

from xentcli.backends import elementary
from xentcli.backends.cpu.arithmetic import difference, inline_jit, polynomial
from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    equal,
    fma,
    fmin,
    less,
    less_equal_or_nan,
    power_of_two,
    select,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, MAX_GAP, PER_LN2, ROUND

# For float32.
F32_MIN_DIFFERENCE = -120.0
F32_ROUND = 12582912.0
F32_LN2_HIGH = 0.693145751953125
F32_LN2_LOW = 1.42860677e-06

# A row's exponentials are kept multiplied by a power of two, so that the smallest are normal
# numbers too, and a subnormal gradient is rounded once.
SCALE_BITS = 100
F32_SCALE_BITS = 48
MAX_SCALED_GAP = 776.0

exp_series = polynomial(elementary.EXP)
exp_series_f32 = polynomial(elementary.EXP_SINGLE)


@inline_jit
def nearest_power(gap):
    """n of −gap = n·ln 2 + r, n + 1.5·2⁵², and −gap − n·ln 2 without the last bits of ln 2."""
    biased = fma(gap, constant(gap, -PER_LN2), constant(gap, ROUND))
    n = biased - ROUND
    return n, biased, fma(n, constant(gap, -LN2_HIGH), 0.0 - gap)


@inline_jit
def reduce_range(gap, error):
    """r of −gap − error, its rounding error, and n + 1.5·2⁵²."""
    n, biased, high = nearest_power(gap)
    low = fma(n, constant(gap, LN2_LOW), error)
    r = high - low
    return r, (high - r) - low, biased


@inline_jit
def expm1_reduced(r, lost):
    """s, given r and its rounding error."""
    return r + fma(r * r, exp_series(r), lost)


@inline_jit
def expm1_and_power(gap, error):
    """s and n + 1.5·2⁵² of exp(−gap − error); an error of None is 0."""
    if error is None:
        n, biased, high = nearest_power(gap)
        r = fma(n, constant(gap, -LN2_LOW), high)
        return fma(r * r, exp_series(r), r), biased
    r, lost, biased = reduce_range(gap, error)
    return expm1_reduced(r, lost), biased


@inline_jit
def exp_of_gap(gap, error):
    """exp(−gap − error) for gap ≥ 0, within 0.9 ULP (1.2 without the error); subnormals too."""
    far = constant(gap, MAX_GAP)
    if error is None:
        s, biased = expm1_and_power(fmin(gap, far), None)
    else:  # where the gap is 1e16 its error alone is 1
        known = select(less(gap, far), error, constant(gap, 0.0))
        s, biased = expm1_and_power(fmin(gap, far), known)
    power = power_of_two(biased, 100)  # or a subnormal result would be rounded twice
    return fma(power, s, power) * 2.0**-100


# The exponential in three stages, for the software pipeline in `exp_pipeline`.


@inline_jit
def exp_stage1(x, peak):
    """The first stage of exp(x − peak)·2¹⁰⁰ of float64 x ≤ peak."""
    gap, error = difference(peak, x)
    r, lost, biased = reduce_range(gap, error)
    return gap, r, lost, power_of_two(biased, SCALE_BITS)


@inline_jit
def exp_stage2(parts):
    """The second stage."""
    gap, r, lost, power = parts
    return gap, expm1_reduced(r, lost), power


@inline_jit
def exp_stage3(parts):
    """The third stage: the exponential, NaN of NaN."""
    gap, s, power = parts
    beyond = less(constant(gap, MAX_SCALED_GAP), gap)
    return select(beyond, constant(gap, 0.0), fma(power, s, power))


@inline_jit
def exp_stage1_f32(x, peak):
    """The first stage of exp(x − peak)·2⁴⁸ of float32 x ≤ peak."""
    gap, error = difference(x, peak)
    biased = fma(gap, constant(gap, PER_LN2), constant(gap, F32_ROUND))
    n = biased - constant(gap, F32_ROUND)
    high = fma(n, constant(gap, -F32_LN2_HIGH), gap)  # exact
    low = fma(n, constant(gap, -F32_LN2_LOW), error)
    return gap, high, low, high + low, power_of_two(biased, F32_SCALE_BITS)


@inline_jit
def exp_stage2_f32(parts):
    """The second stage."""
    gap, high, low, r, power = parts
    t = exp_series_f32(r)
    curved = fma(r * r, t, low)
    return gap, high, curved, high + curved, power


@inline_jit
def exp_stage3_f32(parts):
    """The third stage: the exponential, NaN of NaN, and its rounding error."""
    gap, high, curved, s, power = parts
    zero = constant(gap, 0.0)
    near = less_equal_or_nan(constant(gap, F32_MIN_DIFFERENCE), gap)  # true of NaN, which is kept
    e = select(near, fma(power, s, power), zero)
    lost = fma(power, s, power - e) + power * (curved - (s - high))
    return e, select(near, lost, zero)


@inline_jit
def tanh(x):
    """tanh without cancellation near 0: ∓m / (2 + m), m = expm1(−2·|x|); NaN of NaN."""
    gap = fmin(absolute(x) * 2.0, constant(x, 64.0))  # beyond, it is ±1
    s, biased = expm1_and_power(gap, constant(x, 0.0))
    power = power_of_two(biased, 0)
    m = fma(power, s, power - 1.0)
    t = m / (2.0 + m)
    t = select(less(x, constant(x, 0.0)), t, 0.0 - t)
    return select(equal(x, x), t, x)


@inline_jit
def sech_squared(x):
    """1 − tanh², without cancellation: 4·e / (1 + e)², e = exp(−2·|x|)."""
    e = exp_of_gap(absolute(x) * 2.0, constant(x, 0.0))
    return (e * 4.0) / ((1.0 + e) * (1.0 + e))
