"""The formulas of a row, for one row in scalars and for 16 rows in vectors.

    d_c    = max z − z_c ≥ 0,  e_c = exp(−d_c),  s = Σ e_c,  others = s − 1
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C),  A = Σ a_c
    loss   = A·log1p(others) + Σ a_c·d_c + λ·lse²,   lse = max z + log1p(others)
    grad_c = F·e_c − P·a_c,   F = P·B/s,  P = scale/T,  B = A + 2·λ·lse

The largest e is exactly 1, so `others` keeps its digits where the softmax is nearly one-hot. There
F·e − P·a cancels for the largest logit, and is computed as P·(B − a) − F·others, where B − a is the
sum of the other classes' masses. a_c is called the mass of a class. For an index target alone
(A = B = a_y) the target's entry is −F·(s − e_y), of which nothing cancels.

Exponentials and their sums are multiplied by 2⁹⁰⁰ throughout, F is divided by it. Where results
are float64 (`exact`), d, others, F and log1p have two words, so that an entry is rounded twice: in
e and at the end. Otherwise the second words are 0, and cost nothing.

Here is what leads to losses; F, P and the entries are in `gradient_formulas`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import (
    add,
    any_lane,
    difference,
    fast_add,
    inline_jit,
    log1p,
    normalized,
    product,
)
from xentcli.backends.cpu.exponential import ONE, UNSCALE
from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    equal,
    fma,
    less,
    power_of_two,
    select,
)
from xentcli.backends.cpu.softcap import capped_gap, capped_peak, plain_peak
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
    b_low: Any


@inline_jit
def peak_of(x, scalars, exact):
    """What the gaps of a row come from: its largest logit."""
    if scalars.softcap < math.inf:
        return capped_peak(x, scalars, exact)
    return plain_peak(x)


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
def gap_below(peak, x, scalars, exact):
    """d of a class, a rounded number and its error, and its slope dz/dx·T·2⁵⁰⁰.

    The error of inf is 0. Only with a softcap is there a slope.
    """
    if scalars.softcap < math.inf:
        high, low, slope = capped_gap(peak, x, exact)
    else:
        high, low = gap_over(peak.x, x, scalars, exact)
        slope = constant(x, 0.0)
    return high, finite_or_zero(low, high), slope


@inline_jit
def gap_over(peak, x, scalars, exact):
    """The same without a softcap.

    A difference of float32 logits is exact enough in float64 without an error.
    """
    if not exact:
        if 2.0**-900 < scalars.temperature < 2.0**900:
            return (peak - x) * (1.0 / scalars.temperature), constant(x, 0.0)
        return (peak - x) / scalars.temperature, constant(x, 0.0)
    high, low = difference(peak, x)
    if scalars.temperature != 1.0:
        # Where the difference may overflow, half of it is taken. T is t·2ᵏ: a quotient by T itself
        # has no error that float64 can represent where the numbers are small.
        t, k = normalized(scalars.temperature)
        large = less(constant(x, 2.0**900), absolute(peak))
        part = select(large, constant(x, 0.5), constant(x, 1.0))
        unit = select(large, constant(x, 2.0), constant(x, 1.0))
        high, low = difference(peak * part, x * part)
        scale = power_of_two(ROUND - k, 0)
        high, low = high * scale * unit, low * scale * unit
        ratio = high / t
        low = (fma(ratio, constant(x, 0.0 - t), high) + low) * (1.0 / t)
        high = ratio
    return high, low


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
def hot_gap(hot, gap, error, exact):
    """a·d of the one-hot part of an index target, in two words."""
    high = mass_times_gap(hot, gap)
    if not exact:
        return high, constant(gap, 0.0)
    return high, finite_or_zero(fma(hot, gap, 0.0 - high) + hot * error, gap)


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
    one = constant(a, 1.0)
    if any_lane(less(unit, one)):
        # The power of two goes where the product can neither overflow nor underflow.
        large = less(one, absolute(a))
        a, unit = a * select(large, unit, one), select(large, one, unit)
    high, rest = product(a, high)
    total, rest = add(high * unit, (rest + a * low) * unit + distance[1], distance[0])
    return total + finite_or_zero(rest, total)


@inline_jit
def largest(high, low, scalars, exact):
    """max z in two words, from that of `Peak`."""
    limit = divide(high, divisor(scalars))
    if exact and scalars.temperature != 1.0 and scalars.softcap == math.inf:
        by = constant(high, 0.0 - scalars.temperature)
        low = finite_or_zero(fma(limit, by, high) / scalars.temperature, limit)
    return limit, low


@inline_jit
def z_terms(limit, log_s, z_loss, exact):
    """λ·lse², and its derivative by lse in two words."""
    high, low = add(limit[0], limit[1] + log_s[1] * log_s[2], log_s[0] * log_s[2])
    if not exact:
        return high * z_loss * high, high * (2.0 * z_loss), constant(high, 0.0)
    square, rest = product(high, high)
    rest = finite_or_zero(rest + high * low * 2.0, square)
    slope, slope_low = product(high, constant(high, 2.0 * z_loss))
    slope_low = slope_low + low * (2.0 * z_loss)
    rest = finite_or_zero(rest * z_loss, square * z_loss)
    return fma(square, constant(high, z_loss), rest), slope, slope_low


@inline_jit
def finish_row(limit, others, masses, distance, scalars, exact):
    """Loss, log-sum-exp and the gradient's sums; NaN where the largest z is not finite."""
    finite = less(absolute(limit[0]), constant(limit[0], math.inf))
    sum_, sum_low = select(finite, others[0], constant(others[0], math.nan)), others[1]
    log_s = log_of_sum(sum_, sum_low, exact)
    a = masses.rest + masses.of_max + masses.hot
    loss, lse = loss_of(a, log_s, distance, exact), limit[0] + log_s[0] * log_s[2]
    zero = constant(lse, 0.0)
    rest, b, b_low = masses.rest + select(masses.max_is_target, zero, masses.hot), a, zero
    if scalars.z_loss != 0.0:
        term, extra, extra_low = z_terms(limit, log_s, scalars.z_loss, exact)
        loss, rest = loss + term, rest + extra
        b, b_low = add(a, extra_low, extra)
    return loss + 0.0, lse, RowSums(sum_, sum_low, rest, b, b_low)


@inline_jit
def log_probability(gap, error, log_s, log_s_low, exact):
    """−d − log s."""
    if not exact:
        return 0.0 - (gap + log_s)
    total, rest = add(gap, error + log_s_low, log_s)
    return 0.0 - (total + finite_or_zero(rest, total))
