"""The entries of a row's gradient, for one row in scalars and for 16 rows in vectors.

The letters are those of `formulas`. Probabilities are the entries with F = 1/s.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import (
    add,
    any_lane,
    inline_jit,
    normalized,
    product,
    quotient,
)
from xentcli.backends.cpu.exponential import ONE, SCALE_BITS, UNSCALE
from xentcli.backends.cpu.formulas import divide
from xentcli.backends.cpu.half_types import constant_for
from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    equal,
    floor,
    fma,
    less,
    less_equal_or_nan,
    power_of_two,
    select,
    select_max,
    select_min,
)
from xentcli.backends.cpu.softcap import times_slope
from xentcli.backends.elementary import ROUND

LARGE = 2.0**60  # factors between this and its inverse are multiplied as they are
MOST = 1.0  # F, which is divided by 2⁹⁰⁰, of results that have fewer bits


class RowFactors(NamedTuple):
    """What the entries of a row's gradient are made of: F, and P."""

    high: Any
    low: Any
    before: Any  # a power of two that the exponentials are to be multiplied by before: mostly 1
    per_mass: Any
    unit: Any  # with masses or z-loss, what entries are to be multiplied by after: mostly 1


@inline_jit
def in_every_lane(array, factors):
    """The factors of one row as vectors, for an array of float64."""
    return RowFactors(
        constant_for(array, factors.high),
        constant_for(array, factors.low),
        constant_for(array, factors.before),
        constant_for(array, factors.per_mass),
        constant_for(array, factors.unit),
    )


@inline_jit
def row_factors(row, scale, scalars, masses, exact):
    """F and P of a row. How they are computed depends on no other row.

    `masses`: whether all entries have masses, and not only that of a target.
    """
    one = constant(row.b, 1.0)
    s, s_low = add(one, row.others_low * UNSCALE, row.others * UNSCALE)
    per_mass = divide(scale, scalars.temperature)
    usual = 1.0 / LARGE < scalars.temperature < LARGE
    if not exact:
        large, unit = less(one, absolute(row.b)), one * UNSCALE
        high = row.b * select(large, unit, one) * (per_mass * select(large, one, unit)) / s
        found = RowFactors(high, one * 0.0, one, per_mass, one)
        far = less_equal_or_nan(one * MOST, absolute(high))
        if usual and not any_lane(far):
            return found
        other = far_factors(row, scale, (s, s_low), scalars, masses)
        far = less_equal_or_nan(one * select(usual, MOST, -1.0), absolute(high))
        return RowFactors(
            select(far, other.high, found.high),
            found.low,
            select(far, other.before, one),
            select(far, other.per_mass, per_mass),
            select(far, other.unit, one),
        )
    size, most = absolute(row.b * per_mass), absolute(per_mass) * select_max(absolute(row.b), one)
    small = less(size, select(equal(size, one * 0.0), size, one / LARGE))
    if not usual or any_lane(less(one * LARGE, most)) or any_lane(small):
        return far_factors(row, scale, (s, s_low), scalars, masses)
    above, above_low = product(row.b, scale)
    above_low = above_low + row.b_low * scale + above * scalars.scale_error
    below, below_low = product(s, one * scalars.temperature)
    below_low = below_low + s_low * scalars.temperature
    high, low = quotient(above, above_low, below, below_low)
    return RowFactors(high * UNSCALE, low * UNSCALE, one, per_mass, one)


