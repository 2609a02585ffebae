"""Numba's scalars with their rounding errors: sums, differences, quotients, the exponential."""

from __future__ import annotations

import numpy as np
from numba import njit

# NumPy's rules for division by zero; never fastmath: NaN and infinity have a meaning here, and
# reassociation would undo the error terms.
compiled = njit(error_model="numpy", nogil=True)


@compiled
def add(high, low, value):
    """Add to a sum that carries its rounding error."""
    total = high + value
    shadow = total - high
    return total, low + ((high - (total - shadow)) + (value - shadow))


@compiled
def below(peak, score, divisor):
    """(peak − score) / divisor as a rounded number and its error; no error where it is inf."""
    high = peak - score
    shadow = high - peak
    low = (peak - (high - shadow)) + (-score - shadow)
    low = low if low == low else 0.0
    if divisor == 1.0:
        return high, low
    quotient = high / divisor
    return quotient, (remainder(high, quotient, divisor) + low) / divisor


@compiled
def power_of_two(n):
    """2ⁿ for the exponents of normal numbers."""
    return np.int64((n + 1023) << 52).view(np.float64)


@compiled
def exp_below(gap, error):
    """exp(−gap − error) for gap ≥ 0, within 0.6 ULP; subnormal results included.

    −gap = n·ln 2 + r, |r| ≤ ln 2 / 2; the Taylor polynomial of degree 13 leaves out 4e-18. It
    is written here because a call to the C library's exp keeps the loop scalar, and cost 150 ns
    instead of 8 where 256-bit conversions stood beside it.
    """
    error = error if gap < 746.0 else 0.0  # of a gap of 1e16 the error alone is 1
    gap = min(gap, 746.0)  # beyond, exp is 0; and 2ⁿ stays in range
    n = np.rint(gap * -1.4426950408889634)
    high = -gap - n * 6.93147180369123816490e-01
    low = n * 1.90821492927058770002e-10 + error
    r = high - low
    r_low = (high - r) - low
    t = 1.6059043836821613e-10
    t = t * r + 2.08767569878681e-09
    t = t * r + 2.505210838544172e-08
    t = t * r + 2.755731922398589e-07
    t = t * r + 2.7557319223985893e-06
    t = t * r + 2.48015873015873e-05
    t = t * r + 0.0001984126984126984
    t = t * r + 0.001388888888888889
    t = t * r + 0.008333333333333333
    t = t * r + 0.041666666666666664
    t = t * r + 0.16666666666666666
    t = t * r + 0.5
    e = 1.0 + (r + (r_low + r * r * t))
    k = np.int64(n)
    half = k >> 1
    return e * power_of_two(half) * power_of_two(k - half)


@compiled
def remainder(value, quotient, divisor):
    """value − quotient·divisor, exactly (Dekker); 0 where the factors are too large to split."""
    if abs(value) > 1e290 or abs(quotient) > 1e290 or divisor > 1e290:
        return 0.0
    shifted = quotient * 134217729.0
    q_high = shifted - (shifted - quotient)
    q_low = quotient - q_high
    shifted = divisor * 134217729.0
    d_high = shifted - (shifted - divisor)
    d_low = divisor - d_high
    return (((value - q_high * d_high) - q_high * d_low) - q_low * d_high) - q_low * d_low
