"""The CPU kernels: one row at a time, in vectors of 16 float64.

One row of C logits goes through three passes, with d_c = (max z − z_c) ≥ 0 kept together with
its rounding error:

    1. the largest logit; NaN if there is one
    2. e_c = exp(−d_c), kept in a buffer that stays in the cache, and their sum s with its
       rounding error: others = s − 1, because the largest e is exactly 1
    3. grad_c = B·e_c/s − a_c, written past the caches where the gradient is large

    loss = A·log1p(others) + Σ a_c·d_c + λ·lse²      A = Σ a_c, B = A + 2·λ·lse, all terms ≥ 0

The entries of the target and of the largest logit are written again, one by one: there B·p − a
may cancel, and is (B − a) − B·others/s where that is smaller.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xentcli.kernels.arithmetic import add, below, compiled, exp_below, log1p, sech_squared, tanh
from xentcli.kernels.memory import address, load, prefetch, size_of, store, stream
from xentcli.kernels.simd import (
    LANES,
    as_stored,
    constant,
    equal,
    filled,
    first,
    fma,
    lanes_below,
    select,
    splat,
    wide,
)
from xentcli.kernels.sweeps import fill, get, largest, place_of_one, put, total

# Below this share of the others a sum that rounds to float64 has not enough digits of them.
SURE = 1e-6


class Row(NamedTuple):
    """What the gradient of a row needs to know of all its classes together."""

    top: int  # the class of the largest logit, −1 where only the target could cancel
    others: float  # Σ e_c without the largest, which is 1
    hot: float  # what the target's class has beyond the mass that all classes get
    even: float  # the mass that smoothing gives a class of weight 1
    rest: float  # Σ a_c without the largest logit's, plus 2·λ·lse
    b: float  # B


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
def exponentials(x, classes, peak, scalars, z):
    """Fill z with exp(z_c − max z); their sum without the largest."""
    top = filled(z, peak)
    high = filled(z, 0.0)
    low = high
    for c in range(0, classes, LANES):
        score = scored(wide(get(x, classes, c, -math.inf)), scalars)
        if size_of(x) == 4:
            gap = top - score
            if divisor(scalars) != 1.0:  # a division costs as much as the exponential
                gap = gap / divisor(scalars)
            e = exp_below(gap, None)  # float32 logits have no error that float64 sees
        else:
            e = exp_below(*below(top, score, divisor(scalars)))
        if c + LANES > classes:  # a softcap makes numbers of what lies beyond the end
            e = select(lanes_below(classes - c), e, filled(z, 0.0))
        store(z, c, e)
        if size_of(x) == 4:
            high = high + e
        else:
            high, low = add(high, low, e)
        prefetch(x, c + classes)  # the next row, while this one is computed
        if size_of(x) == 8:
            prefetch(x, c + classes + LANES // 2)
    sum_high, sum_low = total(high, low)
    others = (sum_high - 1.0) + sum_low
    if size_of(x) == 4 and others < SURE:
        return sum_of_others(classes, z)
    return others


@compiled
def sum_of_others(classes, z):
    """The sum of the exponentials but the largest, where that is lost in a plain sum."""
    high = filled(z, 0.0)
    low = high
    for c in range(0, classes, LANES):
        high, low = add(high, low, load(z, c))
    sum_high, sum_low = total(high, low)
    return (sum_high - 1.0) + sum_low


@compiled
def mass(q, weight, classes, c, scalars, even):
    """What classes c to c + 15 get for their probabilities and from smoothing: not the target."""
    if q is None:
        return get(weight, classes, c, 0.0) * even
    return get(weight, classes, c, 0.0) * (
        get(q, classes, c, 0.0) * (1.0 - scalars.label_smoothing) + even
    )


@compiled
def mass_of(q, weight, c, scalars, even):
    """The same for one class."""
    if q is None:
        return weight[c] * even
    return weight[c] * (q[c] * (1.0 - scalars.label_smoothing) + even)


@compiled
def spread(x, q, weight, classes, peak, scalars, even):
    """Σ a_c·d_c, and Σ a_c with its error, over the masses that `mass` gives."""
    sum_high = filled(weight, 0.0)
    sum_low, far_high, far_low = sum_high, sum_high, sum_high
    for c in range(0, classes, LANES):
        a = mass(q, weight, classes, c, scalars, even)
        score = scored(wide(get(x, classes, c, 0.0)), scalars)
        gap, _ = below(constant(a, peak), score, divisor(scalars))
        far = select(equal(a, constant(a, 0.0)), constant(a, 0.0), a * gap)  # 0·inf is 0
        far_high, far_low = add(far_high, far_low, far)
        sum_high, sum_low = add(sum_high, sum_low, a)
    high, low = total(far_high, far_low)
    sums = total(sum_high, sum_low)
    return (high + low if abs(high) < math.inf else high), sums[0], sums[1]


@compiled
def summarised(x, y, q, call, z):
    """Passes 1 and 2: loss, log-sum-exp, and what the gradient needs. NaN where there is none."""
    weight, classes, scalars = call
    peak = scored(largest(x, classes), scalars)
    limit = peak / divisor(scalars)
    if not abs(limit) < math.inf:
        return math.nan, math.nan, Row(0, math.nan, 0.0, 0.0, math.nan, math.nan)
    others = exponentials(x, classes, peak, scalars, z)
    log_s = log1p(others)
    lse = limit + log_s
    even = scalars.label_smoothing / classes
    distance, hot, base_top, base_rest = 0.0, 0.0, 0.0, 0.0
    top = y if y >= 0 and z[y] == 1.0 else -1
    if q is not None or even > 0.0:
        top = place_of_one(z, classes)
        base_top = mass_of(q, weight, top, scalars, even)
        distance, high, low = spread(x, q, weight, classes, peak, scalars, even)
        base_rest = (high - base_top) + low
    if q is None:
        hot = (1.0 - scalars.label_smoothing) * weight[y]
        gap, error = below(peak, scored(np.float64(x[y]), scalars), divisor(scalars))
        distance += hot * gap + hot * error if hot != 0.0 else 0.0
    a = base_rest + base_top + hot
    loss = a * log_s + distance + scalars.z_loss * lse * lse
    extra = 2.0 * scalars.z_loss * lse
    rest = base_rest + (0.0 if top == y else hot) + extra
    return loss + 0.0, lse, Row(top, others, hot, even, rest, a + extra)


@compiled
def entry(c, y, q, weight, scalars, z, row):
    """B·p − a of one class, in the form that cancels less."""
    s = 1.0 + row.others
    a = mass_of(q, weight, c, scalars, row.even) + (row.hot if c == y else 0.0)
    if c == row.top and abs(row.rest) + abs(row.b) * row.others / s < abs(row.b) / s + abs(a):
        return row.rest - row.b * (row.others / s)
    return z[c] * (row.b / s) - a


@compiled
def slope(x, scalars):
    """dz/dx of capped logits, times the temperature."""
    return sech_squared(x / scalars.temperature / scalars.softcap)


@compiled
def entries(x, q, call, factors, z, row, grad, c):
    """The gradient of classes c to c + 15, as if the target had no mass of its own."""
    weight, classes, scalars = call
    per_e, per_mass = factors
    g = load(z, c) * per_e
    if q is not None or row.even > 0.0:
        a = mass(q, weight, classes, c, scalars, row.even)
        g = fma(load(z, c), filled(z, per_e), a * -per_mass)
    if scalars.softcap < math.inf:
        g = g * slope(wide(get(x, classes, c, 0.0)), scalars)
    return as_stored(grad, g) + filled(grad, 0.0)  # −0.0 becomes 0.0


@compiled
def write(x, y, q, call, how, z, row, grad):
    """Pass 3: the gradient of one row into the caller's buffer, which may be x itself."""
    weight, classes, scalars = call
    if row.b != row.b:  # a row without an answer
        fill(grad, classes, math.nan)
        return
    scale, past_caches = how
    per_mass = scale / scalars.temperature
    factors = (row.b / (1.0 + row.others) * per_mass, per_mass)
    of_target, of_top = 1.0, 1.0
    if scalars.softcap < math.inf:  # x may be overwritten below
        of_target = slope(np.float64(x[max(y, 0)]), scalars)
        of_top = slope(np.float64(x[max(row.top, 0)]), scalars)
    start = 0
    if past_caches and classes >= LANES:
        store(grad, 0, entries(x, q, call, factors, z, row, grad, 0))
        start = (-address(grad) % 64) // size_of(grad)
    for c in range(start, classes, LANES):
        g = entries(x, q, call, factors, z, row, grad, c)
        if past_caches and c + LANES <= classes:
            stream(grad, c, g)
        else:
            put(grad, classes, c, g)
    if y >= 0:
        value = entry(y, y, q, weight, scalars, z, row) * (per_mass * of_target)
        grad[y] = stored_number(grad, value)
    if row.top >= 0 and row.top != y:
        value = entry(row.top, y, q, weight, scalars, z, row) * (per_mass * of_top)
        grad[row.top] = stored_number(grad, value)


@compiled
def stored_number(grad, value):
    """A number as the gradient holds it; −0.0, which may come of rounding, becomes 0.0."""
    return first(as_stored(grad, splat(value)) + filled(grad, 0.0))
