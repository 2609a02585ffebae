"""Formulas of one number or of 16: sums with their errors, the exponential, log1p, tanh.

Each is written once, for a float64 and for a vector of them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from xentcli.kernels.simd import absolute, constant, equal, fma, less, power_of_two, select, smaller

# NumPy's rules for division by zero; never fastmath: NaN and infinity have a meaning here, and
# reassociation would undo the error terms.
compiled = njit(error_model="numpy", nogil=True, forceinline=True)

ROUND = 6755399441055744.0  # 1.5·2⁵²: adding it leaves a whole number in the last bits
FARTHEST = 746.0  # beyond, exp(−gap) is 0
PER_LN2 = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01  # its last 21 bits are 0: exact times a whole number
LN2_LOW = 1.90821492927058770002e-10


@compiled
def add(high, low, value):
    """Add to a sum that carries its rounding error (Knuth)."""
    total = high + value
    shadow = total - high
    return total, low + ((high - (total - shadow)) + (value - shadow))


@compiled
def below(peak, score, divisor):
    """(peak − score) / divisor as a rounded number and its error; no error where it is inf."""
    high = peak - score
    shadow = high - peak
    low = (peak - (high - shadow)) - (score + shadow)
    if divisor != 1.0:
        quotient = high / divisor
        low = (fma(quotient, constant(high, -divisor), high) + low) / divisor
        high = quotient
    finite = less(absolute(high), constant(high, math.inf))
    return high, select(finite, low, constant(low, 0.0))


@compiled
def exponent_and_rest(gap, error):
    """s and 2ⁿ⁺¹⁰⁰ with exp(−gap − error) = (1 + s)·2ⁿ for gap ≥ 0; an error of None is 0.

    −gap = n·ln 2 + r, |r| ≤ ln 2 / 2; the Taylor polynomial of degree 13 leaves out 4e-18. It
    is written here because a call to the C library keeps the loop scalar, and costs 150 ns
    where 256-bit registers are in use. 2¹⁰⁰ keeps the power a normal number.
    """
    far = constant(gap, FARTHEST)
    near = less(gap, far)
    gap = smaller(gap, far)
    biased = fma(gap, constant(gap, -PER_LN2), constant(gap, ROUND))
    n = biased - ROUND
    high = fma(n, constant(gap, -LN2_HIGH), 0.0 - gap)
    if error is None:
        r = fma(n, constant(gap, -LN2_LOW), high)
    else:
        known = select(near, error, constant(gap, 0.0))  # of a gap of 1e16 the error alone is 1
        low = fma(n, constant(gap, LN2_LOW), known)
        r = high - low
    t = constant(gap, 1.6059043836821613e-10)
    t = fma(t, r, constant(gap, 2.08767569878681e-09))
    t = fma(t, r, constant(gap, 2.505210838544172e-08))
    t = fma(t, r, constant(gap, 2.755731922398589e-07))
    t = fma(t, r, constant(gap, 2.7557319223985893e-06))
    t = fma(t, r, constant(gap, 2.48015873015873e-05))
    t = fma(t, r, constant(gap, 0.0001984126984126984))
    t = fma(t, r, constant(gap, 0.001388888888888889))
    t = fma(t, r, constant(gap, 0.008333333333333333))
    t = fma(t, r, constant(gap, 0.041666666666666664))
    t = fma(t, r, constant(gap, 0.16666666666666666))
    t = fma(t, r, constant(gap, 0.5))
    power = power_of_two(biased + 100.0)
    if error is None:
        s = fma(r * r, t, r)
    else:
        s = r + fma(r * r, t, (high - r) - low)
    return s, power


@compiled
def exp_below(gap, error):
    """exp(−gap − error) for gap ≥ 0, within 0.9 ULP (1.2 without the error); subnormals too."""
    s, power = exponent_and_rest(gap, error)
    return fma(power, s, power) * 2.0**-100


@compiled
def tanh(x):
    """tanh without cancellation near 0: with m = expm1(−2·|x|) it is ∓m / (2 + m); NaN of NaN."""
    s, power = exponent_and_rest(absolute(x) * 2.0, constant(x, 0.0))
    power = power * 2.0**-100
    m = fma(power, s, power - 1.0)
    t = m / (2.0 + m)
    t = select(less(x, constant(x, 0.0)), t, 0.0 - t)
    return select(equal(x, x), t, x)


@compiled
def sech_squared(x):
    """1 − tanh², without cancellation: 4·e / (1 + e)², e = exp(−2·|x|)."""
    e = exp_below(absolute(x) * 2.0, constant(x, 0.0))
    return (e * 4.0) / ((1.0 + e) * (1.0 + e))


@compiled
def log1p(x):
    """log(1 + x) of one number x ≥ 0, within 1 ULP.

    1 + x = 2ᵏ·(1 + f), √½ < 1 + f < √2, and log(1 + f) = f − f²/2 + s·(f²/2 + R(s²)) with
    s = f / (2 + f); the rounding error of 1 + x enters to first order. The polynomial R is that
    of FreeBSD's e_log.c.
    """
    u, error = add(1.0, 0.0, x)
    bits = np.float64(u).view(np.int64)
    k = (bits + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)) >> 52
    k -= 1023
    f = np.int64(bits - (k << 52)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = 1.479819860511658591e-01
    r = r * z + 1.531383769920937332e-01
    r = r * z + 1.818357216161805012e-01
    r = r * z + 2.222219843214978396e-01
    r = r * z + 2.857142874366239149e-01
    r = r * z + 3.999999999940941908e-01
    r = r * z + 6.666666666666735130e-01
    half = 0.5 * f * f
    rest = s * (half + r * z) + (k * LN2_LOW + error / u)
    return k * LN2_HIGH - ((half - rest) - f)
