"""The entries of a row's gradient, for one row in scalars and for 16 rows in vectors.

The letters are those of `formulas`. Probabilities are the entries with F = 1/s.
"""

from __future__ import annotations

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
    power_of_two,
    select,
    select_max,
    select_min,
)
from xentcli.backends.elementary import ROUND

LARGE = 2.0**60  # factors between this and its inverse are multiplied as they are


class RowFactors(NamedTuple):
    """What the entries of a row's gradient are made of: F, and P."""

    high: Any
    low: Any
    before: Any  # a power of two that the exponentials are to be multiplied by before: mostly 1
    per_mass: Any


@inline_jit
def in_every_lane(array, factors):
    """The factors of one row as vectors, for an array of float64."""
    return RowFactors(
        constant_for(array, factors.high),
        constant_for(array, factors.low),
        constant_for(array, factors.before),
        constant_for(array, factors.per_mass),
    )


@inline_jit
def row_factors(row, scale, scalars, exact):
    """F and P of a row."""
    s, s_low = add(constant(row.b, 1.0), row.others_low * UNSCALE, row.others * UNSCALE)
    per_mass, one = divide(scale, scalars.temperature), constant(row.b, 1.0)
    if not exact:
        large, unit = less(one, absolute(row.b)), one * UNSCALE
        high = row.b * select(large, unit, one) * (per_mass * select(large, one, unit)) / s
        return RowFactors(high, constant(row.b, 0.0), one, per_mass)
    size = absolute(row.b * per_mass)
    far = less(one * LARGE, size), less(size, select(equal(size, one * 0.0), size, one / LARGE))
    usual = 1.0 / LARGE < scalars.temperature < LARGE
    if not usual or any_lane(far[0]) or any_lane(far[1]):
        return far_factors(row, scale, s, s_low, scalars, per_mass)
    above, above_low = product(row.b, scale)
    above_low = above_low + row.b_low * scale + above * scalars.scale_error
    below, below_low = product(s, one * scalars.temperature)
    below_low = below_low + s_low * scalars.temperature
    high, low = quotient(above, above_low, below, below_low)
    return RowFactors(high * UNSCALE, low * UNSCALE, one, per_mass)


@inline_jit
def far_factors(row, scale, s, s_low, scalars, per_mass):
    """The same where the factors may leave the range of float64 on the way."""
    b, b_power = normalized(row.b)
    b_low = row.b_low * power_of_two(ROUND - b_power, 0)
    u, u_power = normalized(scale)
    t, t_power = normalized(scalars.temperature)
    above, above_low = product(b, u)
    above_low = above_low + b_low * u + above * scalars.scale_error
    below, below_low = product(s, constant(s, t))
    high, low = quotient(above, above_low, below, below_low + s_low * t)
    power = b_power + u_power - (t_power + float(SCALE_BITS))
    # A power of two that float64 cannot represent is multiplied in two steps.
    zero, most, least = power * 0.0, constant(power, 1000.0), constant(power, -1000.0)
    before = select_max(select_min(floor(power * 0.5), most * 0.1), least)
    near = less(absolute(power + float(SCALE_BITS)), most * 0.06)
    before = select(equal(high, zero), zero, select(near, zero, before))
    after = select_max(select_min(power - before, most), least)
    unit = power_of_two(after + ROUND, 0)
    # So large a factor may overflow, and e·low would be infinite with the other sign.
    huge = less(most - float(SCALE_BITS), power)
    low = select(huge, zero, low)
    return RowFactors(high * unit, low * unit, power_of_two(before + ROUND, 0), per_mass)


@inline_jit
def probability_factors(others, others_low, exact):
    """What exponentials are multiplied by to become probabilities."""
    one = constant(others, 1.0)
    s, s_low = add(one, others_low * UNSCALE, others * UNSCALE)
    if not exact:
        return RowFactors(1.0 / s * UNSCALE, constant(s, 0.0), one, one)
    high, low = quotient(one, constant(s, 0.0), s, s_low)
    return RowFactors(high * UNSCALE, low * UNSCALE, one, one)


@inline_jit
def entries(e, factors, exact):
    """F·e, for exponentials that were multiplied by `before`."""
    if exact:
        return fma(e, factors.high, e * factors.low)
    return e * factors.high


@inline_jit
def entries_with_masses(e, a, factors, exact):
    """F·e − P·a, for exponentials that were multiplied by `before`."""
    minus = a * (0.0 - factors.per_mass)
    if exact:
        minus = fma(e, factors.low, minus)
    return fma(e, factors.high, minus)


@inline_jit
def entry_of_target(e, is_max, row, factors, exact):
    """−F·(s − e), the entry of an index target without label smoothing and z-loss."""
    high, low = add(constant(e, ONE), row.others_low, row.others)
    high, low = add(high, low, 0.0 - e)
    high = select(is_max, row.others, high) * factors.before
    if exact:
        low = select(is_max, row.others_low, low) * factors.before
        return 0.0 - fma(high, factors.high, fma(high, factors.low, low * factors.high))
    return 0.0 - high * factors.high


@inline_jit
def entry_with_mass(e, a, is_max, row, factors, exact):
    """P·(B·p − a) of one class, in the form that cancels less."""
    e, others = e * factors.before, row.others * factors.before
    above = row.rest * factors.per_mass
    of_max = fma(0.0 - others, factors.high, above - others * factors.low)
    sizes = absolute(above) + absolute(others * factors.high)
    better = less(sizes, absolute(e * factors.high) + absolute(a * factors.per_mass))
    usual = entries_with_masses(e, a, factors, exact)
    return select(is_max, select(better, of_max, usual), usual)
