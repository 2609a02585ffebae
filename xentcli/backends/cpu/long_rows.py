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

from xentcli.backends.cpu.arithmetic import inline_jit, jit
from xentcli.backends.cpu.exponential import ONE, SLOPE_ONE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    Masses,
    divisor,
    finish_row,
    finite_or_zero,
    hot_gap,
    largest,
    log_of_sum,
    log_probability,
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
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64
from xentcli.backends.cpu.load_store import (
    load,
    store_masked,
    stream_store,
)
from xentcli.backends.cpu.long_rows_pass import (
    exp_pass,
    gap_of,
    mass_of_class,
    masses_from,
    row_buffers,
    top_of,
)
from xentcli.backends.cpu.row_ops import (
    element,
    elements_to_boundary,
    fill,
    index_of,
    load_padded,
    max_across,
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
from xentcli.backends.cpu.simd import LANES, first_lane, lanes_below
from xentcli.backends.cpu.softcap import times_slope


class OneClass(NamedTuple):
    """The target, or the class of the largest logit."""

    gap: Any
    error: Any
    e: Any
    slope: Any


@jit
def class_of(top, exps, x, scalars, exact):
    """One class, by the formulas for 16."""
    gap, error, slope = gap_of(top, constant_for(exps, x), scalars, exact)
    e, _ = exp_of_gap(gap, error, exact)
    if scalars.softcap == math.inf:
        return OneClass(first_lane(gap), first_lane(error), first_lane(e), SLOPE_ONE)
    return OneClass(first_lane(gap), first_lane(error), first_lane(e), first_lane(slope))


class Specials(NamedTuple):
    """What is known of the classes whose entries have formulas of their own."""

    target: Any
    max: Any
    argmax: Any
    max_is_target: Any


@inline_jit
def special_classes(x, y, q, setup, exps, top, largest_x):
    """The target, and where all classes have masses the largest logit: its index, or −1."""
    _, classes, scalars, exact = setup
    target = OneClass(0.0, 0.0, 0.0, SLOPE_ONE)
    of_max, argmax, is_target = target, -1, False
    if q is None:
        target = class_of(top, exps, element(x, y), scalars, exact)
        is_target = target.e == ONE
    if q is not None or scalars.label_smoothing > 0.0:
        of_max = class_of(top, exps, largest_x, scalars, exact)
        argmax = index_of(x, classes, largest_x)
        is_target = argmax == y
    return Specials(target, of_max, argmax, is_target)


@inline_jit
def loss_and_sums(y, q, setup, top, specials, sums):
    """Loss, log-sum-exp, and what the gradient needs beside the exponentials."""
    weight, classes, scalars, exact = setup
    uniform = scalars.label_smoothing / classes
    ones, high, low = sums_across((sums.ones, sums.high, sums.low))
    others = total_of(ones, high, low, exact)
    hot, mass_of_max, rest, distance = 0.0, 0.0, 0.0, (0.0, 0.0)
    if q is None:
        hot = (1.0 - scalars.label_smoothing) * weight[y]
        distance = hot_gap(hot, specials.target.gap, specials.target.error, exact)
    if q is not None or uniform > 0.0:
        mass_of_max = mass_of_class(q, weight, specials.argmax, scalars, uniform)
        high, low = sum_across(sums.gaps, sums.gaps_low)
        distance = distance[0] + (high + finite_or_zero(low, high)), distance[1]
        total, error = sum_across(sums.masses, sums.masses_low)
        rest = (total - mass_of_max) + error
    masses = Masses(hot, mass_of_max, rest, specials.max_is_target)
    z, z_low = first_lane(top.peak.z), first_lane(top.peak.z_low)
    if top.is_near:
        z, z_low = first_lane(top.cap.z), 0.0
    limit = largest(z, z_low, scalars, exact)
    return finish_row(limit, others, masses, distance, scalars, exact)


@inline_jit
def special_entries(y, q, setup, row, factors, specials):
    """The entries of the target and of the largest logit."""
    weight, classes, scalars, exact = setup
    uniform = scalars.label_smoothing / classes
    of_target, of_max, is_max = 0.0, 0.0, specials.max_is_target
    if q is None:
        _, _, e, slope = specials.target
        if uniform > 0.0 or scalars.z_loss > 0.0:
            hot = (1.0 - scalars.label_smoothing) * weight[y]
            a = mass_of_class(q, weight, y, scalars, uniform) + hot
            of_target = entry_with_mass(e, a, is_max, row, factors, slope, exact)
        else:
            of_target = entry_of_target(e, is_max, row, factors, slope, exact)
    if q is not None or uniform > 0.0:
        _, _, e, slope = specials.max
        a = mass_of_class(q, weight, specials.argmax, scalars, uniform)
        of_max = entry_with_mass(e, a, True, row, factors, slope, exact)
    return of_target, of_max


@inline_jit
def gradient_entries(q, setup, factors, buffers, uniform, grad, c):
    """The gradient of classes c to c + 15, without the one-hot part of an index target."""
    weight, classes, scalars, exact = setup
    e = load(buffers.exps, c)
    if scalars.softcap < math.inf:
        e = e * factors.before
    if q is not None or uniform > 0.0:
        pull = masses_from(q, weight, classes, c, scalars, uniform) * factors.per_mass
        if scalars.softcap < math.inf:
            pull = times_slope(pull, load(buffers.slopes, c))
        g = entries_with_masses(e, pull, factors, exact)
    else:
        g = entries(e, factors, exact)
        if scalars.z_loss > 0.0:
            g = g * factors.unit
    return cast_for(grad, g) + constant_for(grad, 0.0)  # −0.0 becomes 0.0


@inline_jit
def write_gradient(y, q, setup, output, buffers, row, specials, grad):
    """Pass 3: the gradient of one row into the caller's buffer, which may be x itself."""
    _, classes, scalars, exact = setup
    scale, streaming = output
    uniform = scalars.label_smoothing / classes
    exps = buffers.exps
    masses = q is not None or uniform > 0.0
    factors = row_factors(row, scale, scalars, masses, exact)
    of_target, of_max = special_entries(y, q, setup, row, factors, specials)
    argmax = specials.argmax
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


@inline_jit
def next_row(i, count, targets):
    """The first row after row i that is not ignored; `count` if there is none."""
    i += 1
    if targets is not None:
        while i < count and targets[i] < 0:
            i += 1
    return i


@jit
def general_range(count, logits, targets, probs, shared, per_row, grad, space, streaming):
    """Some rows, with class indices or with probabilities as targets."""
    weight, classes, scalars = shared
    if targets is not None:
        write_ignored_rows(count, classes, targets, per_row, grad)
    buffers, exact = row_buffers(space, classes), is_float64(space)
    setup = weight, classes, scalars, exact
    has_masses = probs is not None or scalars.label_smoothing > 0.0
    wants = has_masses, grad is not None and scalars.softcap < math.inf
    i, largest_x = next_row(-1, count, targets), 0.0
    if i < count:
        largest_x = row_max(row_pointer(logits, i), classes)
    while i < count:
        after = next_row(i, count, targets)
        x, q, y = row_pointer(logits, i), row_or_none(probs, i), -1
        if targets is not None:
            y = targets[i]
        rows = row_pointer(logits, min(after, count - 1)), x
        top = top_of(buffers.exps, largest_x, scalars, exact)
        maximum, sums = exp_pass(rows, top, q, setup, buffers, wants)
        specials = special_classes(x, y, q, setup, buffers.exps, top, largest_x)
        loss, lse, row = loss_and_sums(y, q, setup, top, specials, sums)
        per_row.losses[i], per_row.lses[i] = loss, lse
        if grad is not None:
            output = per_row.scale[i * per_row.scale_step], streaming
            write_gradient(y, q, setup, output, buffers, row, specials, row_pointer(grad, i))
        i, largest_x = after, max_across(maximum)


@jit
def softmax_range(count, logits, classes, scalars, log, out, buffers, exact):
    """Some rows: probabilities, or their logarithms −d_c − log s."""
    exps = buffers.exps
    setup = exps, classes, scalars, exact
    for i in range(count):
        x, p = row_pointer(logits, i), row_pointer(out, i)
        top = top_of(exps, row_max(x, classes), scalars, exact)
        if not abs(first_lane(top.peak.z) / divisor(scalars)) < math.inf:
            fill(p, classes, math.nan)
            continue
        rows = row_pointer(logits, min(i + 1, count - 1)), x
        _, sums = exp_pass(rows, top, None, setup, buffers, (False, False))
        ones, high, low = sums_across((sums.ones, sums.high, sums.low))
        others = total_of(ones, high, low, exact)
        log_s, log_s_low, unit = log_of_sum(others[0], others[1], exact)
        log_s, log_s_low = constant_for(exps, log_s * unit), constant_for(exps, log_s_low * unit)
        factors = in_every_lane(exps, probability_factors(others[0], others[1], exact))
        for c in range(0, classes, LANES):
            if log:
                some = as_float64(load_padded(x, classes, c, 0.0))
                gap, error, _ = gap_of(top, some, scalars, exact)
                value = log_probability(gap, error, log_s, log_s_low, exact)
            else:
                value = entries(load(exps, c), factors, exact)
            store_padded(p, classes, c, cast_for(p, value) + constant_for(p, 0.0))
