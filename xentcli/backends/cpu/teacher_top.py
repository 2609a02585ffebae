"""A teacher that stores K classes of each row: the pass over the row, as without a teacher, and the
K entries that `teacher_stored` computes.

    1. the largest logit
    2. e = exp(−d), and their sum
    3. grad = e·factor, and the K entries over it

At temperature 1 the three passes are those of `long_rows_fast`, three rows at a time; else it is
one row at a time, in float64.
"""

from __future__ import annotations

import math

import numpy as np

from xentcli.backends.cpu.arithmetic import add, add_exponential, inline_jit, jit
from xentcli.backends.cpu.exp_pipeline import LATENCY, start_pipeline
from xentcli.backends.cpu.exponential import F32_SCALE_BITS, ONE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    RowSums,
    divide,
    finite_or_zero,
    gap_over,
)
from xentcli.backends.cpu.gradient_formulas import entries, in_every_lane, row_factors
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64
from xentcli.backends.cpu.load_store import advance, float64_at, load, pointer_at, prefetch, store
from xentcli.backends.cpu.long_rows_again import (
    float64_exponentials,
    replace_by_gradient,
    write_float64_gradient,
)
from xentcli.backends.cpu.long_rows_fast_passes import (
    GradientScale,
    exp_pass,
    exp_pass_and_write,
    exp_scale,
    long_row_offsets,
)
from xentcli.backends.cpu.row_ops import (
    find_rows_not_ignored,
    load_padded,
    max_across,
    row_max,
    row_pointer,
    store_padded,
    sums_across,
    write_ignored_rows,
)
from xentcli.backends.cpu.simd import LANES, constant, equal, lanes_below, select
from xentcli.backends.cpu.teacher_entries import (
    finish_stored,
    replace_exponentials,
    scatter_entries,
    write_nan,
)
from xentcli.backends.cpu.teacher_formulas import CE, SUBSET, costs_of, softmax_options
from xentcli.backends.cpu.teacher_stored import (
    pipeline_sums,
    remove_stored,
    share_of,
    store_exponentials,
    stored_max,
    stored_row,
    sums_of_buffer,
)

NO_TARGET = -LANES  # for a pass that writes the target's entry with the others
# The stored classes' share of a row from which the sum of the others is not taken as a difference:
# that of float64 numbers may be off by their last bits, in float32 the very same are taken away.
MOST_TAKEN = 0.75
MOST_TAKEN_F32 = 1.0 - 2.0**-12
# A value below which the others are added up again, in float64: their error would be a part of it.
CLOSE = 2.0**-8


@inline_jit
def buffer_sums(x, exps, classes, peak, student, exact):
    """Pass 2 in float64: store exponentials, multiplied by 2⁹⁰⁰; their three sums."""
    zero, one = constant_for(exps, 0.0), constant_for(exps, ONE)
    sums = zero, zero, zero
    for c in range(0, classes, LANES):
        value = as_float64(load_padded(x, classes, c, -math.inf))
        gap, error = gap_over(constant(value, peak), value, student, exact)
        e, lost = exp_of_gap(gap, finite_or_zero(error, gap), exact)
        e = select(equal(value, value), e, value)
        store(exps, c, e)
        sums = add_exponential(sums, e, one)
        if exact:
            sums = sums[0], sums[1], sums[2] + lost
        prefetch(x, c + classes)
    return sums_across(sums)


@jit
def sums_again(x, stored, classes, peak, student):
    """The three sums of the classes that are not stored, in float64: from one stored class to the
    next, of which the order is ascending."""
    zero = constant_for(stored.gaps, 0.0)
    one, sums = constant(zero, ONE), (zero, zero, zero)
    begin = 0
    for slot in range(stored.slots + 1):
        end = stored.classes[slot] if slot < stored.slots else -1
        end = end if end >= 0 else classes
        for c in range(begin, end, LANES):
            e = select(
                lanes_below(end - c), float64_exponentials(x, classes, c, peak, student), zero
            )
            sums = add_exponential(sums, e, one)
        begin = end + 1
        if end == classes:
            break
    return sums_across(sums)