@inline_jit
def far_factors(row, scale, s, scalars, masses):
    """The same where the factors may leave the range of float64 on the way."""
    b, b_power = normalized(row.b)
    b_low = row.b_low * power_of_two(ROUND - b_power, 0)
    u, u_power = normalized(scale)
    t, t_power = normalized(scalars.temperature)
    above, above_low = product(b, u)
    above_low = above_low + b_low * u + above * scalars.scale_error
    below, below_low = product(s[0], constant(scale, t))
    high, low = quotient(above, above_low, below, below_low + s[1] * t)
    # Powers of two that float64 cannot represent are multiplied in two steps, and what would
    # overflow in a term, although a difference of two terms may not, comes last.
    mass_power = u_power - t_power
    zero, power = b_power * 0.0, mass_power + b_power
    last = zero
    if masses or scalars.z_loss > 0.0:
        most, least = select_max(mass_power, power), select_min(mass_power, power)
        last = within_range(select_max(most, zero + 1000.0) + select_min(least, zero - 1000.0))
    huge = less(zero + 1000.0, power)
    power = power - last
    near = less(absolute(power), zero + 60.0)
    power = power - float(SCALE_BITS)
    before = select(near, zero, within_range(floor(power * 0.5)))
    before = select(equal(high, zero), zero, before)
    unit = power_of_two(within_range(power - before) + ROUND, 0)
    same, mass_power = same_sign(high, low), mass_power - last
    per_mass = u / t * power_of_two(within_range(mass_power) + ROUND, 0)
    return RowFactors(
        select(huge, same[0], high) * unit,
        select(huge, same[1], low) * unit,
        power_of_two(before + ROUND, 0),
        select(less(mass_power, zero - 1010.0), zero, per_mass),
        power_of_two(last + ROUND, 0),
    )


@inline_jit
def within_range(power):
    """The exponent of a power of two that float64 can represent, with room for a factor."""
    most = constant(power, 1010.0)
    return select_max(select_min(power, most), 0.0 - most)


@inline_jit
def same_sign(high, low):
    """The same sum of two numbers of one sign: where both overflow in a product, so does the sum
    of the products, instead of being NaN."""
    before = high - high * 2.0**-52
    opposite = less(low * high, absolute(high) * 2.0**-1000)
    return select(opposite, before, high), select(opposite, low + (high - before), low)


@inline_jit
def probability_factors(others, others_low, exact):
    """What exponentials are multiplied by to become probabilities."""
    one = constant(others, 1.0)
    s, s_low = add(one, others_low * UNSCALE, others * UNSCALE)
    if not exact:
        return RowFactors(1.0 / s * UNSCALE, constant(s, 0.0), one, one, one)
    high, low = quotient(one, constant(s, 0.0), s, s_low)
    return RowFactors(high * UNSCALE, low * UNSCALE, one, one, one)


@inline_jit
def entries(e, factors, exact):
    """F·e, for exponentials that were multiplied by `before`."""
    if exact:
        return fma(e, factors.high, e * factors.low)
    return e * factors.high


@inline_jit
def entries_with_masses(e, pull, factors, exact):
    """F·e − P·a, for exponentials that were multiplied by `before`; `pull` is P·a."""
    minus = 0.0 - pull
    if exact:
        minus = fma(e, factors.low, minus)
    return fma(e, factors.high, minus) * factors.unit


@inline_jit
def entry_of_target(e, is_max, row, factors, slope, exact):
    """−F·(s − e) times the slope, the entry of an index target without label smoothing and z-loss.

    Here and below the slope is multiplied by 2⁵⁰⁰.
    """
    high, low = add(constant(e, ONE), row.others_low, row.others)
    high, low = add(high, low, 0.0 - e)
    high = times_slope(select(is_max, row.others, high), slope) * factors.before
    rough = high * factors.high
    if not exact:
        return 0.0 - rough
    low = times_slope(select(is_max, row.others_low, low), slope) * factors.before
    fine = fma(high, factors.high, fma(high, factors.low, low * factors.high))
    return 0.0 - select(less(absolute(rough), constant(e, math.inf)), fine, rough)


@inline_jit
def entry_with_mass(e, a, is_max, row, factors, slope, exact):
    """P·(B·p − a) of one class times its slope, in the form that cancels less."""
    e, others = times_slope(e, slope), times_slope(row.others, slope)
    e, others = e * factors.before, others * factors.before
    above, pull = row.rest * factors.per_mass, a * factors.per_mass
    above, pull = times_slope(above, slope), times_slope(pull, slope)
    of_max = fma(0.0 - others, factors.high, above - others * factors.low)
    sizes = absolute(above) + absolute(others * factors.high)
    better = less(sizes, absolute(e * factors.high) + absolute(pull))
    usual = entries_with_masses(e, pull, factors, exact)
    return select(is_max, select(better, of_max * factors.unit, usual), usual)
