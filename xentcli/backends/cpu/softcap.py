"""The softcap, z = κ·tanh(x / (T·κ)): gaps below the largest z, and slopes dz/dx.

A difference of two z would lose the digits that the logits have in common. So gaps come from
differences of logits. With t = exp(−2·|a|) of the largest angle a = x / (T·κ), and
r = exp(−2·(a − b)) of another angle b, or r = exp(−2·|b|) where a and b have opposite signs,

    gap   = 2·κ/(1 + t)·N/D
    slope = 4·W/D²

                          N                  D          W
    0 ≤ b ≤ a             t·(1 − r)          t + r      t·r
    b ≤ a < 0             t·(1 − r)          1 + t·r    t·r
    b < 0 ≤ a             1 − t + t·(1 − r)  1 + r      r

Nothing cancels. t, r, N and D are multiplied by 2⁵⁰⁰, and so is the slope. T·κ is a number near 1
and a power of two, which logits are divided by first: it may be far out of the range of float64.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import (
    add,
    difference,
    fast_add,
    inline_jit,
    normalized,
    product,
    quotient,
)
from xentcli.backends.cpu.exponential import (
    LN2,
    SLOPE_BITS,
    SLOPE_ONE,
    SLOPE_UNIT,
    exp_and_expm1,
    exp_and_expm1_in_two_words,
    expm1_45,
    short_range,
)
from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    copysign,
    equal,
    floor,
    fma,
    less,
    power_of_two,
    select,
    select_max,
    select_min,
)
from xentcli.backends.elementary import ROUND

LIMIT = 480.0  # from this angle on tanh is 1, and its slope 0: the next one would be 10⁻⁴¹⁷
ANGLE_OF_1 = (SLOPE_BITS + 1023) * LN2  # twice such an angle: exp(−it) has the bits of 0


class Angles(NamedTuple):
    """What logits are divided by to become angles."""

    first: Any  # two powers of two that they are multiplied by
    second: Any
    by: Any
    by_low: Any


class Peak(NamedTuple):
    """The largest logit of a row, and with a softcap what the gaps of the others need."""

    x: Any  # with a softcap in the units of `Angles.by`
    z: Any  # still to be divided by the temperature if there is no softcap
    z_low: Any
    tail: Any  # t
    tail_low: Any
    rest: Any  # 1 − t
    rest_low: Any
    lead: Any  # κ / (1 + t)
    lead_low: Any
    negative: Any
    angles: Any


@inline_jit
def plain_peak(x):
    """The largest logit where there is no softcap."""
    zero = constant(x, 0.0)
    angles = Angles(zero, zero, zero, zero)
    return Peak(x, x, zero, zero, zero, zero, zero, zero, zero, less(x, x), angles)


@inline_jit
def angles_of(like, scalars):
    """T·κ as two words and powers of two."""
    t, t_power = normalized(constant(like, scalars.temperature))
    cap, cap_power = normalized(constant(like, scalars.softcap))
    by, by_low = product(t, cap)
    power = 0.0 - (t_power + cap_power)
    first = floor(power * 0.5)
    second = power - first
    return Angles(power_of_two(first + ROUND, 0), power_of_two(second + ROUND, 0), by, by_low)


@inline_jit
def in_units(x, angles):
    """Logits in the units of `angles.by`, at most `LIMIT` angles from 0; NaN of NaN."""
    limit = angles.by * LIMIT
    return select_max(0.0 - limit, select_min(limit, x * angles.first * angles.second))


@inline_jit
def exp_of_angle(x, x_low, angles, exact):
    """exp(−2·x / by)·2⁵⁰⁰, and 1 − exp(−2·x / by), for x ≥ 0."""
    zero = constant(x, 0.0)
    if not exact:
        e, m = exp_and_expm1(x * (2.0 / angles.by))
        return e, zero, m, zero
    high, low = quotient(x, x_low, angles.by, angles.by_low)
    return exp_and_expm1_in_two_words(high * 2.0, low * 2.0)


@inline_jit
def times(a, a_low, b, b_low, exact):
    """A product in two words."""
    if not exact:
        return a * b, a_low
    high, low = product(a, b)
    return high, low + (a * b_low + a_low * b)


@inline_jit
def capped_peak(x, scalars, exact):
    """The largest logit under a softcap; z is NaN of NaN."""
    angles = angles_of(x, scalars)
    y = in_units(x, angles)
    zero, one, cap = constant(x, 0.0), constant(x, 1.0), constant(x, scalars.softcap)
    t, t_low, rest, rest_low = exp_of_angle(absolute(y), zero, angles, exact)
    below, below_low = fast_add(one, t * SLOPE_UNIT)
    if exact:
        lead, lead_low = quotient(cap, zero, below, below_low + t_low * SLOPE_UNIT)
    else:
        lead, lead_low = cap / below, zero
    z, z_low = times(lead, lead_low, rest, rest_low, exact)
    negative = less(y, zero)
    z, z_low = select(negative, 0.0 - z, z), select(negative, 0.0 - z_low, z_low)
    z = select(equal(x, x), z, x)
    return Peak(y, z, z_low, t, t_low, rest, rest_low, lead, lead_low, negative, angles)


@inline_jit
def capped_gap(peak, x, exact):
    """max z − z in two words, and the slope times 2⁵⁰⁰ and the temperature."""
    y, zero = in_units(x, peak.angles), constant(x, 0.0)
    one, unit = constant(x, 1.0), constant(x, SLOPE_ONE)
    opposite = less(y, select(peak.negative, constant(x, -math.inf), zero))
    if exact:
        gap, error = difference(peak.x, y)
        error = select(opposite, zero, error)
    else:
        gap, error = peak.x - y, zero
    gap = select(opposite, 0.0 - y, gap)
    r, r_low, m, m_low = exp_of_angle(gap, error, peak.angles, exact)
    first = select(opposite, unit, select(peak.negative, unit, peak.tail))
    first_low = select(equal(first, unit), zero, peak.tail_low)
    more = select(peak.negative, peak.tail * SLOPE_UNIT, one)
    more_low = select(peak.negative, peak.tail_low * SLOPE_UNIT, zero)
    below, below_low = times(r, r_low, more, more_low, exact)
    above, above_low = times(peak.tail, peak.tail_low, m, m_low, exact)
    start = select(opposite, peak.rest * SLOPE_ONE, zero)
    w, w_low = select(opposite, unit, peak.tail) * SLOPE_ONE, zero
    if exact:
        below, below_low = add(below, below_low + first_low, first)
        start_low = select(opposite, peak.rest_low * SLOPE_ONE, zero)
        above, above_low = add(above, above_low + start_low, start)
        w_low = select(opposite, zero, peak.tail_low) * SLOPE_ONE
    else:
        below, above = below + first, above + start
    inverse = 1.0 / below
    share, share_low, off = above * inverse, zero, zero
    if exact:
        off = fma(inverse, 0.0 - below, one) - inverse * below_low
        share_low = fma(share, 0.0 - below, above) + (above_low - share * below_low)
        share_low = share_low * inverse
    gap, error = times(peak.lead, peak.lead_low, share * 2.0, share_low * 2.0, exact)
    slope, slope_low = times(inverse, inverse * off, w, w_low, exact)
    slope, slope_low = times(slope, slope_low, r, r_low, exact)
    if exact:
        slope = fma(slope, inverse, (slope_low + slope * off) * inverse)
    else:
        slope = slope * inverse
    near = less(absolute(y), peak.angles.by * LIMIT)
    return gap, error, select(near, slope * 4.0, zero)


@inline_jit
def times_slope(value, slope):
    """A number times a slope that was multiplied by 2⁵⁰⁰, where neither leaves the range."""
    small = less(slope, constant(slope, SLOPE_UNIT))
    one, unit = constant(slope, 1.0), constant(slope, SLOPE_UNIT)
    return value * select(small, unit, one) * (slope * select(small, one, unit))


class Cap(NamedTuple):
    """What z of a logit takes where results have the digits of float32."""

    rate: Any  # 2 / (T·κ)
    half: Any  # κ / 2
    z: Any  # of the largest logit


@inline_jit
def is_usual(scalars):
    """Whether gaps may be differences of z, of which the error is 2⁻⁴⁷·κ."""
    near = 2.0**-100 < scalars.softcap < 2.0**16
    return near and 2.0**-100 < scalars.temperature < 2.0**100


@inline_jit
def cap_of(x, scalars):
    """The same for a row whose largest logit is x."""
    rate = constant(x, 2.0 / (scalars.softcap * scalars.temperature))
    found = Cap(rate, constant(x, 0.5 * scalars.softcap), rate)
    return Cap(found.rate, found.half, capped(x, found)[0])


@inline_jit
def cap_stage1(x, cap):
    """The first stage of `capped`: r and a power of two, 0 where tanh is 1."""
    return short_range(select_min(constant(x, ANGLE_OF_1), absolute(x) * cap.rate), SLOPE_BITS)


@inline_jit
def cap_stage2(parts, x, cap):
    """The second stage."""
    r, power = parts
    u = fma(power, expm1_45(r), power)
    m = fma(u, constant(u, 0.0 - SLOPE_UNIT), constant(u, 1.0))
    inverse = 2.0 / (2.0 - m)
    return copysign(cap.half * (m * inverse), x), u * (inverse * inverse)


@inline_jit
def capped(x, cap):
    """z = κ·tanh(x / (T·κ)), and its slope times 2⁵⁰⁰ and the temperature; NaN of NaN.

    With u = exp(−2·|x| / (T·κ)), tanh = (1 − u) / (1 + u), and the slope is 4·u / (1 + u)².
    """
    return cap_stage2(cap_stage1(x, cap), x, cap)


@inline_jit
def times_usual_slope(e, slope):
    """An exponential that was multiplied by 2⁹⁰⁰ times a slope that was by 2⁵⁰⁰, where `is_usual`:
    what underflows is 0 as a float32 whatever it is multiplied by."""
    return e * SLOPE_UNIT * slope
