"""The formulas of a row's classes, for one number at a time, in float64.

    z_c    = x_c / T, or κ·tanh(x_c / T / κ) with a softcap
    gap_c  = max z − z_c
    e_c    = exp(−gap_c),  s = Σ e_c,  others = s − 1, where the 1 is a largest one's own
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C)

a_c is called the mass of a class. z itself is never needed, only its gaps, which come from
differences of logits. Products and sums are fused with `fma` here and not in
`backends.cpu.formulas`, so that the last bits differ.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends import elementary
from xentcli.backends.cuda.primitives import (
    device,
    fma,
    fraction_and_power,
    polynomial,
    times,
    times_power,
)
from xentcli.backends.cuda.two_words import (
    add,
    add_pairs,
    difference,
    divide,
    divide_by,
    exp_and_rest,
    multiply,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, PER_LN2, ROUND

# Exponentials are multiplied by 2⁹⁶⁰, so that weights and upstream gradients can bring back those
# below the smallest float64; with 2⁶³ classes their sum is still finite. Below exp(−1370), about
# 10⁻⁵⁹⁵, they are 0.
SCALE_BITS = 960
UNIT = 2.0**-SCALE_BITS
ONE = 2.0**SCALE_BITS  # the exponential of a largest logit
MAX_GAP = 1370.0

SATURATED = 300.0  # tanh of this is 1 within 10⁻²⁶⁰
LINEAR = 2.0**-100  # tanh of less is its argument

exp_series = polynomial(elementary.EXP)
log1p_series = polynomial(elementary.LOG1P)


class Peak(NamedTuple):
    """A row's largest logit, and with a softcap what its gaps need; see `capped_gap`."""

    x: Any
    tail: Any  # exp(−2·|x / T / κ|), two words
    lead: Any  # κ·tail / (1 + tail)
    slope: Any  # dz/dx at x, times T
    below_zero: Any


@device
def min_of(a, b):
    """The smaller of two numbers. (`min` does not compile in every version of Numba.)"""
    if b < a:
        return b
    return a


@device
def has_softcap(params):
    """Known when a kernel is compiled, so that those without a softcap have none of its code."""
    return len(params.capped) > 0


@device
def usable_logit(x, params):
    """A logit, or with a softcap the largest that has another tanh."""
    if has_softcap(params):
        if x > params.limit:
            return params.limit
        if x < -params.limit:
            return -params.limit
    return x


@device
def angle_of(x, params):
    """x / T / κ in two words."""
    high, low = divide_by(x, 0.0, params.temperature)
    return divide_by(high, low, params.softcap)


@device
def twice_below_zero(high, low):
    """−2·|high + low|."""
    if high < 0.0:
        return high + high, low + low
    return -(high + high), -(low + low)


@device
def slope_of(tail):
    """1 − tanh² = 4·tail / (1 + tail)², without cancellation."""
    below = add_pairs((1.0, 0.0), tail)
    high, low = divide(tail, multiply(below, below))
    return 4.0 * high, 4.0 * low


@device
def times_slope(value, x, params):
    """A number of two words times dz/dx at a logit, times the temperature."""
    high, low = twice_below_zero(*angle_of(x, params))
    if high > -2.0 * SATURATED:
        tail, _ = exp_and_rest((high, low))
        return multiply(value, slope_of(tail))
    if high > -4.0 * SATURATED:  # the slope is 4·tail, and may be below the normal numbers
        root, _ = exp_and_rest((0.5 * high, 0.5 * low))
        return multiply(multiply((4.0 * value[0], 4.0 * value[1]), root), root)
    return value[0] * 0.0, 0.0


@device
def peak_of(x, params):
    """The facts about a row's largest logit; 0 if that is −inf, for exp(−inf) = 0."""
    if x == -math.inf:
        x = 0.0
    zero = 0.0, 0.0
    if not has_softcap(params):
        return Peak(x, zero, zero, zero, 0.0)
    high, low = twice_below_zero(*angle_of(x, params))
    tail, _ = exp_and_rest((high, low))
    lead = divide(multiply(tail, (params.softcap, 0.0)), add_pairs((1.0, 0.0), tail))
    return Peak(x, tail, lead, slope_of(tail), 1.0 if x < 0.0 else 0.0)


@device
def gap_of(peak, x, params):
    """max z − z in two words; the second word of inf is 0."""
    high, low = difference(peak.x, x)
    by = params.temperature
    if by > 1.0 and high == math.inf:  # although the quotient may be finite
        high, low = difference(0.5 * peak.x, 0.5 * x)
        by = 0.5 * by
    if not high < math.inf:
        low = 0.0
    high, low = divide_by(high, low, by)
    if has_softcap(params):
        return capped_gap(peak, high, low, params)
    return high, low


