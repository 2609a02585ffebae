"""Long rows with any target and any option: one row at a time, 16 classes at a time, in float64.

    1. the largest logit
    2. e_c, stored in a buffer that stays in the cache, and their sum with its rounding error;
       with probabilities or smoothing also Σ a_c and Σ a_c·d_c
    3. the gradient, written past the caches where it is large

Passes 1 and 2 are in `long_rows_pass`, pass 3 in `long_rows_gradient`. A row with a NaN has the
exponential NaN of it.
"""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import inline_jit, jit
from xentcli.backends.cpu.exponential import ONE, SLOPE_ONE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    Masses,
    divisor,
    finish_row,
    hot_gap,
    largest,
    log_of_sum,
    log_probability,
)
from xentcli.backends.cpu.gradient_formulas import entries, in_every_lane, probability_factors
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64
from xentcli.backends.cpu.load_store import load
from xentcli.backends.cpu.long_rows_gradient import OneClass, Specials, write_gradient
from xentcli.backends.cpu.long_rows_masses import Setup, setup_of, total_masses
from xentcli.backends.cpu.long_rows_pass import exp_pass, gap_apart, gap_of, row_buffers, top_of
from xentcli.backends.cpu.row_ops import (
    element,
    fill,
    index_of,
    load_padded,
    row_max,
    row_or_none,
    row_pointer,
    store_padded,
    write_ignored_rows,
)
from xentcli.backends.cpu.simd import LANES, first_lane


@inline_jit
def class_of(top, exps, x, scalars, exact):
    """One class, by the formulas for 16."""
    gap, error, slope = gap_apart(top, constant_for(exps, x), scalars, exact)
    e, _ = exp_of_gap(gap, error, exact)
    if scalars.softcap == math.inf:
        return OneClass(first_lane(gap), first_lane(error), first_lane(e), SLOPE_ONE)
    return OneClass(first_lane(gap), first_lane(error), first_lane(e), first_lane(slope))


@inline_jit
def special_classes(x, y, q, setup, exps, top, largest_x):
    """The target, and where all classes have masses the largest logit."""
    scalars, exact = setup.scalars, setup.exact
    target = OneClass(0.0, 0.0, ONE, SLOPE_ONE)
    of_max, argmax, is_target = target, -1, False
    if q is None:
        target = class_of(top, exps, element(x, y), scalars, exact)
        is_target = target.e == ONE
    if setup.has_masses:
        if scalars.softcap < math.inf:
            of_max = class_of(top, exps, largest_x, scalars, exact)
        argmax = index_of(x, setup.classes, largest_x)
        is_target = argmax == y
    return Specials(target, of_max, y, argmax, is_target)


@inline_jit
def loss_and_sums(q, setup, top, specials, others, masses):
    """Loss, log-sum-exp, and what the gradient needs beside the exponentials."""
    scalars, exact = setup.scalars, setup.exact
    hot, mass_of_max, rest, distance = 0.0, 0.0, 0.0, (0.0, 0.0)
    if q is None:
        hot = (1.0 - scalars.label_smoothing) * setup.weight[specials.y]
        distance = hot_gap(hot, specials.target.gap, specials.target.error, exact)
    if setup.has_masses:
        gaps, mass_of_max, rest = total_masses(masses, q, setup, specials.argmax)
        distance = distance[0] + gaps, distance[1]
    limit = largest(first_lane(top.peak.z), first_lane(top.peak.z_low), scalars, exact)
    parts = Masses(hot, mass_of_max, rest, specials.max_is_target)
    return finish_row(limit, others, parts, distance, scalars, exact)


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
    setup = setup_of(weight, classes, scalars, probs, exact)
    with_slopes = grad is not None and scalars.softcap < math.inf
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
        next_largest, others, masses = exp_pass(rows, top, q, setup, buffers, with_slopes)
        specials = special_classes(x, y, q, setup, buffers.exps, top, largest_x)
        loss, lse, sums = loss_and_sums(q, setup, top, specials, others, masses)
        per_row.losses[i], per_row.lses[i] = loss, lse
        if grad is not None:
            scale, g = per_row.scale[i * per_row.scale_step], row_pointer(grad, i)
            write_gradient(q, setup, scale, streaming, buffers, sums, specials, g)
        i, largest_x = after, next_largest


@jit
def softmax_range(count, logits, classes, scalars, log, out, buffers, exact):
    """Some rows: probabilities, or their logarithms −d_c − log s."""
    exps = buffers.exps
    setup = Setup(exps, classes, scalars, exact, 0.0, False, False, 0.0, 0.0)
    largest_x = row_max(row_pointer(logits, 0), classes) if count > 0 else 0.0
    for i in range(count):
        x, p = row_pointer(logits, i), row_pointer(out, i)
        rows = row_pointer(logits, min(i + 1, count - 1)), x
        top = top_of(exps, largest_x, scalars, exact)
        largest_x, others, _ = exp_pass(rows, top, None, setup, buffers, False)
        if math.isnan(others[0]) or not abs(first_lane(top.peak.z) / divisor(scalars)) < math.inf:
            fill(p, classes, math.nan)
            continue
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
