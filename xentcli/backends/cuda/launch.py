"""Launches: the kernel for a box of device memory, its blocks and threads, its scratch memory."""

from __future__ import annotations

import math
import sys
from threading import local
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from xentcli.backends import Scalars
from xentcli.backends.cuda.box import Box
from xentcli.backends.cuda.formulas import SATURATED
from xentcli.backends.cuda.launch_params import (
    GRADIENT,
    INDEX,
    LOG,
    NONE,
    PROBS,
    SOFTMAX,
    ExpConstants,
    LaunchParams,
)
from xentcli.backends.cuda.long_rows import general_deferred, general_rows
from xentcli.backends.cuda.long_rows_fast import fast_deferred, fast_rows
from xentcli.backends.cuda.primitives import SIMULATED, configured, device_number
from xentcli.backends.cuda.reductions import ROWS, SUMS_SIZE, THREADS, WARP
from xentcli.backends.cuda.short_rows import short_rows

SHORT = 64  # up to this many classes each thread computes a row
# Classes of a part: with the rest of a block's shared memory they fit into the 48 KiB that every
# device has, and a Hopper multiprocessor has room for six blocks, or for five.
FAST_PART = 8192
GENERAL_PART = 4032

# Classes per thread, in long rows: the fixed work of a thread takes as long as a dozen.
CLASSES_PER_THREAD = 32

# A block that has polled this often, for some 10 ms, whether the other blocks of its row are ready
# defers its part to a second launch. On the simulator blocks run one after the other.
MAX_POLLS = 1 if SIMULATED else 20_000
MAX_CONCURRENT_PARTS = (
    256  # up to this many parts of a row its blocks are likely to run at the same time
)
DEFERRED_BLOCKS = 2 if SIMULATED else 264
MAX_GRID_ROWS = 65_535  # blocks along the second axis of a grid, at most


class Scratch(NamedTuple):
    """Device memory through which the blocks of a row exchange sums."""

    states: Any
    marks: Any


class _ScratchOfThread(local):
    """Scratch memory for each device and stream, of one thread of the host. Another thread may put
    its kernels between ours on the same stream, and one handle stands for a stream per thread."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, int], Scratch] = {}


_scratch = _ScratchOfThread()


def rows(
    logits: Box,
    targets: Any,
    weight: Any,
    scale: Any,
    scalars: Scalars,
    results: Any,
    grad: Box | None,
    stream: Any = 0,
) -> None:
    """`Backend.rows` for arrays in device memory.

    `targets` is a device array of int64 (n,), −1 for ignored rows, or a Box of probabilities;
    `weight` (C,), `scale` (n,) or (1,), `results` (2, n) are device arrays of float64.
    Only enqueues; scratch memory is kept for the next call on the same stream.
    """
    probs = targets if isinstance(targets, Box) else None
    is_float64 = 8 in (logits.data.dtype.itemsize, grad.data.dtype.itemsize if grad else 4)
    fast = probs is None and not is_float64 and scalars.are_plain
    params = _params(logits, probs, grad, scalars, fast)
    arrays = (
        logits.data,
        targets if probs is None else probs.data,
        weight,
        scale,
        params,
        results,
        logits.data[:0] if grad is None else grad.data,
    )
    _launch(fast, arrays, stream)


def softmax(logits: Box, scalars: Scalars, log: bool, out: Box, stream: Any = 0) -> None:
    """`Backend.softmax` for arrays in device memory."""
    params = _params(logits, None, out, scalars, fast=False)
    params = params._replace(kind=NONE, mode=LOG if log else SOFTMAX, z_loss=0.0)
    scratch = _scratch_for(1, 1, stream)
    numbers, results = (
        scratch.states,
        scratch.states[:2].reshape((2, 1)),
    )  # neither read nor written
    _launch(
        False, (logits.data, scratch.marks, numbers, numbers, params, results, out.data), stream
    )


def parts_for(classes: int, fast: bool) -> tuple[int, int]:
    """How many parts a row has, and how many classes each but the last; by its length alone."""
    parts = -(-classes // (FAST_PART if fast else GENERAL_PART))
    return parts, -(-classes // (4 * parts)) * 4


def threads_for(size: int) -> int:
    """How many threads share a part; by its length alone."""
    threads = WARP
    while threads < THREADS and threads * CLASSES_PER_THREAD < size:
        threads *= 2
    return threads


def _params(
    logits: Box, probs: Box | None, grad: Box | None, scalars: Scalars, fast: bool
) -> LaunchParams:
    outer, classes, inner = logits.shape
    parts, size = parts_for(classes, fast)
    out, q = grad or logits, probs or logits
    return LaunchParams(
        rows=outer * inner,
        classes=classes,
        inner=inner,
        parts=parts,
        size=size,
        kind=PROBS if probs else INDEX,
        mode=GRADIENT,
        max_polls=MAX_POLLS if parts <= MAX_CONCURRENT_PARTS else 0,
        x_outer=logits.strides[0],
        x_inner=logits.strides[2],
        x_step=logits.strides[1],
        x_phase=_phase(logits.data),
        q_outer=q.strides[0],
        q_inner=q.strides[2],
        q_step=q.strides[1],
        g_outer=out.strides[0],
        g_inner=out.strides[2],
        g_step=out.strides[1],
        g_phase=_phase(out.data),
        kept=1.0 - scalars.label_smoothing,
        uniform=scalars.label_smoothing / max(classes, 1),
        temperature=float(scalars.temperature),
        softcap=float(scalars.softcap),
        limit=min(SATURATED * scalars.softcap * scalars.temperature, sys.float_info.max),
        z_loss=float(scalars.z_loss),
        scale_error=float(scalars.scale_error),
        capped=() if scalars.softcap == math.inf else (1.0,),
        exp=ExpConstants(),
    )


def _phase(data: Any) -> int:
    """The alignment of an array's first element, as an index modulo 4."""
    if SIMULATED:
        return 0
    pointer: int = data.__cuda_array_interface__["data"][0]
    return pointer // int(data.dtype.itemsize) % 4


