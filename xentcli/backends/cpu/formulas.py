"""The formulas of a row, written once for one row in a number and for 16 rows in a vector.

    d_c    = max z − z_c ≥ 0,  e_c = exp(−d_c),  s = Σ e_c,  others = s − 1
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C),  A = Σ a_c
    loss   = A·log1p(others) + Σ a_c·d_c + λ·lse²,   lse = max z + log1p(others)
    grad_c = B·e_c/s − a_c,   B = A + 2·λ·lse

The largest e is exactly 1, so `others` keeps its digits in a row that is nearly certain. There
B·p − a cancels for the largest logit, and is (B − a) − B·others/s, where B − a is a sum of the
others' masses.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import below, compiled, log1p
from xentcli.backends.cpu.exponential import exp_below, sech_squared, tanh
from xentcli.backends.cpu.simd import absolute, constant, equal, less, select


class Masses(NamedTuple):
    """The target's a_c in parts."""

    hot: Any  # what an index target's class gets beyond smoothing
    of_top: Any  # a_c of the largest logit, without `hot`
    rest: Any  # Σ a_c of the others, without `hot`
    top_is_target: Any


class Row(NamedTuple):
    """What the gradient of a class needs to know of all classes."""

    others: Any
    rest: Any  # B − a of the largest logit
    b: Any  # B


@compiled
def scored(x, scalars):
    """z of logits: capped, where the temperature is then used up; else what still is to divide."""
    if scalars.softcap < math.inf:
        return tanh(x / scalars.temperature / scalars.softcap) * scalars.softcap
    return x


@compiled
def divisor(scalars):
    """The temperature, where it is not used up by the softcap."""
    return 1.0 if scalars.softcap < math.inf else scalars.temperature


@compiled
def divided(value, by):
    """A quotient; dividing by 1 costs as much as any division."""
    if by == 1.0:
        return value
    return value / by


@compiled
def slope(x, scalars):
    """dz/dx, times the temperature."""
    if scalars.softcap < math.inf:
        return sech_squared(x / scalars.temperature / scalars.softcap)
    return constant(x, 1.0)


@compiled
def exponential(score, peak, scalars, exact):
    """e of a class. float32 logits have no error of the difference that float64 sees."""
    if exact:
        return exp_below(*below(peak, score, divisor(scalars)))
    return exp_below(divided(peak - score, divisor(scalars)), None)


@compiled
def mass(weight, q, scalars, even):
    """a of a class, without what an index target adds."""
    if q is None:
        return weight * even
    return weight * (q * (1.0 - scalars.label_smoothing) + even)


@compiled
def weighed(a, gap):
    """a·d of a class; 0 where there is no mass, however far the logit."""
    nothing = constant(a, 0.0)
    return select(equal(a, nothing), nothing, a * gap)


@compiled
def concluded(limit, others, masses, distance, scalars):
    """Loss, log-sum-exp, and what the gradient needs; NaN where the largest z is no number."""
    finite = less(absolute(limit), constant(limit, math.inf))
    others = select(finite, others, constant(others, math.nan))
    log_s = log1p(others)
    lse = limit + log_s
    a = masses.rest + masses.of_top + masses.hot
    loss = a * log_s + distance + lse * scalars.z_loss * lse
    extra = lse * (2.0 * scalars.z_loss)
    hot_elsewhere = select(masses.top_is_target, constant(others, 0.0), masses.hot)
    return loss + 0.0, lse, Row(others, masses.rest + hot_elsewhere + extra, a + extra)


@compiled
def entry(e, a, is_top, row):
    """B·p − a of one class, in the form that cancels less."""
    s = row.others + 1.0
    share, p = row.others / s, row.b / s
    plain = e * p - a
    of_top = row.rest - row.b * share
    better = less(absolute(row.rest) + absolute(row.b) * share, absolute(p) + absolute(a))
    return select(is_top, select(better, of_top, plain), plain)