@inline_jit
def sums_of_others(x, exps, stored, sums, its_sums, row, again, student):
    """The three sums of the classes that are not stored, multiplied by 2⁹⁰⁰.

    Where the stored classes are most of the row the others are added up without them, from the
    buffer; and `again`, or where float32 has none of them, from the logits in float64.
    """
    peak, classes, _ = row
    scale = exp_scale(exps)
    more, least = ONE / scale, classes * (ONE * 2.0**-146)
    ones, high, low = sums[0] * more, sums[1] * more, sums[2] * more
    if is_float64(exps):
        again = False
    elif high + low < least:
        again = True
    if again:
        return sums_again(x, stored, classes, peak, student)
    total, part = ones + (high + low), its_sums[0] + its_sums[1]
    if part > total * (MOST_TAKEN if is_float64(exps) else MOST_TAKEN_F32):
        remove_stored(exps, stored)
        ones, high, low = sums_of_buffer(exps, classes, scale)
        if is_float64(exps) or (ones + (high + low)) * more >= least:
            return ones * more, high * more, low * more
        return sums_again(x, stored, classes, peak, student)
    taken = its_sums
    if not is_float64(exps):
        ones_taken, others_taken = pipeline_sums(x, peak, stored)
        taken = ones_taken * more, others_taken[0] * more, others_taken[1] * more
    high, low = add(high, low - taken[2], 0.0 - taken[1])
    return ones - taken[0], high, low


@jit
def finish_top(x, exps, stored, sums, row, scalars, scale):
    """Value and log-sum-exp of a row, and its sums for the gradient, which end with the factor of
    the classes that are not stored."""
    peak, classes, exact = row
    student, costs, tail = softmax_options(scalars.temperature), costs_of(scalars), scalars.tail
    by = divide(scale, scalars.temperature)
    again, value, factor, lse = False, 0.0, 0.0, 0.0
    while True:
        its_sums = store_exponentials(x, peak, stored, student, exact)
        rest = sums_of_others(x, exps, stored, sums, its_sums, row, again, student)
        share = share_of(its_sums, rest, exact)
        others, others_low = share.others, share.others_low
        lse = divide(peak, scalars.temperature) + share.log_sum
        if tail == SUBSET:
            its_sums = store_exponentials(x, stored_max(x, stored), stored, student, exact)
            share = share_of(its_sums, (0.0, 0.0, 0.0), exact)
        value, factor = finish_stored(stored, share, costs, tail, classes, by)
        if again or tail == SUBSET or costs.divergence == CE or is_float64(exps):
            break
        if not abs(value) < CLOSE:
            break
        again = True
    if not abs(lse) < math.inf:
        write_nan(stored)
        value, lse, factor = math.nan, math.nan, math.nan
    return value, lse, RowSums(others, others_low, 0.0, factor, 0.0)


@inline_jit
def pass_factor(x, exps, sums, row, scale, scalars):
    """The factor of the exponentials for pass 3. Exponentials that it cannot be a factor of are
    replaced by the gradient."""
    peak, classes, exact = row
    student = softmax_options(scalars.temperature)
    factors = row_factors(sums, scale, student, False, exact)
    near = factors.before == 1.0 and factors.unit == 1.0
    if exact:
        if not near:
            replace_by_gradient(classes, factors, exps)
        return GradientScale(factors.high, factors.low, 0.0, near)
    small = factors.high * (ONE / 2.0**F32_SCALE_BITS)
    high = np.float64(np.float32(small))
    in_range = near and (small == 0.0 or 2.0**-114 <= abs(small) <= 2.0**-25)
    in_range = in_range and sums.others >= classes * (ONE * 2.0**-146)
    if not in_range:
        write_float64_gradient(x, classes, peak, student, factors, exps)
    return GradientScale(high, small - high, 0.0, in_range)


