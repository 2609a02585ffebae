"""The terms of a teacher's divergences, for numbers and for vectors of 16, in float64.

A term has the student's p, the teacher's q and y = ln q − ln p, which is −∞ where q is 0, +∞ where
p is, and NaN where both are. With a cost φ(x) = x + expm1(−x), which is never negative,

    CE            q·y, given y = −ln p, and 0 where q is 0
    FORWARD_KL    q·φ(y)                           = q·y − q + p
    REVERSE_KL    p·φ(−y)                          = −p·y − p + q
    JSD           β·q·φ(y + u) + (1 − β)·p·φ(u)    u = −ln(1 + β·expm1(y)) = ln p − ln m

The sums of these are the values but for the masses of p and q, which `mass_correction` adds. With
DROP, which is no divergence, the terms are q·y and −p·y.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit, log1p, polynomial
from xentcli.backends.cpu.divergence import excess_series
from xentcli.backends.cpu.exponential import SLOPE_UNIT, exp_and_expm1
from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    equal,
    exponent,
    less,
    power_of_two,
    select,
    select_min,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, ROUND
from xentcli.backends.teacher import Divergence, Tail

CE, FORWARD_KL = int(Divergence.CE), int(Divergence.FORWARD_KL)
REVERSE_KL, JSD = int(Divergence.REVERSE_KL), int(Divergence.JSD)
BUCKET, SUBSET = int(Tail.BUCKET), int(Tail.SUBSET)
TEACHER, DROP = int(Tail.TEACHER), int(Tail.DROP)
FAR = 300.0  # |y| from which exp(−|y|) does not count beside β

# φ(x) / x² in powers of −x, up to the last that matters in float32 for |x| < ¾.
NEAR_F32 = 0.75
excess_series_f32 = polynomial(tuple(1.0 / math.factorial(j + 2) for j in range(8, -1, -1)))


class Costs(NamedTuple):
    """What the terms of a row are made with."""

    divergence: Any
    beta: Any
    log_beta: Any
    log_other: Any  # ln(1 − β)
    masses: Any  # whether Σ p and Σ q over the terms are equal, but for the surplus


@inline_jit
def costs_of(scalars):
    """The same from the options. β does not matter, and may be anything, but for JSD."""
    beta = scalars.beta if scalars.divergence == JSD else 0.5
    log_beta = 0.0 - log1p((1.0 - beta) / beta, 0.0)[0]
    log_other = 0.0 - log1p(beta / (1.0 - beta), 0.0)[0]
    return Costs(scalars.divergence, beta, log_beta, log_other, scalars.tail != DROP)


class SoftmaxOptions(NamedTuple):
    """What `gap_over` and `row_factors` take from `Scalars`."""

    temperature: Any
    z_loss: Any
    scale_error: Any


@inline_jit
def softmax_options(temperature):
    """Those of a softmax at a temperature."""
    return SoftmaxOptions(temperature, 0.0, 0.0)


@inline_jit
def signed_log1p(x):
    """ln(1 + x) of a number x > −1."""
    if x >= 0.0:
        return log1p(x, 0.0)[0]
    return 0.0 - log1p((0.0 - x) / (1.0 + x), 0.0)[0]


@inline_jit
def excess(x):
    """φ(x) for |x| < ¼."""
    total = 0.0
    for k in range(14, 1, -1):
        total = (1.0 - total * x) / k
    return total * x * x


@inline_jit
def log(x):
    """ln x, −∞ of 0, NaN of less."""
    zero, one = constant(x, 0.0), constant(x, 1.0)
    small = less(x, constant(x, 2.0**-900))
    normal = select(small, x * 2.0**100, x)
    k = exponent(normal)
    f = normal * power_of_two(ROUND - k, 0)
    below = less(f, one)
    high, _ = log1p(select(below, (1.0 - f) / f, f - 1.0), zero)
    k = k - select(small, constant(x, 100.0), zero)
    value = k * LN2_HIGH + (k * LN2_LOW + select(below, 0.0 - high, high))
    infinite = constant(x, math.inf)
    value = select(equal(x, zero), 0.0 - infinite, select(equal(x, infinite), x, value))
    return select(less(x, zero), constant(x, math.nan), value)


@inline_jit
def weighted_excess(w, v, x):
    """w·φ(x), given v = w·exp(−x).

    Where x is +∞ the other distribution has no probability for what this one has, however small it
    is: w may be 0 only by underflow.
    """
    zero, one = constant(w, 0.0), constant(w, 1.0)
    near = less(absolute(x), one)
    small = select(near, x, zero)
    series = w * (small * small * excess_series(0.0 - small))
    far = times_or_infinite(w, x - 1.0) + v
    return select(near, series, far)


@inline_jit
def times_or_infinite(w, x):
    """w·x; where w is 0, 0 unless x is +∞."""
    zero, infinite = constant(w, 0.0), constant(x, math.inf)
    return select(equal(x, infinite), x, select(equal(w, zero), zero, w * x))


@inline_jit
def log_of_mixture(y, beta, log_beta):
    """ln(1 + β·expm1(y)) = ln(β·q + (1 − β)·p) − ln p."""
    far = constant(y, FAR)
    e, m = exp_and_expm1(select_min(absolute(y), far))
    up, down = less(constant(y, 0.0), y), m * beta
    change = select(up, down / (e * SLOPE_UNIT), down / (1.0 - down))
    near = log1p(change, constant(y, 0.0))[0]
    return select(less(far, y), y + log_beta, select(up, near, 0.0 - near))


@inline_jit
def term(costs, p, q, y):
    """The value of a term, and x = −y or u of which the gradient is made."""
    zero = constant(p, 0.0)
    if costs.divergence == CE:
        return times_or_infinite(q, y), zero
    if costs.divergence == FORWARD_KL:
        return weighted_excess(q, p, y) if costs.masses else times_or_infinite(q, y), zero
    if costs.divergence == REVERSE_KL:
        x = 0.0 - y
        return weighted_excess(p, q, x) if costs.masses else times_or_infinite(p, x), x
    u = 0.0 - log_of_mixture(y, costs.beta, costs.log_beta)
    a = 0.0 - log_of_mixture(0.0 - y, 1.0 - costs.beta, costs.log_other)
    m = q * costs.beta + p * (1.0 - costs.beta)
    of_teacher = weighted_excess(q, m, a) * costs.beta
    return of_teacher + weighted_excess(p, m, u) * (1.0 - costs.beta), u


@inline_jit
def product_or_zero(p, u):
    """p·u, and 0 where p is 0, whatever u is."""
    return select(equal(p, constant(p, 0.0)), constant(p, 0.0), p * u)


@inline_jit
def mass_correction(costs, tail, surplus, others):
    """What a sum of terms lacks: Σ q − Σ p over them, or the reverse.

    `surplus` is Σ q + r − 1; `others` is Σ p of the classes that are not stored.
    """
    if costs.divergence == FORWARD_KL and costs.masses:
        return surplus + others if tail == TEACHER else surplus
    if costs.divergence == REVERSE_KL and costs.masses:
        return 0.0 - surplus
    return 0.0
