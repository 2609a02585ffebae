"""The formulas of a row, for one row in scalars and for 16 rows in vectors.

    d_c    = max z − z_c ≥ 0,  e_c = exp(−d_c),  s = Σ e_c,  others = s − 1
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C),  A = Σ a_c
    loss   = A·log1p(others) + Σ a_c·d_c + λ·lse²,   lse = max z + log1p(others)
    grad_c = F·e_c − P·a_c,   F = P·B/s,  P = scale/T,  B = A + 2·λ·lse

The largest e is exactly 1, so `others` keeps its digits where the softmax is nearly one-hot. There
F·e − P·a cancels for the largest logit, and is computed as P·(B − a) − F·others, where B − a is the
sum of the other classes' masses. a_c is called the mass of a class. For an index target alone
(A = B = a_y) the target's entry is −F·(s − e_y), of which nothing cancels.

Exponentials and their sums are multiplied by 2⁶⁰⁰ throughout, F is divided by it. Where results are
float64 (`exact`), d, others, F and log1p have two words, so that an entry is rounded twice: in e and
at the end. Otherwise the second words are 0, and cost nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import (
    add,
    difference,
    fast_add,
    inline_jit,
    log1p,
    normalized,
    product,
    quotient,
)
from xentcli.backends.cpu.exponential import ONE, SCALE_BITS, UNSCALE, tanh_and_slope
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


class Masses(NamedTuple):
    """The sum of a_c in parts."""

    hot: Any  # the one-hot part of an index target's class: weight·(1 − label_smoothing)
    of_max: Any  # a_c of the largest logit, without `hot`
    rest: Any  # Σ a_c of the others, without `hot`
    max_is_target: Any


class RowSums(NamedTuple):
    """The sums over all classes that the gradient of each class needs."""

    others: Any
    others_low: Any
    rest: Any  # B − a of the largest logit
    b: Any  # B


class RowFactors(NamedTuple):
    """What the entries of a row's gradient are made of: F, and P."""

    high: Any
    low: Any
    before: Any  # a power of two that the exponentials are to be multiplied by before: mostly 1
    per_mass: Any


@inline_jit
def capped(x, scalars, exact):
    """z in two words, still to be divided by `divisor`, and dz/dx times the temperature.

    A softcap includes the temperature. Only with one are there second words.
    """
    zero = constant(x, 0.0)
    if scalars.softcap < math.inf:
        by, by_low = product(scalars.temperature, scalars.softcap)
        angle, angle_low = x / by, zero
        if exact:
            far = less(constant(x, 400.0), absolute(angle))
            rest = fma(angle, constant(x, -by), x) - angle * by_low
            angle_low = select(far, zero, rest * (1.0 / by))
        high, low, slope = tanh_and_slope(angle, angle_low, exact)
        z, z_low = high * scalars.softcap, zero
        if exact:
            z_low = fma(high, constant(x, scalars.softcap), 0.0 - z) + low * scalars.softcap
        return z, z_low, slope
    return x, zero, constant(x, 1.0)


@inline_jit
def divisor(scalars):
    """The temperature, or 1 with a softcap."""
    return 1.0 if scalars.softcap < math.inf else scalars.temperature


@inline_jit
def divide(value, by):
    """A quotient, without a division by 1."""
    if by == 1.0:
        return value
    return value / by


@inline_jit
def gap_below(peak, peak_low, z, z_low, scalars, exact):
    """d of a class, a rounded number and its error; the error of inf is 0.

    A difference of float32 logits is exact enough in float64 without an error.
    """
    zero = constant(z, 0.0)
    if not exact:
        return divide(peak - z, divisor(scalars)), zero
    high, low = difference(peak, z)
    if scalars.softcap < math.inf:
        low = low + (peak_low - z_low)
    elif scalars.temperature != 1.0:
        # Where the difference may overflow, half of it is taken.
        large = less(constant(z, 2.0**900), absolute(peak))
        part = select(large, constant(z, 0.5), constant(z, 1.0))
        inverse = select(large, constant(z, 2.0), constant(z, 1.0))
        inverse = inverse * min(1.0 / scalars.temperature, 2.0**1000)
        high, low = difference(peak * part, z * part)
        by = part * scalars.temperature
        ratio = high / by
        low = (fma(ratio, 0.0 - by, high) + low) * inverse
        high = ratio
    return high, select(less(absolute(high), constant(z, math.inf)), low, zero)


@inline_jit
def mass(weight, q, scalars, uniform):
    """a of a class, without the one-hot part of an index target."""
    if q is None:
        return weight * uniform
    return weight * (q * (1.0 - scalars.label_smoothing) + uniform)


