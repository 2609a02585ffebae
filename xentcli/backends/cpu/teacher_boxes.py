"""The work of one thread for a teacher's soft targets: a range of rows of a box."""

from __future__ import annotations

from typing import Any

from xentcli.backends.cpu.arithmetic import jit
from xentcli.backends.cpu.dispatch import (
    contiguous_rows,
    flush_gradient,
    gradient_rows,
    long_row_offsets,
    rows_per_chunk,
)
from xentcli.backends.cpu.load_store import address, advance
from xentcli.backends.cpu.row_ops import per_row_from
from xentcli.backends.cpu.teacher_dense import dense_range
from xentcli.backends.cpu.teacher_dense_fast import dense_fast_range
from xentcli.backends.cpu.teacher_stored import top_from
from xentcli.backends.cpu.teacher_top import top_fast_range, top_range


def _for_boxes(kernel: Any) -> Any:
    """Turn a kernel for contiguous rows into one for the rows `span` of a box."""

    @jit
    def box_range(span, logits, teacher, targets, scalars, per_row, grad, space):
        begin, end, streaming = span
        _, classes, inner = logits.shape
        copied = rows_per_chunk(classes) if inner > 1 else 0
        step = copied if inner > 1 else end - begin
        _, _, x_at, t_at, g_at = long_row_offsets(classes, step, copied)
        overwrites = False
        if grad is not None:
            overwrites = address(grad.data) == address(logits.data)
        first = begin
        while first < end:
            count = min(step, end - first)
            x = contiguous_rows(logits, first, count, space, x_at)
            t = contiguous_rows(teacher, first, count, space, t_at)
            g = gradient_rows(grad, first, space, g_at)
            y, r = advance(targets, first), per_row_from(per_row, first)
            mode = streaming != 0 and inner == 1, overwrites
            kernel(count, x, t, y, (classes, scalars), r, g, space, mode)
            flush_gradient(g, grad, first, count)
            first += count

    return box_range


def _top_for_boxes(kernel: Any) -> Any:
    """The same of a kernel for stored classes."""

    @jit
    def box_range(span, logits, top, targets, scalars, per_row, grad, space):
        begin, end, streaming = span
        _, classes, inner = logits.shape
        copied = rows_per_chunk(classes) if inner > 1 else 0
        step = copied if inner > 1 else end - begin
        _, _, x_at, _, g_at = long_row_offsets(classes, step, copied)
        shared = classes, scalars, g_at + classes * copied * 8
        first = begin
        while first < end:
            count = min(step, end - first)
            x = contiguous_rows(logits, first, count, space, x_at)
            g = gradient_rows(grad, first, space, g_at)
            t, y, r = top_from(top, first), advance(targets, first), per_row_from(per_row, first)
            kernel(count, x, t, y, shared, r, g, space, streaming != 0 and inner == 1)
            flush_gradient(g, grad, first, count)
            first += count

    return box_range


top_boxes = _top_for_boxes(top_range)
top_fast_boxes = _top_for_boxes(top_fast_range)
dense_boxes = _for_boxes(dense_range)
dense_fast_boxes = _for_boxes(dense_fast_range)
