"""The kernels where machine code can be neither kept nor loaded: `njit(parallel=True)`.

The functions over a range of rows are the same, so the bits are too; here Numba's threads call
them, in a process that has compiled them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from xentcli.arrays.dtypes import Array
from xentcli.backends import Scalars
from xentcli.backends.cpu import dispatch, memory, teacher_boxes
from xentcli.backends.cpu.arithmetic import inline_jit, jit
from xentcli.backends.cpu.load_store import pointer
from xentcli.backends.cpu.row_ops import PerRow, view_of
from xentcli.backends.cpu.short_rows_passes import fast_short_boxes
from xentcli.backends.cpu.simd import LANES
from xentcli.backends.cpu.teacher_stored import TopView
from xentcli.backends.teacher import TeacherScalars

_config: Any = numba.config  # its attributes are set at import, unknown to type checkers


class _ThreadState:
    """What this process knows of Numba's threads: a lock, and whether they were started here.

    Numba's workqueue layer aborts when two threads run parallel kernels at once; its OpenMP
    layer when a forked child runs one at all. So one parallel kernel runs at a time, and the
    forked child of a process that has run one computes serially, with the same bits.
    """

    lock = RLock()
    started = False
    forked = False

    @classmethod
    def after_fork(cls) -> None:
        cls.lock = RLock()  # the old one may be held by a thread of the parent
        cls.forked = cls.started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ThreadState.after_fork)


def indices_of(targets: Any) -> Any:
    """A pointer to class indices, or None for probabilities."""
    raise NotImplementedError  # compiled code takes `_indices_of`


def view_or_none(box: Any) -> Any:
    """The view of a box, or None for class indices and for no box."""
    raise NotImplementedError  # compiled code takes `_view_or_none`


@overload(indices_of)
def _indices_of(targets):
    if targets.ndim == 1:
        return lambda targets: pointer(targets, 0)
    return lambda targets: None


@overload(view_or_none)
def _view_or_none(box):
    if isinstance(box, types.Array) and box.ndim == 3:
        return lambda box: view_of(box)
    return lambda box: None


@inline_jit
def per_row_of(scale, results):
    """Pointers to scales, losses and log-sum-exps."""
    step = 1 if len(scale) > 1 else 0
    lses = pointer(results, results.strides[0] // results.itemsize)
    return PerRow(pointer(scale, 0), step, pointer(results, 0), lses)


def _rows(kernel: Any) -> Callable[..., None]:
    @jit
    def rows_of(span, logits, targets, weight, scale, scalars, results, grad, space):
        per_row = per_row_of(scale, results)
        t, q, w = indices_of(targets), view_or_none(targets), pointer(weight, 0)
        g, s = view_or_none(grad), pointer(space, 0)
        kernel(span, view_of(logits), t, q, w, scalars, per_row, g, s)

    def rows(split, logits, targets, weight, scale, scalars, results, grad, spaces):
        parts, streaming = split
        n = results.shape[1]
        for part in prange(parts):
            span = part * n // parts, (part + 1) * n // parts, streaming
            rows_of(span, logits, targets, weight, scale, scalars, results, grad, spaces[part])

    return rows


@jit
def softmax_of(span, logits, scalars, log, out, space):
    """Arrays as the kernel takes them."""
    dispatch.softmax_boxes(span, view_of(logits), scalars, log, view_of(out), pointer(space, 0))


def softmax(split, logits, scalars, log, out, spaces):
    """Probabilities, or their logarithms."""
    parts, streaming = split
    n = logits.shape[0] * logits.shape[2]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, streaming
        softmax_of(span, logits, scalars, log, out, spaces[part])


@jit
def statistics_of(span, logits, targets, scalars, results, space):
    """Arrays as the kernel takes them."""
    stride = results.strides[0] // results.itemsize
    arrays = view_of(logits), pointer(targets, 0)
    dispatch.statistics_boxes(
        span, *arrays, scalars, pointer(results, 0), stride, pointer(space, 0)
    )


def statistics(split, logits, targets, scalars, results, spaces):
    """The fields of each row."""
    parts, streaming = split
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, streaming
        statistics_of(span, logits, targets, scalars, results, spaces[part])


@jit
def divergence_of(span, base, model, scalars, results, space):
    """Arrays as the kernel takes them."""
    boxes = view_of(base), view_of(model)
    dispatch.divergence_boxes(span, *boxes, scalars, pointer(results, 0), pointer(space, 0))


def divergence(split, base, model, scalars, results, spaces):
    """KL(base‖model) of each row."""
    parts, streaming = split
    n = len(results)
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, streaming
        divergence_of(span, base, model, scalars, results, spaces[part])


def _dense(kernel: Any) -> Callable[..., None]:
    @jit
    def rows_of(span, logits, teacher, targets, scalars, scale, results, grad, space):
        boxes, per_row = (view_of(logits), view_of(teacher)), per_row_of(scale, results)
        g, s = view_or_none(grad), pointer(space, 0)
        kernel(span, *boxes, pointer(targets, 0), scalars, per_row, g, s)

    def rows(split, logits, teacher, targets, scalars, scale, results, grad, spaces):
        parts, streaming = split
        n = results.shape[1]
        for part in prange(parts):
            span = part * n // parts, (part + 1) * n // parts, streaming
            rows_of(span, logits, teacher, targets, scalars, scale, results, grad, spaces[part])

    return rows


def _top(kernel: Any) -> Callable[..., None]:
    @jit
    def rows_of(span, logits, top, targets, scalars, scale, results, grad, space):
        classes, q, log_q, rest, surplus = top
        stored = pointer(classes, 0), pointer(q, 0), pointer(log_q, 0)
        view = TopView(*stored, pointer(rest, 0), pointer(surplus, 0), classes.shape[1])
        per_row, g, s = per_row_of(scale, results), view_or_none(grad), pointer(space, 0)
        kernel(span, view_of(logits), view, pointer(targets, 0), scalars, per_row, g, s)

    def rows(
        split,
        logits,
        classes,
        q,
        log_q,
        rest,
        surplus,
        targets,
        scalars,
        scale,
        results,
        grad,
        spaces,
    ):
        parts, streaming = split
        n, top = results.shape[1], (classes, q, log_q, rest, surplus)
        for part in prange(parts):
            span = part * n // parts, (part + 1) * n // parts, streaming
            rows_of(span, logits, top, targets, scalars, scale, results, grad, spaces[part])

    return rows


def _lines(kernel: Any) -> Callable[..., None]:
    @jit
    def lines_of(span, source, target, factor, space):
        kernel(span, pointer(source, 0), pointer(target, 0), factor, pointer(space, 0))

    def lines(split, source, target, factor, spaces):
        parts, streaming = split
        n = len(source) // LANES
        for part in prange(parts):
            span = part * n // parts, (part + 1) * n // parts, streaming
            lines_of(span, source, target, factor, spaces[part])

    return lines


FUNCTIONS: dict[str, Callable[..., None]] = {
    "fast": _rows(dispatch.fast_boxes),
    "tempered": _rows(dispatch.tempered_boxes),
    "general": _rows(dispatch.general_boxes),
    "short": _rows(dispatch.short_boxes),
    "short_fast": _rows(fast_short_boxes),
    "softmax": softmax,
    "statistics": statistics,
    "divergence": divergence,
    "teacher": _dense(teacher_boxes.dense_boxes),
    "teacher_fast": _dense(teacher_boxes.dense_fast_boxes),
    "top": _top(teacher_boxes.top_boxes),
    "top_fast": _top(teacher_boxes.top_fast_boxes),
    "copy": _lines(memory.copy_lines),
    "read": _lines(memory.read_lines),
    "rewrite": _lines(memory.scale_lines),
}


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba types. Arguments before the scalars are inputs, and may be read-only memory."""
    options = Scalars, TeacherScalars
    scalars = next((i for i, value in enumerate(arguments) if isinstance(value, options)), 0)
    return tuple(
        types.Array(
            numba.from_dtype(value.dtype),
            value.ndim,
            "C" if value.ndim == 1 else "A",
            readonly=i < scalars,
        )
        if isinstance(value, np.ndarray)
        else numba.typeof(value)
        for i, value in enumerate(arguments)
    )


@cache
def _compiled(function: str, signature: tuple[Any, ...], parallel: bool) -> Callable[..., None]:
    compiler: Any = njit([signature], parallel=parallel, nogil=True, error_model="numpy")
    return compiler(FUNCTIONS[function])  # type: ignore[no-any-return] # Numba's decorator


def start() -> None:
    """Start Numba's threads; invalid settings of Numba's fail here."""
    with _ThreadState.lock:
        if not _ThreadState.forked:
            _ThreadState.started = True
            numba.get_num_threads()


def run(
    function: str, split: tuple[int, int], arguments: tuple[Any, ...], spaces: Array, threads: int
) -> None:
    """One of the kernels, on Numba's threads; `spaces` has a row of work space for each part."""
    arguments = (split, *arguments, spaces)
    with _ThreadState.lock:
        kernel = _compiled(function, _signature(arguments), not _ThreadState.forked)
        if _ThreadState.forked:
            kernel(*arguments)
            return
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, _config.NUMBA_NUM_THREADS))
        try:
            kernel(*arguments)
        finally:
            numba.set_num_threads(before)
