"""Long rows with any target and any option: one row at a time, 16 classes at a time, in float64.

    1. the largest logit; NaN if there is one
    2. e_c, kept in a buffer that stays in the cache, and their sum with its rounding error;
       with probabilities or smoothing also Σ a_c and Σ a_c·d_c
    3. the gradient, written past the caches where it is large

The entries of the target and of the largest logit have formulas of their own: there B·p − a may
cancel. They are put among the others before these are written: see `pipeline`.
"""

from __future__ import annotations

import math

import numpy as np

from xentcli.backends.cpu.arithmetic import add, add_others, below, called, compiled, log1p
from xentcli.backends.cpu.formulas import (
    Masses,
    concluded,
    divisor,
    entry,
    exponential,
    mass,
    scored,
    slope,
    weighed,
)
from xentcli.backends.cpu.half_types import as_stored, doubles, filled, size_of, wide
from xentcli.backends.cpu.load_store import keep, load, pointer, prefetch, store, store_some, stream
from xentcli.backends.cpu.row_ops import (
    fill,
    get,
    largest,
    lined_up,
    one,
    others_of,
    place_of_one,
    placed,
    put,
    row_of,
    skip,
    to_line,
    total,
)
from xentcli.backends.cpu.simd import LANES, constant, fma, lanes_below, select