def _launch(fast: bool, arrays: tuple[Any, ...], stream: Any) -> None:
    """One kernel, and a second one where blocks may have deferred parts."""
    params: LaunchParams = arrays[4]
    if params.rows == 0:
        return
    if params.classes <= SHORT:
        _short(arrays, stream)
        return
    x, targets, weight, scale, params, results, grad = arrays
    threads = threads_for(params.size)
    group = 1 if SIMULATED or params.parts > 1 else min(THREADS // threads, ROWS)
    item = 4 if fast else 8
    size = (params.size + 7) // 4 * 4 if fast else params.size
    scratch = _scratch_for(
        params.rows * params.parts if params.parts > 1 else 1, params.rows, stream
    )
    shape = (threads, group), stream, group * size * item
    everything = x, targets, weight, scale, params, *scratch, results, grad
    if params.parts > 1:
        _clear_marks(scratch.marks, params.rows + 1, stream)
    kernel = fast_rows if fast else general_rows
    configured(kernel, _grid(params, group), *shape)(*everything)
    if params.parts > 1 and grad.size > 0:
        kernel = fast_deferred if fast else general_deferred
        configured(kernel, min(DEFERRED_BLOCKS, params.rows * params.parts), *shape)(*everything)


def _grid(params: LaunchParams, group: int) -> tuple[int, ...]:
    """A block for each part of each row; the parts of a row are consecutive blocks."""
    if params.parts == 1:
        return (-(-params.rows // group),)
    return params.parts, min(params.rows, MAX_GRID_ROWS), -(-params.rows // MAX_GRID_ROWS)


def _clear_marks(marks: Any, count: int, stream: Any) -> None:
    threads = 32 if SIMULATED else THREADS
    configured(_clear, -(-count // threads), threads, stream)(marks, count)


def _short(arrays: tuple[Any, ...], stream: Any) -> None:
    params: LaunchParams = arrays[4]
    threads = 64 if params.classes > 32 else 128
    if SIMULATED:  # where threads are slow; one of them has no row
        threads = min(32, params.rows + 1)
    blocks = -(-params.rows // threads)
    shared_bytes = threads * (params.classes | 1) * 8
    configured(short_rows, blocks, threads, stream, shared_bytes)(*arrays)


@cuda.jit
def _clear(marks, count):
    """No part is published, none deferred."""
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        marks[i] = 0


def _scratch_for(parts: int, rows: int, stream: Any) -> Scratch:
    """The memory of this thread's last launch on this stream of this device, or a larger one."""
    key = device_number(), 0 if SIMULATED else int(stream)
    scratch = _scratch.of.get(key)
    marks = 1 + rows + parts
    if scratch is None or scratch.states.size < parts * SUMS_SIZE or scratch.marks.size < marks:
        states = cuda.device_array(parts * SUMS_SIZE, np.float64)
        scratch = Scratch(states, cuda.device_array(marks, np.int64))
        _scratch.of[key] = scratch
    return scratch
