"""The work of one thread: a range of rows of a box (outer, C, inner), by the kernel for its C.

Rows are numbered in C order. Where the inner axis is longer than 1, as in images, the classes of a
row are not contiguous: long rows are then copied to a contiguous buffer, a few at a time, and go
through the same kernels with the same bits.
"""

from __future__ import annotations

import math
from typing import Any

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import inline_jit, jit
from xentcli.backends.cpu.divergence import divergence_range
from xentcli.backends.cpu.half_types import constant_for, is_float64
from xentcli.backends.cpu.load_store import (
    advance,
    float64_at,
    float64_or_none,
    load_int64,
    load_masked,
    pointer_at,
    prefetch,
    store_masked,
)
from xentcli.backends.cpu.long_rows import general_range, softmax_range
from xentcli.backends.cpu.long_rows_fast import fast_range, tempered_range
from xentcli.backends.cpu.long_rows_pass import row_buffers
from xentcli.backends.cpu.row_ops import BoxView, outer_and_inner, per_row_from, row_start
from xentcli.backends.cpu.row_statistics import statistics_range
from xentcli.backends.cpu.row_tiles import TileOutput, load_tile, tile_rows
from xentcli.backends.cpu.short_rows import (
    TileSums,
    losses_and_sums,
    softmax_tile,
    tile_exponentials,
    tile_size,
    write_gradients,
)
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    lanes_below,
    less_equal_or_nan,
    select,
    select_max,
)
from xentcli.backends.cpu.transpose import copy_transposed
from xentcli.backends.cpu.workspace import SHORT

PREFETCH_TARGETS = 256  # rows ahead


long_row_offsets = inline_jit(workspace.long_row_offsets)
short_row_offsets = inline_jit(workspace.short_row_offsets)
rows_per_chunk = inline_jit(workspace.rows_per_chunk)
copy_offset = inline_jit(workspace.copy_offset)


@inline_jit
def gather_rows(box, first, count, rows):
    """Copy some rows of a box to rows with contiguous classes."""
    classes = box.shape[1]
    o, i = outer_and_inner(box, first)
    row = 0
    while row < count:
        run = min(box.shape[2] - i, count - row)
        source, target = row_start(box, o, i), advance(rows, row * classes)
        copy_transposed(
            source, (box.class_stride, box.inner_stride), target, (1, classes), (classes, run)
        )
        row, o, i = row + run, o + 1, 0


@inline_jit
def scatter_rows(rows, box, first, count):
    """Copy rows with contiguous classes to some rows of a box."""
    classes = box.shape[1]
    o, i = outer_and_inner(box, first)
    row = 0
    while row < count:
        run = min(box.shape[2] - i, count - row)
        source, target = advance(rows, row * classes), row_start(box, o, i)
        copy_transposed(
            source, (classes, 1), target, (box.inner_stride, box.class_stride), (run, classes)
        )
        row, o, i = row + run, o + 1, 0


@inline_jit
def contiguous_rows(box, first, count, space, offset):
    """Some rows with contiguous classes: where they are if possible, otherwise a copy."""
    rows = box
    if box is not None:  # after a `return None` Numba would infer an Optional
        rows = gradient_rows(box, first, space, offset)
        if box.shape[2] > 1:
            gather_rows(box, first, count, rows.data)
    return rows


@inline_jit
def gradient_rows(box, first, space, offset):
    """Where to write the gradients of some rows: to the box, or to work space if its classes are
    not contiguous."""
    rows = box
    if box is not None:
        data, stride = row_start(box, first, 0), box.outer_stride
        if box.shape[2] > 1:
            data, stride = pointer_at(space, offset, box.data), box.shape[1]
        rows = BoxView(data, stride, 1, 1, box.shape)
    return rows


@inline_jit
def targets_from(targets, first):
    """Class indices from a row on."""
    rows = targets
    if targets is not None:
        rows = advance(targets, first)
    return rows


@inline_jit
def flush_gradient(rows, box, first, count):
    """Copy gradients from work space to the box, if they are there."""
    if box is not None:  # noqa: SIM102 (Numba prunes a whole block, not half a condition)
        if box.shape[2] > 1:
            scatter_rows(rows.data, box, first, count)


def _for_boxes(kernel: Any) -> Any:
    """Turn a kernel for contiguous rows into one for the rows `span` of a box."""

    @jit
    def box_range(span, logits, targets, probs, weight, scalars, per_row, grad, space):
        begin, end, streaming = span
        _, classes, inner = logits.shape
        copied = rows_per_chunk(classes) if inner > 1 else 0
        step = copied if inner > 1 else end - begin
        _, _, x_at, q_at, g_at = long_row_offsets(classes, step, copied)
        shared = weight, classes, scalars
        first = begin
        while first < end:
            count = min(step, end - first)
            x = contiguous_rows(logits, first, count, space, x_at)
            q = contiguous_rows(probs, first, count, space, q_at)
            g = gradient_rows(grad, first, space, g_at)
            t, r = targets_from(targets, first), per_row_from(per_row, first)
            kernel(count, x, t, q, shared, r, g, space, streaming != 0 and inner == 1)
            flush_gradient(g, grad, first, count)
            first += count

    return box_range


