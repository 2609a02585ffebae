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
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import add, add_wide, add_wide_exponential, inline_jit, jit
from xentcli.backends.cpu.exponential import ONE, SLOPE_ONE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    Masses,
    divisor,
    finish_row,
    finite_or_zero,
    gap_below,
    hot_gap,
    largest,
    log_of_sum,
    log_probability,
    mass,
    mass_times_gap,
    peak_of,
    total_of,
)
from xentcli.backends.cpu.gradient_formulas import (
    entries,
    entries_with_masses,
    entry_of_target,
    entry_with_mass,
    in_every_lane,
    probability_factors,
    row_factors,
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
    multiply,
    row_max,
    row_or_none,
    row_pointer,
    store_padded,
    sum_across,
    sums_across,
    with_lane,
    write_ignored_rows,
)
from xentcli.backends.cpu.simd import LANES, first_lane, lanes_below, select
from xentcli.backends.cpu.softcap import times_slope


class Buffers(NamedTuple):
    """What pass 2 stores of a row for pass 3: float64, one number for each class."""

    exps: Any
    slopes: Any  # dz/dx·T·2⁵⁰⁰, only with a softcap
    gaps: Any  # max z − z, only where all classes have masses


long_row_offsets = inline_jit(workspace.long_row_offsets)


@inline_jit
def row_buffers(space, classes):
    """Where they are in the work space."""
    second, _, _, _, _ = long_row_offsets(classes, 0, 0)
    return Buffers(float64_at(space, 0), float64_at(space, second), float64_at(space, 2 * second))