@device
def capped_gap(peak, high, low, params):
    """κ·(tanh a − tanh(a − d)), where a is the angle of the largest logit, and d = gap / T / κ.

    With r = exp(−2d) and t = exp(−2·|a|) that is 2·κ·t/(1 + t)·(1 − r)/(t + r), and with 1 + t·r
    instead of t + r where a is negative: nothing cancels.
    """
    twice, lost = twice_below_zero(*divide_by(high, low, params.softcap))
    if twice > -LINEAR:
        return multiply((high, low), peak.slope)
    if twice < -2.2 * SATURATED:  # r no longer counts
        ratio, rest = (0.0, 0.0), (1.0, 0.0)
    else:
        ratio, rest = exp_and_rest((twice, lost))
    if peak.below_zero > 0.0:
        below = add_pairs((1.0, 0.0), multiply(peak.tail, ratio))
    elif ratio[0] > peak.tail[0]:
        below = add_pairs(ratio, peak.tail)
    else:
        below = add_pairs(peak.tail, ratio)
    share = divide((2.0 * rest[0], 2.0 * rest[1]), below)
    high, low = multiply(peak.lead, share)
    if not high < math.inf:
        return times(peak.lead[0], share[0]), 0.0
    return high, low


@device
def largest_z(peak, params):
    """max z in two words."""
    high, low = divide_by(peak.x, 0.0, params.temperature)
    if not has_softcap(params):
        return high, low
    twice, lost = twice_below_zero(*divide_by(high, low, params.softcap))
    if twice > -LINEAR:
        return high, low
    tail, rest = exp_and_rest((twice, lost))
    high, low = divide(rest, add_pairs((1.0, 0.0), tail))
    high, low = multiply((high, low), (params.softcap, 0.0))
    if peak.below_zero > 0.0:
        return -high, -low
    return high, low


@device
def exponential(gap, error):
    """exp(−gap − error)·2⁹⁶⁰, within 1 ULP, and its last rounding error.

    −gap − error = n·ln 2 + r, |r| ≤ ln 2 / 2, with the rounding error of r, and a minimax
    polynomial of (eʳ − 1 − r) / r². The library's exp takes no error of its argument.
    """
    if gap != gap:
        return gap, 0.0
    if not gap < MAX_GAP:
        return 0.0, 0.0
    biased = fma(gap, -PER_LN2, ROUND + SCALE_BITS)
    n = biased - (ROUND + SCALE_BITS)
    high = fma(n, -LN2_HIGH, -gap)
    low = fma(n, LN2_LOW, error)
    r = high - low
    t = exp_series(r)
    s = r + fma(r * r, t, (high - r) - low)
    e = 1.0 + s
    lost = times(s - (e - 1.0), times_power(1.0, biased))
    return times_power(e, biased), lost


@device
def log1p(x):
    """log(1 + x) for x ≥ 0, within 1 ULP; the library's has a little more.

    1 + x = 2ᵏ·(1 + f), √½ < 1 + f < √2, and log(1 + f) = f − f²/2 + s·(f²/2 + R(s²)) with
    s = f / (2 + f); the rounding error of 1 + x enters to first order. The polynomial R is that
    of FreeBSD's e_log.c.
    """
    if not x < math.inf:
        return x
    u, error = add(1.0, 0.0, x)
    fraction, k = fraction_and_power(u)
    if fraction < 0.7071067811865476:
        fraction, k = fraction * 2.0, k - 1.0
    f = fraction - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = log1p_series(z)
    half = f * f * 0.5
    rest = fma(s, fma(r, z, half), fma(k, LN2_LOW, error / u))
    return fma(k, LN2_HIGH, f - (half - rest))


@device
def exp_float32(x, reference, constants):
    """exp(x − reference)·2⁴⁸ of float32 numbers not more than 700 below, within 2⁻²⁸.

    Range reduction, and a minimax polynomial of eʳ for |r| ≤ ln 2 / 2 with the value 1 at 0.
    """
    gap = x - reference
    biased = fma(gap, constants.per_ln2, constants.round)
    r = fma(biased - constants.round, -constants.ln2, gap)
    e = fma(r, constants.c6, constants.c5)
    e = fma(e, r, constants.c4)
    e = fma(e, r, constants.c3)
    e = fma(e, r, constants.c2)
    e = fma(e, r, constants.c1)
    return times_power(fma(e, r, 1.0), biased)


@device
def mass(weight, q, params):
    """a of a class, without the one-hot part of an index target."""
    return times(weight, fma(q, params.kept, params.uniform))