@inline_jit
def write_again(grad, exps, classes, grad_scale):
    """Write the gradient of a row again if it is in the buffer already."""
    if not grad_scale.in_range:
        for c in range(0, classes, LANES):
            store_padded(grad, classes, c, cast_for(grad, load(exps, c)) + constant_for(grad, 0.0))


@jit
def top_fast_range(count, logits, top, targets, shared, per_row, grad, space, streaming):
    """Some rows at temperature 1; `space` is of the dtype that is computed in."""
    classes, scalars, top_at = shared
    write_ignored_rows(count, classes, targets, per_row, grad)
    second, indices, _, _, _ = long_row_offsets(classes, count, 0)
    rows = pointer_at(space, indices, targets)
    n = find_rows_not_ignored(count, targets, rows)
    even = advance(space, LATENCY)
    odd = advance(pointer_at(space, second, space), LATENCY)
    exact, peak = is_float64(space), 0.0
    grad_scale, written = GradientScale(0.0, 0.0, 0.0, True), True
    for k in range(n + 2 if n else 0):
        i = rows[min(max(k - 1, 0), n - 1)]
        next_x, x = row_pointer(logits, rows[min(k, n - 1)]), row_pointer(logits, i)
        exps, before = (odd, even) if k % 2 else (even, odd)
        peaks = constant_for(exps, peak), None
        state = start_pipeline(x, *peaks)
        if grad is None or k < 2:
            sums = exp_pass(state, (next_x, x), classes, 0, peaks, exps, True)
        else:
            h = rows[k - 2]
            g = row_pointer(grad, h)
            sums = exp_pass_and_write(
                state,
                (next_x, x),
                classes,
                peaks,
                (exps, before),
                grad_scale,
                (g, NO_TARGET, streaming),
            )
            write_again(g, before, classes, grad_scale)
            if not written:
                scatter_entries(stored_row(top, h, space, top_at), g)
        if 1 <= k <= n:
            stored = stored_row(top, i, space, top_at)
            low = as_float64(sums.low) + as_float64(sums.lost)
            parts = as_float64(sums.ones), as_float64(sums.high), low
            row, scale = (peak, classes, exact), per_row.scale[i * per_row.scale_step]
            value, lse, row_sums = finish_top(
                x, exps, stored, sums_across(parts), row, scalars, scale
            )
            per_row.losses[i], per_row.lses[i] = value, lse
            if grad is not None:
                grad_scale = pass_factor(x, exps, row_sums, row, scale, scalars)
                factor = grad_scale.high + grad_scale.low
                written = grad_scale.in_range and replace_exponentials(exps, stored, factor)
        peak = max_across(sums.maximum)


@jit
def top_range(count, logits, top, targets, shared, per_row, grad, space, streaming):
    """Some rows at any temperature."""
    classes, scalars, top_at = shared
    write_ignored_rows(count, classes, targets, per_row, grad)
    exps, exact, student = (
        float64_at(space, 0),
        is_float64(space),
        softmax_options(scalars.temperature),
    )
    for i in range(count):
        if targets[i] < 0:
            continue
        x, stored = row_pointer(logits, i), stored_row(top, i, space, top_at)
        peak = row_max(x, classes)
        sums = buffer_sums(x, exps, classes, peak, student, exact)
        row, scale = (peak, classes, exact), per_row.scale[i * per_row.scale_step]
        value, lse, row_sums = finish_top(x, exps, stored, sums, row, scalars, scale)
        per_row.losses[i], per_row.lses[i] = value, lse
        if grad is not None:
            g = row_pointer(grad, i)
            factors = row_factors(row_sums, scale, student, False, exact)
            write_factored(exps, classes, factors, exact, g)
            scatter_entries(stored, g)


@inline_jit
def write_factored(exps, classes, factors, exact, grad):
    """Pass 3 in float64."""
    wide = in_every_lane(exps, factors)
    for c in range(0, classes, LANES):
        g = entries(load(exps, c) * wide.before, wide, exact) * wide.unit
        store_padded(grad, classes, c, cast_for(grad, g) + constant_for(grad, 0.0))