@inline_jit
def row_exponentials(x, classes, peak, scalars, exact, keep):
    """Pass 2: exp(z_c − max z); the sum without the largest, in two words.

    `keep` are the buffers, and whether gaps are kept too.
    """
    buffers, keep_gaps = keep
    one, zero = constant_for(buffers.exps, ONE), constant_for(buffers.exps, 0.0)
    sums = zero, zero, zero
    for c in range(0, classes, LANES):
        logits = as_float64(load_padded(x, classes, c, -math.inf))
        gap, error, slope = gap_below(peak, logits, scalars, exact)
        e, lost = exp_of_gap(gap, error, exact)
        if c + LANES > classes:  # a softcap makes −inf beyond the end finite
            inside = lanes_below(classes - c)
            e, lost = select(inside, e, zero), select(inside, lost, zero)
        store(buffers.exps, c, e)
        if scalars.softcap < math.inf:
            store(buffers.slopes, c, slope)
        if keep_gaps:
            store(buffers.gaps, c, gap + error)
        sums = add_wide_exponential(sums, e, one, exact)
        if exact:
            sums = sums[0], sums[1], sums[2] + lost
        prefetch(x, c + classes)  # the next row, while this one is computed
        if itemsize(x) == 8:
            prefetch(x, c + classes + LANES // 2)
    ones, high, low = sums_across(sums)
    return total_of(ones, high, low, exact)


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
def mass_sums(q, setup, gaps, uniform):
    """Σ a_c·d_c, and Σ a_c with its error."""
    weight, classes, scalars, exact = setup
    sum_high = constant_for(weight, 0.0)
    sum_low, gap_high, gap_low = sum_high, sum_high, sum_high
    for c in range(0, classes, LANES):
        a = masses_from(q, weight, classes, c, scalars, uniform)
        gap_high, gap_low = add_wide(gap_high, gap_low, mass_times_gap(a, load(gaps, c)), exact)
        sum_high, sum_low = add(sum_high, sum_low, a)
    high, low = sum_across(gap_high, gap_low)
    sums = sum_across(sum_high, sum_low)
    return high + finite_or_zero(low, high), sums[0], sums[1]


@inline_jit
def loss_and_sums(x, y, q, setup, buffers):
    """Passes 1 and 2: loss, log-sum-exp, and what the gradient needs beside the exponentials."""
    weight, classes, scalars, exact = setup
    peak = peak_of(constant_for(buffers.exps, row_max(x, classes)), scalars, exact)
    uniform = scalars.label_smoothing / classes
    all_classes = q is not None or uniform > 0.0
    others = row_exponentials(x, classes, peak, scalars, exact, (buffers, all_classes))
    gaps, hot, mass_of_max, rest = 0.0, 0.0, 0.0, 0.0
    argmax = y if y >= 0 and buffers.exps[y] == ONE else -1
    if all_classes:
        argmax = index_of_one(buffers.exps, classes)
        mass_of_max = mass_of_class(q, weight, argmax, scalars, uniform)
        gaps, total, error = mass_sums(q, setup, buffers.gaps, uniform)
        rest = (total - mass_of_max) + error
    distance = gaps, 0.0
    if q is None:
        hot = (1.0 - scalars.label_smoothing) * weight[y]
        target_x = constant_for(buffers.exps, element(x, y))
        gap, error, _ = gap_below(peak, target_x, scalars, exact)
        distance = hot_gap(hot, first_lane(gap), first_lane(error), exact)
        if all_classes:
            distance = distance[0] + gaps, distance[1]
    masses = Masses(hot, mass_of_max, rest, argmax == y)
    limit = largest(first_lane(peak.z), first_lane(peak.z_low), scalars, exact)
    loss, lse, row = finish_row(limit, others, masses, distance, scalars, exact)
    return loss, lse, row, argmax


@inline_jit
def special_entries(y, q, setup, row, factors, buffers, argmax):
    """The entries of the target and of the largest logit."""
    weight, _, scalars, exact = setup
    uniform = scalars.label_smoothing / setup[1]
    of_target, of_max, slope, slope_of_max = 0.0, 0.0, SLOPE_ONE, SLOPE_ONE
    if scalars.softcap < math.inf:
        slope, slope_of_max = buffers.slopes[max(y, 0)], buffers.slopes[max(argmax, 0)]
    if q is None:
        e, hot = buffers.exps[y], (1.0 - scalars.label_smoothing) * weight[y]
        if uniform > 0.0 or scalars.z_loss > 0.0:
            a = mass_of_class(q, weight, y, scalars, uniform) + hot
            of_target = entry_with_mass(e, a, argmax == y, row, factors, slope, exact)
        else:
            of_target = entry_of_target(e, argmax == y, row, factors, slope, exact)
    if q is not None or uniform > 0.0:
        a, e = mass_of_class(q, weight, argmax, scalars, uniform), buffers.exps[argmax]
        of_max = entry_with_mass(e, a, True, row, factors, slope_of_max, exact)
    return of_target, of_max


@inline_jit
def gradient_entries(q, setup, factors, buffers, uniform, grad, c):
    """The gradient of classes c to c + 15, without the one-hot part of an index target."""
    weight, classes, scalars, exact = setup
    e, slope = load(buffers.exps, c), constant_for(buffers.exps, SLOPE_ONE)
    if scalars.softcap < math.inf:
        slope = load(buffers.slopes, c)
        e = times_slope(e, slope) * factors.before
    if q is not None or uniform > 0.0:
        pull = masses_from(q, weight, classes, c, scalars, uniform) * factors.per_mass
        if scalars.softcap < math.inf:
            pull = times_slope(pull, slope)
        g = entries_with_masses(e, pull, factors, exact)
    else:
        g = entries(e, factors, exact)
        if scalars.z_loss > 0.0:
            g = g * factors.unit
    return cast_for(grad, g) + constant_for(grad, 0.0)  # −0.0 becomes 0.0


@inline_jit
def write_gradient(y, q, setup, output, buffers, row, argmax, grad):
    """Pass 3: the gradient of one row into the caller's buffer, which may be x itself."""
    _, classes, scalars, exact = setup
    scale, streaming = output
    uniform = scalars.label_smoothing / classes
    exps = buffers.exps
    masses = q is not None or uniform > 0.0
    factors = row_factors(row, scale, scalars, masses, exact)
    of_target, of_max = special_entries(y, q, setup, row, factors, buffers, argmax)
    if factors.before != 1.0 and scalars.softcap == math.inf:
        multiply(exps, classes, factors.before)
    wide = in_every_lane(exps, factors)
    start = elements_to_boundary(grad) if streaming else 0
    for c in range(start - LANES if start else 0, classes, LANES):
        at = max(c, 0)
        g = gradient_entries(q, setup, wide, buffers, uniform, grad, at)
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
    buffers = row_buffers(space, classes)
    setup = weight, classes, scalars, is_float64(space)
    for i in range(count):
        x = row_pointer(logits, i)
        y, q = -1, row_or_none(probs, i)
        if targets is not None:
            y = targets[i]
            if y < 0:
                continue
        loss, lse, row, argmax = loss_and_sums(x, y, q, setup, buffers)
        per_row.losses[i], per_row.lses[i] = loss, lse
        if grad is not None:
            output = per_row.scale[i * per_row.scale_step], streaming
            write_gradient(y, q, setup, output, buffers, row, argmax, row_pointer(grad, i))


@jit
def softmax_range(count, logits, classes, scalars, log, out, buffers, exact):
    """Some rows: probabilities, or their logarithms −d_c − log s."""
    exps = buffers.exps
    for i in range(count):
        x, p = row_pointer(logits, i), row_pointer(out, i)
        peak = peak_of(constant_for(exps, row_max(x, classes)), scalars, exact)
        if not abs(first_lane(peak.z) / divisor(scalars)) < math.inf:
            fill(p, classes, math.nan)
            continue
        others = row_exponentials(x, classes, peak, scalars, exact, (buffers, False))
        log_s, log_s_low, unit = log_of_sum(others[0], others[1], exact)
        log_s, log_s_low = constant_for(exps, log_s * unit), constant_for(exps, log_s_low * unit)
        factors = in_every_lane(exps, probability_factors(others[0], others[1], exact))
        for c in range(0, classes, LANES):
            if log:
                some = as_float64(load_padded(x, classes, c, 0.0))
                gap, error, _ = gap_below(peak, some, scalars, exact)
                value = log_probability(gap, error, log_s, log_s_low, exact)
            else:
                value = entries(load(exps, c), factors, exact)
            store_padded(p, classes, c, cast_for(p, value) + constant_for(p, 0.0))
