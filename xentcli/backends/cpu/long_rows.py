"""Long rows with any target and any option: one row at a time, 16 classes at a time, in float64.

    1. the largest logit; NaN if any is NaN
    2. e_c, stored in a buffer that stays in the cache, and their sum with its rounding error;
       with probabilities or smoothing also Σ a_c and Σ a_c·d_c
    3. the gradient, written past the caches where it is large

The entries of the target and of the largest logit have formulas of their own, because B·p − a may
cancel there. They are written together with the vector that they belong to, not afterwards: see
`exp_pass_and_write` in `long_rows_fast`.
"""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import add, add_exponential, inline_jit, jit, log1p, scaled_gap
from xentcli.backends.cpu.formulas import (
    Masses,
    divisor,
    exponential,
    finish_row,
    gradient_entry,
    mass,
    mass_times_gap,
    scaled_logit,
    slope,
)
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64, itemsize
from xentcli.backends.cpu.load_store import (
    float64_at,
    load,
    prefetch,
    store,
    store_masked,
    stream_store,
)
from xentcli.backends.cpu.row_ops import (
    element,
    elements_to_boundary,
    fill,
    index_of_one,
    load_padded,
    row_max,
    row_or_none,
    row_pointer,
    store_padded,
    sum_across,
    sum_of_others,
    with_lane,
    write_ignored_rows,
)
from xentcli.backends.cpu.simd import LANES, constant, fma, lanes_below, select


