"""The formulas of a row, for one row in scalars and for 16 rows in vectors.

    d_c    = max z − z_c ≥ 0,  e_c = exp(−d_c),  s = Σ e_c,  others = s − 1
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C),  A = Σ a_c
    loss   = A·log1p(others) + Σ a_c·d_c + λ·lse²,   lse = max z + log1p(others)
    grad_c = B·e_c/s − a_c,   B = A + 2·λ·lse

The largest e is exactly 1, so `others` keeps its digits where the softmax is nearly one-hot. There
B·p − a cancels for the largest logit, and is computed as (B − a) − B·others/s, where B − a is the
sum of the other classes' masses. a_c is called the mass of a class.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit, log1p, scaled_gap
from xentcli.backends.cpu.exponential import exp_of_gap, sech_squared, tanh
from xentcli.backends.cpu.simd import absolute, constant, equal, less, select


class Masses(NamedTuple):
    """The sum of a_c in parts."""

    hot: Any  # the one-hot part of an index target's class: weight·(1 − label_smoothing)
    of_max: Any  # a_c of the largest logit, without `hot`
    rest: Any  # Σ a_c of the others, without `hot`
    max_is_target: Any


class RowFactors(NamedTuple):
    """The sums over all classes that the gradient of each class needs."""

    others: Any
    rest: Any  # B − a of the largest logit
    b: Any  # B


@inline_jit
def scaled_logit(x, scalars):
    """z of logits, still to be divided by `divisor`: a softcap includes the temperature."""
    if scalars.softcap < math.inf:
        return tanh(x / scalars.temperature / scalars.softcap) * scalars.softcap
    return x


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
def slope(x, scalars):
    """dz/dx times the temperature."""
    if scalars.softcap < math.inf:
        return sech_squared(x / scalars.temperature / scalars.softcap)
    return constant(x, 1.0)


@inline_jit
def exponential(z, peak, scalars, exact):
    """e of a class. A difference of float32 logits is exact enough in float64."""
    if exact:
        return exp_of_gap(*scaled_gap(peak, z, divisor(scalars)))
    return exp_of_gap(divide(peak - z, divisor(scalars)), None)


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
def finish_row(limit, others, masses, distance, scalars):
    """Loss, log-sum-exp and the gradient's sums; NaN where the largest z is not finite."""
    finite = less(absolute(limit), constant(limit, math.inf))
    others = select(finite, others, constant(others, math.nan))
    log_s = log1p(others)
    lse = limit + log_s
    a = masses.rest + masses.of_max + masses.hot
    loss = a * log_s + distance + lse * scalars.z_loss * lse
    extra = lse * (2.0 * scalars.z_loss)
    hot_elsewhere = select(masses.max_is_target, constant(others, 0.0), masses.hot)
    return loss + 0.0, lse, RowFactors(others, masses.rest + hot_elsewhere + extra, a + extra)


@inline_jit
def gradient_entry(e, a, is_max, row):
    """B·p − a of one class, in the form that cancels less."""
    s = row.others + 1.0
    share, p = row.others / s, row.b / s
    usual = e * p - a
    of_max = row.rest - row.b * share
    better = less(absolute(row.rest) + absolute(row.b) * share, absolute(p) + absolute(a))
    return select(is_max, select(better, of_max, usual), usual)
