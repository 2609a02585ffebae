"""What one thread does: a range of rows of a box (outer, C, inner), by the kernel for its C.

Rows are numbered in C order. Where the inner axis is longer than 1 the classes of a row are an
image apart: long rows are then copied to where they lie side by side, a few at a time, and go
through the same kernels with the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xentcli.backends.cpu.arithmetic import called, compiled
from xentcli.backends.cpu.half_types import filled
from xentcli.backends.cpu.load_store import (
    keep,
    load_some,
    load_whole,
    moved,
    pointer,
    prefetch,
    store_some,
    typed_like,
)
from xentcli.backends.cpu.long_rows import general_range, softmax_range
from xentcli.backends.cpu.long_rows_fast import plain_range
from xentcli.backends.cpu.row_ops import box_of, place, split
from xentcli.backends.cpu.row_tiles import Out, fill_tile, lanes_of
from xentcli.backends.cpu.short_rows import exponentials, softmax_tile, summarised, write
from xentcli.backends.cpu.simd import LANES, constant, equal, lanes_below, larger, not_above, select
from xentcli.backends.cpu.transpose import turn

# Up to so many classes 16 rows are computed at a time: at 64 both ways cost the same.
SHORT = 64
TARGETS_AHEAD = 256


@compiled
def side_by_side(array, first, count):
    """Some rows of a box as an array of its own, (count, C, 1)."""
    classes = array.shape[1]
    rows = np.empty((count, classes, 1), array.dtype)
    box = box_of(array)
    o, i = split(box, first)
    row = 0
    while row < count:
        run = min(box.shape[2] - i, count - row)
        source, target = place(box, o, i), moved(pointer(rows, 0), row * classes)
        turn(source, (box.step, box.beside), target, (1, classes), (classes, run))
        row, o, i = row + run, o + 1, 0
    return typed_like(rows, array)


@compiled
def put_apart(rows, array, first):
    """The other way round."""
    classes, count = array.shape[1], len(rows)
    box = box_of(array)
    o, i = split(box, first)
    row = 0
    while row < count:
        run = min(box.shape[2] - i, count - row)
        source, target = moved(pointer(rows, 0), row * classes), place(box, o, i)
        turn(source, (classes, 1), target, (box.beside, box.step), (run, classes))
        row, o, i = row + run, o + 1, 0


@compiled
def chunk(classes):
    """How many rows are copied at a time: whole lines of the inner axis, 256 KiB if more."""
    return max(LANES, (1 << 16) // classes // LANES * LANES)


@compiled
def of_rows(logits, targets, grad, first, count):
    """Some rows as a kernel for long rows takes them: arrays (count, C, 1)."""
    return (
        rows_of(logits, first, count),
        targets_of(targets, first, count),
        room_for(grad, first, count),
    )


@compiled
def rows_of(array, first, count):
    """Where the classes lie side by side a view, else a copy."""
    if array.shape[2] == 1:
        return array[first : first + count]
    return side_by_side(array, first, count)


@compiled
def targets_of(targets, first, count):
    """Class indices or probabilities of some rows."""
    if targets.ndim == 1:
        return targets[first : first + count]
    return rows_of(targets, first, count)


@compiled
def scales_of(scale, begin, end):
    """The scales of some rows; one is for all."""
    return scale[begin:end] if len(scale) > 1 else scale


@compiled
def room_for(grad, first, count):
    """Where the gradients of some rows are written: where they belong, or to be put apart."""
    room = grad
    if grad is not None:  # as a `return None` Numba would take it for an Optional
        if grad.shape[2] == 1:
            room = grad[first : first + count]
        else:
            room = typed_like(np.empty((count, grad.shape[1], 1), grad.dtype), grad)
    return room


@compiled
def put_grad(rows, grad, first):
    """Put gradients apart, if there are any, and they are not where they belong."""
    if grad is not None:  # noqa: SIM102 (Numba leaves out a block, not half a condition)
        if grad.shape[2] > 1:
            put_apart(rows, grad, first)


def _on_boxes(kernel: Any) -> Any:
    """A kernel for long rows, (n, C, 1), as one for rows `span` of a box."""

    @called
    def box_range(span, logits, targets, weight, scale, scalars, results, grad, work):
        begin, end, past_caches = span
        beside = logits.shape[2] == 1
        step = end - begin if beside else chunk(logits.shape[1])
        first = begin
        while first < end:
            count = min(step, end - first)
            x, t, g = of_rows(logits, targets, grad, first, count)
            u, r = scales_of(scale, first, first + count), results[:, first : first + count]
            kernel(x, t, weight, u, scalars, r, g, work, past_caches and beside)
            put_grad(g, grad, first)
            first += count

    return box_range


plain_boxes = _on_boxes(plain_range)
general_boxes = _on_boxes(general_range)


@called
def short_boxes(span, logits, targets, weight, scale, scalars, results, grad, work):
    """Rows `span` of a box, 16 at a time. Only pointers are used in the loop: see `memory`.

    What 16 rows go through is one long chain: so it is cut in two, and while the exponentials
    of some are computed the 16 before get their losses and gradients. (And nothing is written
    behind a row before it has been read, which may be the same memory.)
    """
    classes = logits.shape[1]
    size = max(classes, LANES) * LANES
    x_tiles, z_tiles = np.empty(2 * size, work.dtype), np.empty(2 * size)
    first_x, first_z = pointer(x_tiles, 0), pointer(z_tiles, 0)
    losses, lses = pointer(results[0], 0), pointer(results[1], 0)
    box, t, u = box_of(logits), pointer(targets, 0), pointer(scale, 0)
    call = pointer(weight, 0), classes, scalars
    nothing = filled(call[0], 0.0)
    if targets.ndim == 3:
        q_tile, q_box = np.empty(size), box_of(targets)
        qs = pointer(q_tile, 0)
    if grad is not None:
        g_tile, g_box = np.empty(size, grad.dtype), box_of(grad)
        gs = pointer(g_tile, 0)
    at, top, others = 0, nothing, nothing
    for row in range(span[0] - LANES, span[1], LANES):
        xs, z, known = moved(first_x, at), moved(first_z, at), (top, others)
        at = size - at
        coming = lanes_of(box, min(row + LANES, span[1] - 1), span[1], nothing)
        peak = fill_tile(box, coming, classes, moved(first_x, at))
        top, others = exponentials(moved(first_x, at), call, peak, moved(first_z, at))
        if row < span[0]:
            continue
        inside = lanes_below(span[1] - row)
        if targets.ndim == 3:
            fill_tile(q_box, lanes_of(q_box, row, span[1], nothing), classes, qs)
            y, present = nothing, equal(nothing, nothing)
        else:
            prefetch(t, row + TARGETS_AHEAD)
            prefetch(t, row + TARGETS_AHEAD + LANES // 2)
            qs, y = None, load_whole(t, row, inside)
            present = not_above(nothing, y)
            y = larger(y, nothing)
        loss, lse, parts = summarised(xs, qs, z, y, call, known)
        store_some(losses, row, inside, select(present, loss, nothing))
        store_some(lses, row, inside, select(present, lse, constant(lse, math.nan)))
        if grad is not None:
            out = Out(g_box, lanes_of(g_box, row, span[1], nothing), gs)
            scales = load_some(u, row, inside) if len(scale) > 1 else filled(u, scale[0])
            write(xs, qs, z, y, call, (*parts, scales, present), out)
    keep(x_tiles)
    keep(z_tiles)
    if targets.ndim == 3:
        keep(q_tile)
    if grad is not None:
        keep(g_tile)


@called
def softmax_boxes(span, logits, scalars, log, out, work):
    """Rows `span` of a box: probabilities, or their logarithms."""
    classes, begin, end = logits.shape[1], span[0], span[1]
    if classes <= SHORT:
        size = max(classes, LANES) * LANES
        x_tile, z_tile, p_tile = (
            np.empty(size, work.dtype),
            np.empty(size),
            np.empty(size, out.dtype),
        )
        xs, z, box, p_box = pointer(x_tile, 0), pointer(z_tile, 0), box_of(logits), box_of(out)
        for row in range(begin, end, LANES):
            peak = fill_tile(box, lanes_of(box, row, end, filled(z, 0.0)), classes, xs)
            # What comes after these rows has not been read, and may be the same memory.
            lanes = lanes_of(p_box, row, min(row + LANES, end), filled(z, 0.0))
            softmax_tile(xs, classes, peak, scalars, log, z, Out(p_box, lanes, pointer(p_tile, 0)))
        keep(x_tile)
        keep(p_tile)
        keep(z_tile)
        return
    step = end - begin if logits.shape[2] == 1 else chunk(classes)
    first = begin
    while first < end:
        count = min(step, end - first)
        p = room_for(out, first, count)
        softmax_range(rows_of(logits, first, count), scalars, log, p, work)
        put_grad(p, out, first)
        first += count