fast_boxes = _for_boxes(fast_range)
tempered_boxes = _for_boxes(tempered_range)
general_boxes = _for_boxes(general_range)


@jit
def short_boxes(span, logits, targets, probs, weight, scalars, per_row, grad, space):
    """The rows `span` of a box, 16 at a time. The loop uses pointers only: see `load_store`.

    The computation of 16 rows is one long dependency chain. So it is cut in two: while the
    exponentials of 16 rows are computed, the 16 rows before get their losses and gradients. (And
    with `grad` in place of `logits`, no row is overwritten before it has been read.)
    """
    classes = logits.shape[1]
    size = tile_size(classes)
    exps_at, q_at, g_at = short_row_offsets(classes)
    first_x, first_exps = space, float64_at(space, exps_at)
    setup = weight, classes, scalars
    zero = constant_for(weight, 0.0)
    at, tile = 0, TileSums(zero, zero, zero)
    keep_gaps = probs is not None or scalars.label_smoothing > 0.0
    for row in range(span[0] - LANES, span[1], LANES):
        xs, exps, sums = advance(first_x, at), advance(first_exps, 3 * at), tile
        at = size - at
        next_rows = tile_rows(logits, min(row + LANES, span[1] - 1), span[1], zero)
        peak = load_tile(logits, next_rows, classes, advance(first_x, at))
        tile = tile_exponentials(
            advance(first_x, at), setup, peak, advance(first_exps, 3 * at), keep_gaps
        )
        if row < span[0]:
            continue
        inside = lanes_below(span[1] - row)
        qs, y, not_ignored = float64_or_none(probs, space, q_at), zero, equal(zero, zero)
        if probs is not None:
            load_tile(probs, tile_rows(probs, row, span[1], zero), classes, qs)
        if targets is not None:
            prefetch(targets, row + PREFETCH_TARGETS)
            prefetch(targets, row + PREFETCH_TARGETS + LANES // 2)
            y = load_int64(targets, row, inside)
            not_ignored = less_equal_or_nan(zero, y)
            y = select_max(y, zero)
        loss, lse, parts = losses_and_sums(xs, qs, exps, y, setup, sums)
        store_masked(per_row.losses, row, inside, select(not_ignored, loss, zero))
        store_masked(per_row.lses, row, inside, select(not_ignored, lse, constant(lse, math.nan)))
        if grad is not None:
            g_tile = pointer_at(space, g_at, grad.data)
            out = TileOutput(grad, tile_rows(grad, row, span[1], zero), g_tile)
            u = constant_for(per_row.scale, per_row.scale[0])
            if per_row.scale_step:
                u = load_masked(per_row.scale, row, inside)
            write_gradients(xs, qs, exps, y, setup, (*parts, u, not_ignored), out)


@jit
def statistics_boxes(span, logits, targets, scalars, results, stride, space):
    """The rows `span` of a box: the fields of `backends.fields`, `stride` numbers apart."""
    begin, end, _ = span
    _, classes, inner = logits.shape
    step = rows_per_chunk(classes) if inner > 1 else end - begin
    first = begin
    while first < end:
        count = min(step, end - first)
        x = contiguous_rows(logits, first, count, space, 0)
        fields = advance(results, first), stride
        statistics_range(count, x, advance(targets, first), classes, scalars, fields, space)
        first += count


@jit
def divergence_boxes(span, base, model, scalars, results, space):
    """The rows `span` of two boxes: KL(base‖model)."""
    begin, end, _ = span
    _, classes, inner = model.shape
    step = rows_per_chunk(classes) if inner > 1 else end - begin
    second = copy_offset(classes, step)
    first = begin
    while first < end:
        count = min(step, end - first)
        p = contiguous_rows(base, first, count, space, 0)
        q = contiguous_rows(model, first, count, space, second)
        divergence_range(count, p, q, classes, scalars, advance(results, first))
        first += count


@jit
def softmax_boxes(span, logits, scalars, log, out, space):
    """The rows `span` of a box: probabilities, or their logarithms."""
    begin, end, _ = span
    _, classes, inner = logits.shape
    if classes <= SHORT:
        exps_at, _, p_at = short_row_offsets(classes)
        exps, tile = float64_at(space, exps_at), pointer_at(space, p_at, out.data)
        for row in range(begin, end, LANES):
            zero = constant_for(exps, 0.0)
            peak = load_tile(logits, tile_rows(logits, row, end, zero), classes, space)
            # The rows after these have not been read, and may be the same memory.
            rows = tile_rows(out, row, min(row + LANES, end), zero)
            softmax_tile(space, classes, peak, scalars, log, exps, TileOutput(out, rows, tile))
        return
    copied = rows_per_chunk(classes) if inner > 1 else 0
    step = copied if inner > 1 else end - begin
    _, _, x_at, _, p_at = long_row_offsets(classes, step, copied)
    buffers, exact = row_buffers(space, classes), is_float64(space)
    first = begin
    while first < end:
        count = min(step, end - first)
        x = contiguous_rows(logits, first, count, space, x_at)
        p = gradient_rows(out, first, space, p_at)
        softmax_range(count, x, classes, scalars, log, p, buffers, exact)
        flush_gradient(p, out, first, count)
        first += count
