"""Arrays in host memory, copied to a CUDA device and back in pieces.

A piece goes through page-locked buffers, which the device can read and write itself while the CPU
copies the pieces before and after it. A few pieces are in flight at once, each in a slot with its
own stream and buffers: one is copied in, one computed, one copied out. The buffers are kept for
the next call.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from threading import RLock
from typing import Any, ClassVar, NamedTuple

import numba
import numpy as np
from numba import cuda

from xentcli.arrays.dtypes import Array, bits
from xentcli.backends.cuda.errors import translate_errors
from xentcli.backends.cuda.primitives import device_number
from xentcli.errors import UnavailableError

# One piece is copied from the caller's arrays, one to the device, one from it, and one to the
# caller's arrays; the kernel itself takes next to no time.
SLOTS = 4

_config: Any = numba.config  # its attributes are set at import, unknown to type checkers

# Several threads copy an array of at least this many bytes: one copies 1 MiB in 0.1 ms.
SPLIT_FROM = 1 << 20

# Threads that copy, at most: at 10 GB/s each, more than any link to a device.
MAX_COPIERS = 8

Start = Callable[[list[Any], list[Any], Any], None]


class Transfer(NamedTuple):
    """One piece: the arrays that are copied in and out, and the function that launches its kernels.

    `start(inputs, outputs, stream)` gets flat device arrays, one for each array here.
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    start: Start


class StagingBuffer:
    """Memory for one array at a time: page-locked on the host, and as much on the device."""

    def __init__(self) -> None:
        self._bytes = 0
        self._host: Any = None
        self._device: Any = None
        self._views: Any = None

    def of(self, array: Array) -> tuple[Array, Any]:
        """Buffers for an array: one on the host, in its shape, and one on the device, flat."""
        key = array.size, array.dtype
        if self._views is None or self._views[0] != key:
            if self._bytes < array.nbytes:
                self._host = self._device = self._views = None  # free the old ones first
                self._host = cuda.pinned_array(array.nbytes, np.uint8)
                self._device = cuda.device_array(array.nbytes, np.uint8)
                self._bytes = array.nbytes
            host, device = (part[: array.nbytes] for part in (self._host, self._device))
            self._views = key, host.view(array.dtype), device.view(array.dtype)
        return self._views[1].reshape(array.shape), self._views[2]


class Slot:
    """One piece in flight: its stream, its buffers, and the copies that are not done."""

    def __init__(self) -> None:
        self.stream = cuda.stream()
        self._rooms: list[StagingBuffer] = []
        self._results: list[tuple[Array, Array]] = []
        self._copying: list[Future[None]] = []

    def start(self, piece: Transfer, copiers: Copiers) -> None:
        """Copy a piece to the device, and enqueue its kernels and the copies back."""
        arrays = [bits(array) for array in (*piece.inputs, *piece.outputs)]
        self._rooms += [StagingBuffer() for _ in range(len(arrays) - len(self._rooms))]
        views = [room.of(array) for room, array in zip(self._rooms, arrays, strict=False)]
        on_device = [device for _, device in views]
        first = len(piece.inputs)
        for array, (host, _) in zip(arrays[:first], views, strict=False):
            self._copying += copiers.copy(host, array)
        self._await(copiers)
        for host, device in views[:first]:
            device.copy_to_device(host.reshape(-1), stream=self.stream)
        piece.start(on_device[:first], on_device[first:], self.stream)
        for array, (host, device) in zip(arrays[first:], views[first:], strict=True):
            device.copy_to_host(host.reshape(-1), stream=self.stream)
            self._results.append((array, host))

    def fetch(self, copiers: Copiers) -> None:
        """Wait for the device, then begin to copy the results to the caller's arrays."""
        if self._results:
            self.stream.synchronize()
            for array, host in self._results:
                self._copying += copiers.copy(array, host)
            self._results = []

    def finish(self, copiers: Copiers) -> None:
        """Wait until the slot is free again."""
        self.fetch(copiers)
        self._await(copiers)

    def abandon(self, copiers: Copiers) -> None:
        """Wait until its buffers and the caller's arrays are no longer read or written."""
        with suppress(Exception):  # the first error is the one that is raised
            self.stream.synchronize()
        self._await(copiers)

    def _await(self, copiers: Copiers) -> None:
        copiers.wait(self._copying)
        self._copying = []


class Copiers:
    """Threads that copy large arrays; they are started when needed."""

    def __init__(self, threads: int | None) -> None:
        most = min(_config.NUMBA_NUM_THREADS, MAX_COPIERS)
        self.threads = min(threads or most, most)
        self._pool = ThreadPoolExecutor(self.threads, "xent-copy")

    def copy(self, target: Array, source: Array) -> list[Future[None]]:
        """Begin a copy; a small array is copied at once."""
        if target.nbytes < SPLIT_FROM:
            np.copyto(target, source)
            return []
        axis = int(np.argmax(target.shape))
        length, parts = target.shape[axis], self.threads
        edges = [length * part // parts for part in range(parts + 1)]
        spans = [(slice(None),) * axis + (slice(a, b),) for a, b in pairwise(edges)]
        return [self._pool.submit(np.copyto, target[s], source[s]) for s in spans]

    @staticmethod
    def wait(copies: Iterable[Future[None]]) -> None:
        """Wait until copies are done."""
        for copy in list(copies):
            copy.result()


class _DeviceState:
    """What this process keeps: a lock, and slots and weights for each device it has used."""

    lock = RLock()
    number = os.getpid()
    slots: ClassVar[dict[int, list[Slot]]] = {}
    weights: ClassVar[dict[int, tuple[Array, Any]]] = {}


def check_process() -> None:
    """An error in a forked child of the process that has used a device."""
    if os.getpid() != _DeviceState.number:
        what = "a CUDA device cannot be used in a forked child of a process that has used one"
        raise UnavailableError("backend", what, "start the child with the method spawn")


def device_weight(weight: Array) -> Any:
    """The class weights on the device; copied only when they have changed."""
    number = device_number()
    known = _DeviceState.weights.get(number)
    if known is None or not np.array_equal(known[0], weight):
        own = np.array(weight)
        known = own, cuda.to_device(own)
        cuda.synchronize()  # the copy may still run, and not every stream waits for it
        _DeviceState.weights[number] = known
    return known[1]


@contextmanager
def exclusive_device() -> Iterator[None]:
    """One thread at a time uses the device. Translates its errors, silences Numba's warnings."""
    check_process()
    with _DeviceState.lock, translate_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that a small job does not fill the device
        yield


def run(pieces: Iterable[Transfer], copiers: Copiers) -> None:
    """Compute all pieces, and wait until all results are in the caller's arrays."""
    slots = _DeviceState.slots.setdefault(device_number(), [])
    slots += [Slot() for _ in range(SLOTS - len(slots))]
    try:
        for number, piece in enumerate(pieces):
            slot = slots[number % SLOTS]
            slot.finish(copiers)
            slot.start(piece, copiers)
            slots[(number + 2) % SLOTS].fetch(copiers)
        for slot in slots:
            slot.finish(copiers)
    except BaseException:  # Ctrl-C too
        abandoned = list(slots)
        slots.clear()
        for slot in abandoned:
            slot.abandon(copiers)
        raise
