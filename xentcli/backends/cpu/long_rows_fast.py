"""Long rows with an index target and no option but weights and z-loss: three rows at a time.

A row takes three passes, each slow for a different reason:

    1. the largest logit                       waits for the memory that is read
    2. e_c = exp(x_c − max x), and their sum   waits for arithmetic
    3. grad_c = e_c·factor                     waits for the memory that is written

So one loop does all three at once, for a row, the row before and the row before that, 16 or 32
classes of each. Measured on 2 cores with AVX-512, 2²⁷ float32, C = 32,768: 53 ms, against 69 ms for
one row after the other with the next row prefetched, 90 ms without, and 29 ms for a copy.

float32 and the half types are computed in float32: the difference x − max x with its rounding
error, the sum with its own. A loss does without the rounding errors of the exponentials, and is
within 1.3 ULP of float32. For a gradient in float32 they are added to the sum, and the factor has
two words, so that an entry is rounded twice, in e and in the product, and stays within 2 ULP. One
in half types needs neither. Rows with numbers that float32 cannot represent on the way are computed
again, in float64. float64 has a wider range: see `formulas`.
"""

from __future__ import annotations

import numpy as np

from xentcli.backends.cpu.arithmetic import inline_jit, jit
from xentcli.backends.cpu.exp_pipeline import LATENCY, start_pipeline
from xentcli.backends.cpu.exponential import F32_SCALE_BITS, ONE, SLOPE_ONE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    gap_over,
    total_of,
)
from xentcli.backends.cpu.gradient_formulas import (
    entry_of_target,
    entry_with_mass,
    row_factors,
)
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64, itemsize
from xentcli.backends.cpu.load_store import (
    advance,
    float64_at,
    load,
    pointer_at,
)
from xentcli.backends.cpu.long_rows_again import (
    float64_sum,
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
from xentcli.backends.cpu.long_rows_losses import keep_row, sums_of_row, write_losses
from xentcli.backends.cpu.row_ops import (
    element,
    find_rows_not_ignored,
    largest_lane,
    row_pointer,
    store_float,
    store_padded,
    sums_across,
    total_across,
    write_ignored_rows,
)
from xentcli.backends.cpu.row_steps import buffer_for
from xentcli.backends.cpu.simd import LANES, constant, first_lane


@inline_jit
def write_out_of_range_row(grad, y, exps, classes, grad_scale):
    """Write the gradient of a row again if it is in the buffer already."""
    if not grad_scale.in_range:
        for c in range(0, classes, LANES):
            g = cast_for(grad, load(exps, c)) + constant_for(grad, 0.0)
            store_padded(grad, classes, c, g)
        store_float(grad, y, grad_scale.target)


@inline_jit
def others_of(sums, exps):
    """The sum of all exponentials but one largest, in two words, and the sum of the errors that
    are missing in it, multiplied by 2⁹⁰⁰, from the pipeline's sums."""
    ones, high, low = as_float64(sums.ones), as_float64(sums.high), as_float64(sums.low)
    if is_float64(exps):
        ones, high, low = sums_across((ones, high, low))
        found = total_of(ones, high, low, True)
        return found[0], found[1], 0.0
    more = ONE / exp_scale(exps)
    total = total_of(total_across(ones) * more, total_across(high + low) * more, 0.0, False)
    return total[0], 0.0, total_across(as_float64(sums.lost)) * more


@inline_jit
def row_others(x, row, exps, sums, scalars):
    """The same, and whether float32 was enough for it.

    The exponentials that are 0 in float32 count where the others are as small.
    """
    classes, peak, _ = row
    others, low, lost = others_of(sums, exps)
    enough = is_float64(exps) or not others < classes * (ONE * 2.0**-146)
    if not enough:
        others, low = float64_sum(x, classes, peak, scalars)
        lost = 0.0
    return others, low, lost, enough


@inline_jit
def gradient_scale(x, y, row, exps, scale, sums, scalars, enough):
    """What pass 3 of the row needs."""
    classes, peak, hot = row
    exact, target_x = is_float64(exps), element(x, y)
    factors = row_factors(sums, scale, scalars, False, exact)
    wide = as_float64(constant_for(x, 0.0))  # scalars would be a second copy of all formulas
    gap, error = gap_over(constant(wide, peak), constant(wide, target_x), scalars, exact)
    e, is_max = first_lane(exp_of_gap(gap, error, exact)[0]), target_x == peak
    if scalars.z_loss > 0.0:
        target = entry_with_mass(e, hot, is_max, sums, factors, SLOPE_ONE, exact)
    else:
        target = entry_of_target(e, is_max, sums, factors, SLOPE_ONE, exact)
    near = factors.before == 1.0 and factors.unit == 1.0
    if exact:
        if not near:
            replace_by_gradient(classes, factors, exps)
        return GradientScale(factors.high, factors.low, target, near)
    small = factors.high * (ONE / 2.0**F32_SCALE_BITS)
    high = np.float64(np.float32(small))
    in_range = enough and (small == 0.0 or 2.0**-114 <= abs(small) <= 2.0**-25)
    in_range = in_range and near
    if not in_range:
        write_float64_gradient(x, classes, peak, scalars, factors, exps)
    return GradientScale(high, small - high, target, in_range)


@inline_jit
def fast_rows(count, logits, targets, shared, per_row, grad, space, streaming, inverse):
    """Some rows; `space` is of the dtype that is computed in."""
    weight, classes, scalars = shared
    write_ignored_rows(count, classes, targets, per_row, grad)
    second, indices, _, _, _ = long_row_offsets(classes, count, 0)
    rows = pointer_at(space, indices, targets)
    n = find_rows_not_ignored(count, targets, rows)
    kept = float64_at(space, 2 * second)
    even = advance(space, LATENCY)
    odd = advance(pointer_at(space, second, space), LATENCY)
    peak, grad_scale = 0.0, GradientScale(0.0, 0.0, 0.0, True)
    for k in range(n + 2 if n else 0):
        i = rows[min(max(k - 1, 0), n - 1)]
        next_x = row_pointer(logits, rows[min(k, n - 1)])
        x = row_pointer(logits, i)
        both = next_x, x
        exps, before = (odd, even) if k % 2 else (even, odd)
        peaks = constant_for(space, peak), inverse
        state, buffer = start_pipeline(x, *peaks), buffer_for(x, exps, classes)
        if grad is None:
            sums = exp_pass(state, both, classes, 0, peaks, buffer, None)
        elif k < 2:
            sums = exp_pass(state, both, classes, 0, peaks, buffer, True)
        else:
            ptr, target = row_pointer(grad, rows[k - 2]), targets[rows[k - 2]]
            buffers, out = (buffer, buffer_for(x, before, classes)), (ptr, target, streaming)
            sums = exp_pass_and_write(state, both, classes, peaks, buffers, grad_scale, out)
            write_out_of_range_row(ptr, target, before, classes, grad_scale)
        next_peak = largest_lane(sums.maximum)
        if 1 <= k <= n:
            y = targets[i]
            row = classes, peak, weight[y]
            others, low, lost, enough = row_others(x, row, exps, sums, scalars)
            slot, target_x = (k - 1) % LANES, element(x, y)
            keep_row(kept, slot, peak, target_x, weight[y], (others, low))
            if slot == LANES - 1 or k == n:
                these = advance(rows, k - 1 - slot)
                write_losses(kept, slot + 1, these, per_row, scalars, is_float64(space))
            if grad is not None:
                if itemsize(grad.data) > 2:
                    others = others + lost
                both = others, low
                row_sums = sums_of_row(kept, row, target_x, both, scalars, is_float64(space))
                u = per_row.scale[i * per_row.scale_step]
                grad_scale = gradient_scale(x, y, row, exps, u, row_sums, scalars, enough)
        peak = next_peak


@jit
def fast_range(count, logits, targets, probs, shared, per_row, grad, space, streaming):
    """Some rows, without a temperature; `probs` is None."""
    fast_rows(count, logits, targets, shared, per_row, grad, space, streaming, None)


@jit
def tempered_range(count, logits, targets, probs, shared, per_row, grad, space, streaming):
    """Some rows, computed in float32, with a temperature; `probs` is None."""
    inverse = 1.0 / shared[2].temperature
    high = np.float64(np.float32(inverse))
    words = constant_for(space, high), constant_for(space, inverse - high)
    fast_rows(count, logits, targets, shared, per_row, grad, space, streaming, words)
