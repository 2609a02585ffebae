"""The work of one thread: a range of rows of a box (outer, C, inner), by the kernel for its C.

Rows are numbered in C order. Where the inner axis is longer than 1, as in images, the classes of a
row are not contiguous: long rows are then copied to a contiguous buffer, a few at a time, and go
through the same kernels with the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xentcli.backends.cpu.arithmetic import inline_jit, jit
from xentcli.backends.cpu.half_types import constant_for
from xentcli.backends.cpu.load_store import (
    advance,
    keep_alive,
    load_int64,
    load_masked,
    pointer,
    prefetch,
    store_masked,
    with_type_of,
)
from xentcli.backends.cpu.long_rows import general_range, softmax_range
from xentcli.backends.cpu.long_rows_fast import fast_range
from xentcli.backends.cpu.row_ops import outer_and_inner, row_start, view_of
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

# Up to this many classes 16 rows are computed at a time: at 64 both ways take the same time.
SHORT = 64
PREFETCH_TARGETS = 256  # rows ahead


@inline_jit
def gather_rows(array, first, count):
    """Copy some rows of a box to an array (count, C, 1)."""
    classes = array.shape[1]
    rows = np.empty((count, classes, 1), array.dtype)
    box = view_of(array)
    o, i = outer_and_inner(box, first)
    row = 0
    while row < count:
        run = min(box.shape[2] - i, count - row)
        source, target = row_start(box, o, i), advance(pointer(rows, 0), row * classes)
        copy_transposed(
            source, (box.class_stride, box.inner_stride), target, (1, classes), (classes, run)
        )
        row, o, i = row + run, o + 1, 0
    return with_type_of(rows, array)


@inline_jit
def scatter_rows(rows, array, first):
    """Copy an array (count, C, 1) to some rows of a box."""
    classes, count = array.shape[1], len(rows)
    box = view_of(array)
    o, i = outer_and_inner(box, first)
    row = 0
    while row < count:
        run = min(box.shape[2] - i, count - row)
        source, target = advance(pointer(rows, 0), row * classes), row_start(box, o, i)
        copy_transposed(
            source, (classes, 1), target, (box.inner_stride, box.class_stride), (run, classes)
        )
        row, o, i = row + run, o + 1, 0


@inline_jit
def rows_per_chunk(classes):
    """How many rows are copied at a time: a multiple of 16, about 256 KiB of float32."""
    return max(LANES, (1 << 16) // classes // LANES * LANES)


@inline_jit
def chunk_arrays(logits, targets, grad, first, count):
    """Some rows as arrays (count, C, 1), for a kernel for long rows."""
    return (
        contiguous_rows(logits, first, count),
        targets_of_rows(targets, first, count),
        gradient_buffer(grad, first, count),
    )


@inline_jit
def contiguous_rows(array, first, count):
    """Some rows with contiguous classes: a view where possible, otherwise a copy."""
    if array.shape[2] == 1:
        return array[first : first + count]
    return gather_rows(array, first, count)


@inline_jit
def targets_of_rows(targets, first, count):
    """Class indices or probabilities of some rows."""
    if targets.ndim == 1:
        return targets[first : first + count]
    return contiguous_rows(targets, first, count)


@inline_jit
def scales_of_rows(scale, begin, end):
    """The scales of some rows; a single one is for all rows."""
    return scale[begin:end] if len(scale) > 1 else scale


@inline_jit
def gradient_buffer(grad, first, count):
    """An array for the gradients of some rows: part of `grad`, or a buffer if not contiguous."""
    buffer = grad
    if grad is not None:  # after a `return None` Numba would infer an Optional
        if grad.shape[2] == 1:
            buffer = grad[first : first + count]
        else:
            buffer = with_type_of(np.empty((count, grad.shape[1], 1), grad.dtype), grad)
    return buffer


@inline_jit
def flush_gradient(rows, grad, first):
    """Copy gradients from their buffer to `grad`, if they are in one."""
    if grad is not None:  # noqa: SIM102 (Numba prunes a whole block, not half a condition)
        if grad.shape[2] > 1:
            scatter_rows(rows, grad, first)


def _for_boxes(kernel: Any) -> Any:
    """Turn a kernel for arrays (n, C, 1) into one for the rows `span` of a box."""

    @jit
    def box_range(span, logits, targets, weight, scale, scalars, results, grad, work):
        begin, end, streaming = span
        contiguous = logits.shape[2] == 1
        step = end - begin if contiguous else rows_per_chunk(logits.shape[1])
        first = begin
        while first < end:
            count = min(step, end - first)
            x, t, g = chunk_arrays(logits, targets, grad, first, count)
            u, r = scales_of_rows(scale, first, first + count), results[:, first : first + count]
            kernel(x, t, weight, u, scalars, r, g, work, streaming and contiguous)
            flush_gradient(g, grad, first)
            first += count

    return box_range


fast_boxes = _for_boxes(fast_range)
general_boxes = _for_boxes(general_range)


@jit
def short_boxes(span, logits, targets, weight, scale, scalars, results, grad, work):
    """The rows `span` of a box, 16 at a time. The loop uses pointers only: see `load_store`.

    The computation of 16 rows is one long dependency chain. So it is cut in two: while the
    exponentials of 16 rows are computed, the 16 rows before get their losses and gradients. (And
    with `grad` in place of `logits`, no row is overwritten before it has been read.)
    """
    classes = logits.shape[1]
    size = tile_size(classes)
    x_tiles, exp_tiles = np.empty(2 * size, work.dtype), np.empty(2 * 3 * size)
    first_x, first_exps = pointer(x_tiles, 0), pointer(exp_tiles, 0)
    losses, lses = pointer(results[0], 0), pointer(results[1], 0)
    box, t, u = view_of(logits), pointer(targets, 0), pointer(scale, 0)
    setup = pointer(weight, 0), classes, scalars
    zero = constant_for(setup[0], 0.0)
    if targets.ndim == 3:
        q_tile, q_box = np.empty(size), view_of(targets)
        qs = pointer(q_tile, 0)
    if grad is not None:
        g_tile, g_box = np.empty(size, grad.dtype), view_of(grad)
        gs = pointer(g_tile, 0)
    at, tile = 0, TileSums(zero, zero, zero, zero)
    keep_gaps = targets.ndim == 3 or scalars.label_smoothing > 0.0
    for row in range(span[0] - LANES, span[1], LANES):
        xs, exps, sums = advance(first_x, at), advance(first_exps, 3 * at), tile
        at = size - at
        next_rows = tile_rows(box, min(row + LANES, span[1] - 1), span[1], zero)
        peak = load_tile(box, next_rows, classes, advance(first_x, at))
        tile = tile_exponentials(
            advance(first_x, at), setup, peak, advance(first_exps, 3 * at), keep_gaps
        )
        if row < span[0]:
            continue
        inside = lanes_below(span[1] - row)
        if targets.ndim == 3:
            load_tile(q_box, tile_rows(q_box, row, span[1], zero), classes, qs)
            y, not_ignored = zero, equal(zero, zero)
        else:
            prefetch(t, row + PREFETCH_TARGETS)
            prefetch(t, row + PREFETCH_TARGETS + LANES // 2)
            qs, y = None, load_int64(t, row, inside)
            not_ignored = less_equal_or_nan(zero, y)
            y = select_max(y, zero)
        loss, lse, parts = losses_and_sums(xs, qs, exps, y, setup, sums)
        store_masked(losses, row, inside, select(not_ignored, loss, zero))
        store_masked(lses, row, inside, select(not_ignored, lse, constant(lse, math.nan)))
        if grad is not None:
            out = TileOutput(g_box, tile_rows(g_box, row, span[1], zero), gs)
            scales = load_masked(u, row, inside) if len(scale) > 1 else constant_for(u, scale[0])
            write_gradients(xs, qs, exps, y, setup, (*parts, scales, not_ignored), out)
    keep_alive(x_tiles)
    keep_alive(exp_tiles)
    if targets.ndim == 3:
        keep_alive(q_tile)
    if grad is not None:
        keep_alive(g_tile)


@jit
def softmax_boxes(span, logits, scalars, log, out, work):
    """The rows `span` of a box: probabilities, or their logarithms."""
    classes, begin, end = logits.shape[1], span[0], span[1]
    if classes <= SHORT:
        size = tile_size(classes)
        x_tile, exp_tile = np.empty(size, work.dtype), np.empty(3 * size)
        p_tile = np.empty(size, out.dtype)
        xs, exps, ps = pointer(x_tile, 0), pointer(exp_tile, 0), pointer(p_tile, 0)
        box, p_box = view_of(logits), view_of(out)
        for row in range(begin, end, LANES):
            zero = constant_for(exps, 0.0)
            peak = load_tile(box, tile_rows(box, row, end, zero), classes, xs)
            # The rows after these have not been read, and may be the same memory.
            rows = tile_rows(p_box, row, min(row + LANES, end), zero)
            softmax_tile(xs, classes, peak, scalars, log, exps, TileOutput(p_box, rows, ps))
        keep_alive(x_tile)
        keep_alive(p_tile)
        keep_alive(exp_tile)
        return
    step = end - begin if logits.shape[2] == 1 else rows_per_chunk(classes)
    first = begin
    while first < end:
        count = min(step, end - first)
        p = gradient_buffer(out, first, count)
        softmax_range(contiguous_rows(logits, first, count), scalars, log, p, work)
        flush_gradient(p, out, first)
        first += count
