"""Long rows against a dense teacher's logits, in float32: cross-entropy and forward KL.

    a_c = s_c − max s,  b_c = the same of the teacher,  e = exp(a),  w = exp(b)
    p   = e / Σe,  q = w / Σw,  y_c = ln q_c − ln p_c = r − (a_c − b_c),  r = ln Σe − ln Σw

    1. the largest logits of the next row         waits for the memory that is read
    2. e and w with their sums; a − b, or a       waits for arithmetic
    3. the value, and the gradient F·e − P·w      waits for the memory that is written

Passes 1 and 2 are one loop, each of 16 classes; pass 3 reads what pass 2 left in the cache. So both
rows are read from memory once. With pass 3 in the same loop, as in `long_rows_fast`, it ran out of
registers and took a third longer.

The value of forward KL is Σ q·(y + expm1(−y)), of which no term is negative. r is off by some
h ≈ 10⁻⁸, the error of the sums, to which that sum is blind but for h + expm1(−h), about h²/2: where
the rows are close to each other, h = −ln Σ q·exp(−y) comes from the same loop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit, jit, log1p
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for
from xentcli.backends.cpu.load_store import (
    advance,
    load,
    pointer_at,
    store,
    store_masked,
    stream_store,
)
from xentcli.backends.cpu.long_rows_fast_passes import long_row_offsets
from xentcli.backends.cpu.row_ops import (
    elements_to_boundary,
    find_rows_not_ignored,
    load_padded,
    max_across,
    row_max,
    row_or_none,
    row_pointer,
    store_padded,
    sum_across,
    write_ignored_rows,
)
from xentcli.backends.cpu.simd import (
    LANES,
    absolute,
    constant,
    equal,
    fma,
    lanes_below,
    less,
    select,
    select_max,
)
from xentcli.backends.cpu.teacher_formulas import (
    CE,
    NEAR_F32,
    excess,
    excess_series_f32,
    signed_log1p,
)
from xentcli.backends.cpu.teacher_pass import (
    LATENCY,
    ONE_F32,
    exp_pass,
    min_across,
    others_of,
    softmax_of,
    two_singles,
)

TINY = 2.0**-126
# Of the other exponentials of the student, for each class: below it float32 has too few of them.
LEAST = 2.0**-110
MOST = 2.0**70  # of a gap: its product with an exponential is a float32


class RowValues(NamedTuple):
    """What pass 3 needs of a row, besides the buffers."""

    r_high: Any  # r, for float32
    r_low: Any
    ratio: Any  # Σw / Σe
    factor: Any  # F of e, in two float32
    factor_low: Any
    pull: Any  # −P of w
    pull_low: Any
    both: Any  # the gradient where both e and w are the largest: nothing cancels there
    in_range: Any
    teacher_total: Any  # Σw
    log_total: Any  # ln Σe


@inline_jit
def fits(value):
    """Whether a factor of exponentials is a float32 in two words."""
    return value == 0.0 or 2.0**-114 <= abs(value) <= 2.0**-25


@inline_jit
def row_values(others, others_t, scale):
    """r and the factors of a row, from its sums and its scale over the temperature."""
    total, total_t = 1.0 + others, 1.0 + others_t
    factor, pull = scale / total * (1.0 / ONE_F32), scale / total_t * (-1.0 / ONE_F32)
    log_total = log1p(others, 0.0)[0]
    r_high, r_low = two_singles(log_total - log1p(others_t, 0.0)[0])
    both = scale / total * ((others_t - others) / total_t)
    in_range = fits(factor) and fits(pull)
    factors, pulls = two_singles(factor), two_singles(pull)
    return RowValues(
        r_high,
        r_low,
        total_t / total,
        factors[0],
        factors[1],
        pulls[0],
        pulls[1],
        both,
        in_range,
        total_t,
        log_total,
    )


@inline_jit
def value_terms(buffers, c, values, cross):
    """16 terms of the value times Σw·2⁴⁸, and q·y where y is small."""
    exps, weights, gaps = buffers
    w, gap = load(weights, c), load(gaps, c)
    zero, more = constant(w, 0.0), select_max(w, constant(w, TINY))
    if cross:
        return more * (zero - gap), zero
    y = (constant(w, values.r_high) - gap) + constant(w, values.r_low)
    near = less(absolute(y), constant(y, NEAR_F32))
    small = select(near, y, zero)
    series = w * (small * small * excess_series_f32(zero - small))
    # A class that the teacher excludes has y = −inf, one that only the student does y = +inf.
    cost = select(less(gap, constant(gap, math.inf)), more * (y - constant(y, 1.0)), zero)
    far = fma(load(exps, c), constant(w, values.ratio), cost)
    return select(near, series, far), w * small


@inline_jit
def gradient_entries(grad, buffers, c, values):
    """F·e − P·w of 16 classes for the gradient: P·w is rounded, and the difference; never −0.0."""
    e, w = load(buffers[0], c), load(buffers[1], c)
    pulled = w * constant(w, values.pull)
    lost = fma(w, constant(w, values.pull), constant(w, 0.0) - pulled)
    low = fma(e, constant(e, values.factor_low), fma(w, constant(w, values.pull_low), lost))
    g = fma(e, constant(e, values.factor), pulled + low)
    one = constant(e, ONE_F32)
    both = select(equal(w, one), constant(e, values.both), g)
    return cast_for(grad, select(equal(e, one), both, g)) + constant_for(grad, 0.0)


@inline_jit
def add_terms(sums, buffers, c, values, cross):
    """The sums of the value's terms, and of q·y where y is small, with those of 16 classes."""
    term, small = value_terms(buffers, c, values, cross)
    return sums[0] + as_float64(term), sums[1] + small