@inline_jit
def row_exponentials(x, classes, peak, scalars, exact, exps):
    """Store exp(z_c − max z); their sum without the largest."""
    peaks, one, zero = constant_for(exps, peak), constant_for(exps, 1.0), constant_for(exps, 0.0)
    sums = zero, zero, zero
    for c in range(0, classes, LANES):
        z = scaled_logit(as_float64(load_padded(x, classes, c, -math.inf)), scalars)
        e = exponential(z, peaks, scalars, exact)
        if c + LANES > classes:  # a softcap makes −inf beyond the end finite
            e = select(lanes_below(classes - c), e, zero)
        store(exps, c, e)
        sums = add_exponential(sums, e, one)
        prefetch(x, c + classes)  # the next row, while this one is computed
        if itemsize(x) == 8:
            prefetch(x, c + classes + LANES // 2)
    return sum_of_others(sums)


@inline_jit
def masses_from(q, weight, classes, c, scalars, uniform):
    """a of classes c to c + 15, without the one-hot part of an index target."""
    w = load_padded(weight, classes, c, 0.0)
    if q is None:
        return mass(w, None, scalars, uniform)
    return mass(w, as_float64(load_padded(q, classes, c, 0.0)), scalars, uniform)


@inline_jit
def mass_of_class(q, weight, c, scalars, uniform):
    """a of one class, without the one-hot part."""
    if q is None:
        return mass(weight[c], None, scalars, uniform)
    return mass(weight[c], element(q, c), scalars, uniform)


@inline_jit
def mass_sums(x, q, weight, classes, peak, scalars, uniform):
    """Σ a_c·d_c, and Σ a_c with its error."""
    sum_high = constant_for(weight, 0.0)
    sum_low, gap_high, gap_low = sum_high, sum_high, sum_high
    for c in range(0, classes, LANES):
        a = masses_from(q, weight, classes, c, scalars, uniform)
        z = scaled_logit(as_float64(load_padded(x, classes, c, 0.0)), scalars)
        gap, _ = scaled_gap(constant(a, peak), z, divisor(scalars))
        gap_high, gap_low = add(gap_high, gap_low, mass_times_gap(a, gap))
        sum_high, sum_low = add(sum_high, sum_low, a)
    high, low = sum_across(gap_high, gap_low)
    sums = sum_across(sum_high, sum_low)
    return (high + low if abs(high) < math.inf else high), sums[0], sums[1]


@inline_jit
def loss_and_factors(x, y, q, setup, exps):
    """Passes 1 and 2: loss, log-sum-exp, and what the gradient needs beside the exponentials."""
    weight, classes, scalars, exact = setup
    peak = scaled_logit(row_max(x, classes), scalars)
    others = row_exponentials(x, classes, peak, scalars, exact, exps)
    uniform = scalars.label_smoothing / classes
    distance, hot, mass_of_max, rest = 0.0, 0.0, 0.0, 0.0
    argmax = y if y >= 0 and exps[y] == 1.0 else -1
    if q is not None or uniform > 0.0:
        argmax = index_of_one(exps, classes)
        mass_of_max = mass_of_class(q, weight, argmax, scalars, uniform)
        distance, high, low = mass_sums(x, q, weight, classes, peak, scalars, uniform)
        rest = (high - mass_of_max) + low
    if q is None:
        hot = (1.0 - scalars.label_smoothing) * weight[y]
        gap, error = scaled_gap(peak, scaled_logit(element(x, y), scalars), divisor(scalars))
        distance += hot * gap + hot * error if hot != 0.0 else 0.0
    masses = Masses(hot, mass_of_max, rest, argmax == y)
    loss, lse, row = finish_row(peak / divisor(scalars), others, masses, distance, scalars)
    return loss, lse, row, argmax


@inline_jit
def gradient_entries(x, q, setup, factors, exps, uniform, grad, c):
    """The gradient of classes c to c + 15, without the one-hot part of an index target."""
    weight, classes, scalars, _ = setup
    per_e, per_mass = factors
    g = load(exps, c) * per_e
    if q is not None or uniform > 0.0:
        a = masses_from(q, weight, classes, c, scalars, uniform)
        g = fma(load(exps, c), constant_for(exps, per_e), a * -per_mass)
    if scalars.softcap < math.inf:
        g = g * slope(as_float64(load_padded(x, classes, c, 0.0)), scalars)
    return cast_for(grad, g) + constant_for(grad, 0.0)  # −0.0 becomes 0.0


@inline_jit
def write_gradient(x, y, q, setup, output, exps, row, argmax, grad):
    """Pass 3: the gradient of one row into the caller's buffer, which may be x itself."""
    weight, classes, scalars, _ = setup
    scale, streaming = output
    per_mass = scale / scalars.temperature
    factors = (row.b / (1.0 + row.others) * per_mass, per_mass)
    uniform = scalars.label_smoothing / classes
    hot = (1.0 - scalars.label_smoothing) * weight[y] if q is None else 0.0
    of_target, of_max = 0.0, 0.0  # computed before x is overwritten
    if y >= 0:
        a = mass_of_class(q, weight, y, scalars, uniform) + hot
        of_target = gradient_entry(exps[y], a, argmax == y, row) * (
            per_mass * slope(element(x, y), scalars)
        )
    if argmax >= 0:
        a = mass_of_class(q, weight, argmax, scalars, uniform)
        of_max = gradient_entry(exps[argmax], a, True, row) * (
            per_mass * slope(element(x, argmax), scalars)
        )
    start = elements_to_boundary(grad) if streaming else 0
    for c in range(start - LANES if start else 0, classes, LANES):
        at = max(c, 0)
        g = gradient_entries(x, q, setup, factors, exps, uniform, grad, at)
        if 0 <= argmax - at < LANES:
            g = with_lane(grad, g, argmax - at, of_max)
        if 0 <= y - at < LANES:
            g = with_lane(grad, g, y - at, of_target)
        if c < 0:
            store_masked(grad, 0, lanes_below(start), g)
        elif streaming and c + LANES <= classes:
            stream_store(grad, c, g)
        else:
            store_padded(grad, classes, c, g)


@jit
def general_range(count, logits, targets, probs, shared, per_row, grad, space, streaming):
    """Some rows, with class indices or with probabilities as targets."""
    weight, classes, scalars = shared
    if targets is not None:
        write_ignored_rows(count, classes, targets, per_row, grad)
    exps = float64_at(space, 0)
    setup = weight, classes, scalars, is_float64(space)
    for i in range(count):
        x = row_pointer(logits, i)
        y, q = -1, row_or_none(probs, i)
        if targets is not None:
            y = targets[i]
            if y < 0:
                continue
        loss, lse, row, argmax = loss_and_factors(x, y, q, setup, exps)
        per_row.losses[i], per_row.lses[i] = loss, lse
        if grad is not None:
            output = per_row.scale[i * per_row.scale_step], streaming
            write_gradient(x, y, q, setup, output, exps, row, argmax, row_pointer(grad, i))


@jit
def softmax_range(count, logits, classes, scalars, log, out, exps, exact):
    """Some rows: probabilities, or their logarithms −d_c − log s."""
    for i in range(count):
        x, p = row_pointer(logits, i), row_pointer(out, i)
        peak = scaled_logit(row_max(x, classes), scalars)
        if not abs(peak / divisor(scalars)) < math.inf:
            fill(p, classes, math.nan)
            continue
        others = row_exponentials(x, classes, peak, scalars, exact, exps)
        for c in range(0, classes, LANES):
            value = load(exps, c) / (1.0 + others)
            if log:
                z = scaled_logit(as_float64(load_padded(x, classes, c, 0.0)), scalars)
                gap, error = scaled_gap(constant(z, peak), z, divisor(scalars))
                value = 0.0 - (gap + (error + log1p(others)))
            store_padded(p, classes, c, cast_for(p, value))
