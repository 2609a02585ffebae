"""Which kernel takes a box of device memory, with how many blocks and threads, and its room."""

from __future__ import annotations

from threading import local
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from xentcli.backends import Scalars
from xentcli.backends.cuda.box import Box
from xentcli.backends.cuda.launch_params import (
    GRADIENT,
    INDEX,
    LOG,
    NONE,
    PROBS,
    SOFTMAX,
    Call,
    Powers,
)
from xentcli.backends.cuda.long_rows import general_rest, general_rows
from xentcli.backends.cuda.long_rows_fast import plain_rest, plain_rows
from xentcli.backends.cuda.primitives import SIMULATED, configured, device_number
from xentcli.backends.cuda.reductions import ROWS, STATE, THREADS, WARP
from xentcli.backends.cuda.short_rows import short_rows

SHORT = 64  # classes up to which a thread has a row to itself
# Classes of a part: with what else a block has in shared memory, 48 KiB suffice, which every
# device has, and of those of a Hopper processor there is enough for six blocks, or for five.
PLAIN_PART = 8192
GENERAL_PART = 4032

# Classes of a thread, where a row has so many: what it does beside them takes as long as a dozen.
EACH = 32

# A block that has asked so often whether the others of its row are ready leaves its part to the
# second launch: some 10 ms. On the simulator blocks run one after the other.
PATIENCE = 1 if SIMULATED else 20_000
TOGETHER = 256  # parts of a row up to which its blocks can hope to run at the same time
REST_BLOCKS = 2 if SIMULATED else 264
MOST_ABREAST = 65_535  # blocks along the second axis of a grid


class Room(NamedTuple):
    """Device memory that blocks use to tell each other something."""

    states: Any
    marks: Any


class _Rooms(local):
    """The room of each stream of each device, for one thread of the host. Another thread may put
    its kernels between ours on the same stream, and one handle stands for a stream per thread."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, int], Room] = {}


_rooms = _Rooms()


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
    """What `kernels.Backend.rows` says, of arrays in device memory.

    `targets` is a device array of int64 (n,), −1 for ignored rows, or a Box of probabilities;
    `weight` (C,), `scale` (n,) or (1,), `results` (2, n) are device arrays of float64.
    Only enqueues; what it needs beside them it keeps for the next call on the same stream.
    """
    probs = targets if isinstance(targets, Box) else None
    wide = 8 in (logits.data.dtype.itemsize, grad.data.dtype.itemsize if grad else 4)
    plain = probs is None and not wide and scalars == Scalars(z_loss=scalars.z_loss)
    call = _call(logits, probs, grad, scalars, plain)
    arrays = (
        logits.data,
        targets if probs is None else probs.data,
        weight,
        scale,
        call,
        results,
        logits.data[:0] if grad is None else grad.data,
    )
    _launch(plain, arrays, stream)


def softmax(logits: Box, scalars: Scalars, log: bool, out: Box, stream: Any = 0) -> None:
    """What `kernels.Backend.softmax` says, of arrays in device memory."""
    call = _call(logits, None, out, scalars, plain=False)
    call = call._replace(kind=NONE, mode=LOG if log else SOFTMAX)
    room = _room(1, 1, stream)
    numbers, results = room.states, room.states[:2].reshape((2, 1))  # nobody reads or writes them
    _launch(False, (logits.data, room.marks, numbers, numbers, call, results, out.data), stream)


def parts_of(classes: int, plain: bool) -> tuple[int, int]:
    """How many parts a row has, and how many classes each but the last: by its length alone."""
    parts = -(-classes // (PLAIN_PART if plain else GENERAL_PART))
    return parts, -(-classes // (4 * parts)) * 4


def threads_of(size: int) -> int:
    """How many threads share a part: by its length alone."""
    threads = WARP
    while threads < THREADS and threads * EACH < size:
        threads *= 2
    return threads


def _call(logits: Box, probs: Box | None, grad: Box | None, scalars: Scalars, plain: bool) -> Call:
    outer, classes, inner = logits.shape
    parts, size = parts_of(classes, plain)
    out, q = grad or logits, probs or logits
    return Call(
        rows=outer * inner,
        classes=classes,
        inner=inner,
        parts=parts,
        size=size,
        kind=PROBS if probs else INDEX,
        mode=GRADIENT,
        patience=PATIENCE if parts <= TOGETHER else 0,
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
        smoothing=float(scalars.label_smoothing),
        temperature=float(scalars.temperature),
        softcap=float(scalars.softcap),
        z_loss=float(scalars.z_loss),
        powers=Powers(),
    )


def _phase(data: Any) -> int:
    """Where an array's first element lies, as an index modulo 4."""
    if SIMULATED:
        return 0
    pointer: int = data.__cuda_array_interface__["data"][0]
    return pointer // int(data.dtype.itemsize) % 4


def _launch(plain: bool, arrays: tuple[Any, ...], stream: Any) -> None:
    """One kernel, and a second one where blocks may have left something over."""
    call: Call = arrays[4]
    if call.rows == 0:
        return
    if call.classes <= SHORT:
        _short(arrays, stream)
        return
    x, targets, weight, scale, call, results, grad = arrays
    threads = threads_of(call.size)
    group = 1 if SIMULATED or call.parts > 1 else min(THREADS // threads, ROWS)
    item = 4 if plain else 8
    size = (call.size + 7) // 4 * 4 if plain else call.size
    room = _room(call.rows * call.parts if call.parts > 1 else 1, call.rows, stream)
    shape = (threads, group), stream, group * size * item
    everything = x, targets, weight, scale, call, *room, results, grad
    if call.parts > 1:
        _clear_marks(room.marks, call.rows + 1, stream)
    kernel = plain_rows if plain else general_rows
    configured(kernel, _grid(call, group), *shape)(*everything)
    if call.parts > 1 and grad.size > 0:
        kernel = plain_rest if plain else general_rest
        configured(kernel, min(REST_BLOCKS, call.rows * call.parts), *shape)(*everything)


def _grid(call: Call, group: int) -> tuple[int, ...]:
    """A block for each part of each row, the parts of a row beside each other."""
    if call.parts == 1:
        return (-(-call.rows // group),)
    return call.parts, min(call.rows, MOST_ABREAST), -(-call.rows // MOST_ABREAST)


def _clear_marks(marks: Any, count: int, stream: Any) -> None:
    threads = 32 if SIMULATED else THREADS
    configured(_clear, -(-count // threads), threads, stream)(marks, count)


def _short(arrays: tuple[Any, ...], stream: Any) -> None:
    call: Call = arrays[4]
    threads = 64 if call.classes > 32 else 128
    if SIMULATED:  # each thread costs there; one of them shall have no row
        threads = min(32, call.rows + 1)
    blocks = -(-call.rows // threads)
    room = threads * (call.classes | 1) * 8
    configured(short_rows, blocks, threads, stream, room)(*arrays)


@cuda.jit
def _clear(marks, count):
    """Nothing is ready, and nothing left over."""
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        marks[i] = 0


def _room(parts: int, rows: int, stream: Any) -> Room:
    """What was there for this thread's last launch on this stream of this device, or more."""
    key = device_number(), 0 if SIMULATED else int(stream)
    room = _rooms.of.get(key)
    marks = 1 + rows + parts
    if room is None or room.states.size < parts * STATE or room.marks.size < marks:
        states = cuda.device_array(parts * STATE, np.float64)
        room = Room(states, cuda.device_array(marks, np.int64))
        _rooms.of[key] = room
    return room