@inline_jit
def write_and_sum(classes, buffers, values, cross, grad, streaming):
    """Pass 3: the gradient, and those sums."""
    zero = constant_for(buffers[0], 0.0)
    sums = as_float64(zero), zero
    start = elements_to_boundary(grad) if streaming else 0
    store_masked(grad, 0, lanes_below(start), gradient_entries(grad, buffers, 0, values))
    body = (classes - start) // LANES * LANES
    for c in range(0, body, LANES):
        sums = add_terms(sums, buffers, c, values, cross)
        g = gradient_entries(grad, buffers, c + start, values)
        if streaming:
            stream_store(grad, c + start, g)
        else:
            store(grad, c + start, g)
    for c in range(body, classes, LANES):
        sums = add_terms(sums, buffers, c, values, cross)
    # Not as a full vector that overlaps what was streamed, which would have to be waited for.
    end = start + body
    g = gradient_entries(grad, buffers, end, values)
    store_masked(grad, end, lanes_below(classes - end), g)
    return sums


@inline_jit
def sum_terms(classes, buffers, values, cross):
    """Those sums alone."""
    zero = constant_for(buffers[0], 0.0)
    sums = as_float64(zero), zero
    for c in range(0, classes, LANES):
        sums = add_terms(sums, buffers, c, values, cross)
    return sums


@inline_jit
def value_of(sums, values, cross):
    """The value of a row, from the sums of its terms."""
    unit = 1.0 / ONE_F32 / values.teacher_total
    zero = constant(sums[0], 0.0)
    total = sum_across(sums[0], zero)[0] * unit
    if cross:
        return total + values.log_total
    small = sum_across(as_float64(sums[1]), zero)[0] * unit
    if total < 2.0**-20:
        h = 0.0 - signed_log1p(total - small)
        total -= excess(h)
    return total if total > 0.0 or math.isnan(total) else 0.0


@inline_jit
def copy_row(x, grad, classes):
    """Leave the logits where the gradient should have been."""
    for c in range(0, classes, LANES):
        store_padded(grad, classes, c, cast_for(grad, load_padded(x, classes, c, 0.0)))


@inline_jit
def write_row(x, grad, classes, buffers, values, ready, how):
    """The gradient of a row, and its value, which is NaN unless it is `ready`."""
    cross, streaming, overwrites = how
    value = math.nan
    if grad is None:
        if ready:
            value = value_of(sum_terms(classes, buffers, values, cross), values, cross)
    else:
        if ready:
            sums = write_and_sum(classes, buffers, values, cross, grad, streaming)
            value = value_of(sums, values, cross)
        elif overwrites:
            copy_row(x, grad, classes)
    return value


@jit
def dense_fast_range(count, logits, teacher, targets, shared, per_row, grad, space, mode):
    """Some rows; `space` is of float32. Rows with numbers that float32 cannot represent on the way
    get the value NaN and no gradient: they are computed again, by another kernel."""
    classes, scalars = shared
    write_ignored_rows(count, classes, targets, per_row, grad)
    second, indices, _, _, _ = long_row_offsets(classes, count, 0)
    rows = pointer_at(space, indices, targets)
    n = find_rows_not_ignored(count, targets, rows)
    buffers = (
        advance(space, LATENCY),
        advance(pointer_at(space, second, space), LATENCY),
        pointer_at(space, 2 * second, space),
    )
    how = scalars.divergence == CE, mode[0], mode[1]
    peak, teacher_peak = 0.0, 0.0
    if n > 0:
        peak = row_max(row_pointer(logits, rows[0]), classes)
        teacher_peak = row_max(row_pointer(teacher, rows[0]), classes)
    for k in range(n):
        i, j = rows[k], rows[min(k + 1, n - 1)]
        x, t = row_pointer(logits, i), row_pointer(teacher, i)
        softmaxes = (
            softmax_of(space, peak, scalars.temperature),
            softmax_of(space, teacher_peak, scalars.teacher_temperature),
        )
        both = row_pointer(logits, j), row_pointer(teacher, j), x, t
        state = exp_pass(both, classes, softmaxes, how[0], buffers)
        others, others_t = others_of(state.student.sums), others_of(state.teacher.sums)
        scale = per_row.scale[i * per_row.scale_step] / scalars.temperature
        values = row_values(others, others_t, scale)
        per_row.lses[i] = peak / scalars.temperature + values.log_total
        ready = values.in_range and others >= classes * LEAST
        ready = ready and min_across(state.least) > -MOST
        ready = ready and abs(peak) + abs(teacher_peak) < math.inf
        g = row_or_none(grad, i)
        per_row.losses[i] = write_row(x, g, classes, buffers, values, ready, how)
        peak, teacher_peak = max_across(state.maximum), max_across(state.teacher_maximum)