@compiled
def exponentials(x, classes, peak, scalars, exact, z):
    """Fill z with exp(z_c − max z); their sum without the largest."""
    top, one, nothing = filled(z, peak), filled(z, 1.0), filled(z, 0.0)
    sums = nothing, nothing, nothing
    for c in range(0, classes, LANES):
        score = scored(wide(get(x, classes, c, -math.inf)), scalars)
        e = exponential(score, top, scalars, exact)
        if c + LANES > classes:  # a softcap makes numbers of what lies beyond the end
            e = select(lanes_below(classes - c), e, nothing)
        store(z, c, e)
        sums = add_others(sums, e, one)
        prefetch(x, c + classes)  # the next row, while this one is computed
        if size_of(x) == 8:
            prefetch(x, c + classes + LANES // 2)
    return others_of(sums)


@compiled
def masses_at(q, weight, classes, c, scalars, even):
    """a of classes c to c + 15, without what an index target adds."""
    w = get(weight, classes, c, 0.0)
    if q is None:
        return mass(w, None, scalars, even)
    return mass(w, wide(get(q, classes, c, 0.0)), scalars, even)


@compiled
def mass_at(q, weight, c, scalars, even):
    """The same of one class."""
    if q is None:
        return mass(weight[c], None, scalars, even)
    return mass(weight[c], one(q, c), scalars, even)


@compiled
def spread(x, q, weight, classes, peak, scalars, even):
    """Σ a_c·d_c, and Σ a_c with its error."""
    sum_high = filled(weight, 0.0)
    sum_low, far_high, far_low = sum_high, sum_high, sum_high
    for c in range(0, classes, LANES):
        a = masses_at(q, weight, classes, c, scalars, even)
        score = scored(wide(get(x, classes, c, 0.0)), scalars)
        gap, _ = below(constant(a, peak), score, divisor(scalars))
        far_high, far_low = add(far_high, far_low, weighed(a, gap))
        sum_high, sum_low = add(sum_high, sum_low, a)
    high, low = total(far_high, far_low)
    sums = total(sum_high, sum_low)
    return (high + low if abs(high) < math.inf else high), sums[0], sums[1]


@compiled
def summarised(x, y, q, call, z):
    """Passes 1 and 2: loss, log-sum-exp, and what the gradient needs."""
    weight, classes, scalars, exact = call
    peak = scored(largest(x, classes), scalars)
    others = exponentials(x, classes, peak, scalars, exact, z)
    even = scalars.label_smoothing / classes
    distance, hot, of_top, rest = 0.0, 0.0, 0.0, 0.0
    top = y if y >= 0 and z[y] == 1.0 else -1
    if q is not None or even > 0.0:
        top = place_of_one(z, classes)
        of_top = mass_at(q, weight, top, scalars, even)
        distance, high, low = spread(x, q, weight, classes, peak, scalars, even)
        rest = (high - of_top) + low
    if q is None:
        hot = (1.0 - scalars.label_smoothing) * weight[y]
        gap, error = below(peak, scored(one(x, y), scalars), divisor(scalars))
        distance += hot * gap + hot * error if hot != 0.0 else 0.0
    masses = Masses(hot, of_top, rest, top == y)
    loss, lse, row = concluded(peak / divisor(scalars), others, masses, distance, scalars)
    return loss, lse, row, top


@compiled
def entries(x, q, call, factors, z, even, grad, c):
    """The gradient of classes c to c + 15, as if the target had no mass of its own."""
    weight, classes, scalars, _ = call
    per_e, per_mass = factors
    g = load(z, c) * per_e
    if q is not None or even > 0.0:
        a = masses_at(q, weight, classes, c, scalars, even)
        g = fma(load(z, c), filled(z, per_e), a * -per_mass)
    if scalars.softcap < math.inf:
        g = g * slope(wide(get(x, classes, c, 0.0)), scalars)
    return as_stored(grad, g) + filled(grad, 0.0)  # −0.0 becomes 0.0


@compiled
def write(x, y, q, call, how, z, row, top, grad):
    """Pass 3: the gradient of one row into the caller's buffer, which may be x itself."""
    weight, classes, scalars, _ = call
    scale, past_caches = how
    per_mass = scale / scalars.temperature
    factors = (row.b / (1.0 + row.others) * per_mass, per_mass)
    even = scalars.label_smoothing / classes
    hot = (1.0 - scalars.label_smoothing) * weight[y] if q is None else 0.0
    target, largest_one = 0.0, 0.0  # before x is overwritten
    if y >= 0:
        a = mass_at(q, weight, y, scalars, even) + hot
        target = entry(z[y], a, top == y, row) * (per_mass * slope(one(x, y), scalars))
    if top >= 0:
        a = mass_at(q, weight, top, scalars, even)
        largest_one = entry(z[top], a, True, row) * (per_mass * slope(one(x, top), scalars))
    start = to_line(grad) if past_caches else 0
    for c in range(start - LANES if start else 0, classes, LANES):
        at = max(c, 0)
        g = entries(x, q, call, factors, z, even, grad, at)
        if 0 <= top - at < LANES:
            g = placed(grad, g, top - at, largest_one)
        if 0 <= y - at < LANES:
            g = placed(grad, g, y - at, target)
        if c < 0:
            store_some(grad, 0, lanes_below(start), g)
        elif past_caches and c + LANES <= classes:
            stream(grad, c, g)
        else:
            put(grad, classes, c, g)


@called
def general_range(logits, targets, weight, scale, scalars, results, grad, work, past_caches):
    """A range of rows, (n, C, 1); targets are class indices or probabilities, (n, C, 1)."""
    if targets.ndim == 1:
        skip(targets, results, grad)
    classes = logits.shape[1]
    buffer = np.empty(classes + 3 * LANES)
    z = lined_up(buffer)
    call = pointer(weight, 0), classes, scalars, doubles(pointer(work, 0))
    for i in range(len(logits)):
        x = row_of(logits, i)
        if targets.ndim == 1:
            y, q = targets[i], None
            if y < 0:
                continue
        else:
            y, q = -1, row_of(targets, i)
        results[0, i], results[1, i], row, top = summarised(x, y, q, call, z)
        if grad is not None:
            how = scale[min(i, len(scale) - 1)], past_caches
            write(x, y, q, call, how, z, row, top, row_of(grad, i))
    keep(buffer)


@called
def softmax_range(logits, scalars, log, out, work):
    """A range of rows, (n, C, 1): probabilities, or their logarithms −d_c − log s."""
    classes = logits.shape[1]
    buffer = np.empty(classes + 3 * LANES)
    z = lined_up(buffer)
    exact = doubles(pointer(work, 0))
    for i in range(len(logits)):
        x, p = row_of(logits, i), row_of(out, i)
        peak = scored(largest(x, classes), scalars)
        if not abs(peak / divisor(scalars)) < math.inf:
            fill(p, classes, math.nan)
            continue
        others = exponentials(x, classes, peak, scalars, exact, z)
        for c in range(0, classes, LANES):
            value = load(z, c) / (1.0 + others)
            if log:
                score = scored(wide(get(x, classes, c, 0.0)), scalars)
                gap, error = below(constant(score, peak), score, divisor(scalars))
                value = 0.0 - (gap + (error + log1p(others)))
            put(p, classes, c, as_stored(p, value))
    keep(buffer)