@inline_jit
def mass_times_gap(a, gap):
    """a·d of a class; 0 where the mass is 0, even if the gap is infinite."""
    zero = constant(a, 0.0)
    return select(equal(a, zero), zero, a * gap)


@inline_jit
def finite_or_zero(value, other):
    """A value where `other` is finite, else 0: the error of a sum that overflowed."""
    return select(less(absolute(other), constant(other, math.inf)), value, constant(value, 0.0))


@inline_jit
def add_gap(gaps, hot, gap, error, exact):
    """Σ a_c·d_c of an index target in two words: what all classes add, and its one-hot part."""
    high = mass_times_gap(hot, gap)
    if not exact:
        return gaps + high, constant(gap, 0.0)
    low = finite_or_zero(fma(hot, gap, 0.0 - high) + hot * error, gap)
    total, low = add(gaps, low, high)
    return total, finite_or_zero(low, total)


@inline_jit
def total_of(ones, high, low, exact):
    """The sum of all exponentials but one largest, in two words."""
    if exact:
        high, low = add(ones - ONE, low, high)
        return fast_add(high, low)
    return (ones - ONE) + (high + low), constant(low, 0.0)


@inline_jit
def log_of_sum(others, others_low, exact):
    """log(1 + others) in two words, and the power of two that they are still to be multiplied by.

    So small a sum that it is its own logarithm may be below the smallest float64.
    """
    high, low = log1p(others * UNSCALE, others_low * UNSCALE)
    unit = constant(others, 1.0)
    if exact:
        small = less(others, constant(others, ONE * 2.0**-60))
        high, low = select(small, others, high), select(small, others_low, low)
        unit = select(small, constant(others, UNSCALE), unit)
    return high, low, unit


@inline_jit
def loss_of(a, log_s, distance, exact):
    """A·log s + Σ a_c·d_c, rounded once if `exact`."""
    high, low, unit = log_s
    if not exact:
        return a * high + distance[0]
    # The power of two goes where the product can neither overflow nor underflow.
    large = less(constant(a, 1.0), absolute(a))
    one = constant(a, 1.0)
    a, unit = a * select(large, unit, one), select(large, one, unit)
    high, rest = product(a, high)
    high, rest = fast_add(high, rest + a * low)
    total, rest = add(high * unit, rest * unit + distance[1], distance[0])
    return total + finite_or_zero(rest, total)


@inline_jit
def finish_row(limit, others, masses, distance, scalars, exact):
    """Loss, log-sum-exp and the gradient's sums; NaN where the largest z is not finite."""
    finite = less(absolute(limit), constant(limit, math.inf))
    sum_, sum_low = select(finite, others[0], constant(limit, math.nan)), others[1]
    log_s = log_of_sum(sum_, sum_low, exact)
    lse = limit + log_s[0] * log_s[2]
    a = masses.rest + masses.of_max + masses.hot
    loss = loss_of(a, log_s, distance, exact)
    extra = constant(lse, 0.0)
    if scalars.z_loss != 0.0:
        loss = loss + lse * scalars.z_loss * lse
        extra = lse * (2.0 * scalars.z_loss)
    hot_elsewhere = select(masses.max_is_target, constant(lse, 0.0), masses.hot)
    rest = masses.rest + hot_elsewhere + extra
    return loss + 0.0, lse, RowSums(sum_, sum_low, rest, a + extra)


@inline_jit
def row_factors(row, scale, scalars, exact):
    """F and P of a row."""
    s, s_low = add(constant(row.b, 1.0), row.others_low * UNSCALE, row.others * UNSCALE)
    per_mass, one = divide(scale, scalars.temperature), constant(row.b, 1.0)
    if not exact:
        large, unit = less(one, absolute(row.b)), one * UNSCALE
        high = row.b * select(large, unit, one) * (per_mass * select(large, one, unit)) / s
        return RowFactors(high, constant(row.b, 0.0), one, per_mass)
    b, b_power = normalized(row.b)
    u, u_power = normalized(scale)
    t, t_power = normalized(scalars.temperature)
    above, above_low = product(b, u)
    below, below_low = product(s, constant(s, t))
    high, low = quotient(above, above_low, below, below_low + s_low * t)
    power = b_power + u_power - (t_power + float(SCALE_BITS))
    # A power of two that float64 cannot represent is multiplied in two steps.
    zero, most, least = power * 0.0, constant(power, 1000.0), constant(power, -1000.0)
    before = select_max(select_min(floor(power * 0.5), most * 0.4), least)
    near = less(absolute(power + float(SCALE_BITS)), most * 0.25)
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
def log_probability(gap, error, log_s, log_s_low, exact):
    """−d − log s."""
    if not exact:
        return 0.0 - (gap + log_s)
    total, rest = add(gap, error + log_s_low, log_s)
    return 0.0 - (total + finite_or_zero(rest, total))


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
