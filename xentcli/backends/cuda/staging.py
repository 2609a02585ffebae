"""Arrays in host memory, moved to a CUDA device piece by piece and back.

A piece goes through page-locked buffers, which a device can read and write by itself while the
processor copies the pieces before and after it. A few pieces are under way at once, each with a
stream and buffers of its own: one is copied in, one computed, one copied out. The buffers stay
for the next call.
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
from xentcli.backends.cuda.errors import told
from xentcli.backends.cuda.primitives import device_number
from xentcli.errors import UnavailableError

# One is copied from the caller's arrays, one in, one out, and one to the caller's arrays; the
# kernel itself takes next to no time.
UNDER_WAY = 4

_config: Any = numba.config  # its names are made at import, unknown to type checkers

# Bytes from which on several threads copy an array: at 10 GB/s a thread has 1 MiB copied in 0.1 ms.
SPLIT_FROM = 1 << 20

# At most so many threads copy: at 10 GB/s each, more than any link takes.
MOST_COPIERS = 8

Start = Callable[[list[Any], list[Any], Any], None]


class Piece(NamedTuple):
    """What the device reads and fills, and what starts the work on it.

    `start(entering, leaving, stream)` gets flat device arrays, one for each array here.
    """

    entering: tuple[Array, ...]
    leaving: tuple[Array, ...]
    start: Start


class Room:
    """Memory for one array at a time: page-locked here, and as much of it on the device."""

    def __init__(self) -> None:
        self._bytes = 0
        self._host: Any = None
        self._device: Any = None
        self._views: Any = None

    def of(self, array: Array) -> tuple[Array, Any]:
        """As many numbers of the same kind: here, in the array's shape, and there, flat."""
        key = array.size, array.dtype
        if self._views is None or self._views[0] != key:
            if self._bytes < array.nbytes:
                self._host = self._device = self._views = None  # first make room
                self._host = cuda.pinned_array(array.nbytes, np.uint8)
                self._device = cuda.device_array(array.nbytes, np.uint8)
                self._bytes = array.nbytes
            here, there = (part[: array.nbytes] for part in (self._host, self._device))
            self._views = key, here.view(array.dtype), there.view(array.dtype)
        return self._views[1].reshape(array.shape), self._views[2]


class Slot:
    """One piece under way: its stream, its memory, and who copies its results."""

    def __init__(self) -> None:
        self.stream = cuda.stream()
        self._rooms: list[Room] = []
        self._results: list[tuple[Array, Array]] = []
        self._copying: list[Future[None]] = []

    def start(self, piece: Piece, copiers: Copiers) -> None:
        """Copy a piece in, and let the device do the rest."""
        arrays = [bits(array) for array in (*piece.entering, *piece.leaving)]
        self._rooms += [Room() for _ in range(len(arrays) - len(self._rooms))]
        views = [room.of(array) for room, array in zip(self._rooms, arrays, strict=False)]
        there = [device for _, device in views]
        first = len(piece.entering)
        for array, (here, _) in zip(arrays[:first], views, strict=False):
            self._copying += copiers.copy(here, array)
        self._await(copiers)
        for here, device in views[:first]:
            device.copy_to_device(here.reshape(-1), stream=self.stream)
        piece.start(there[:first], there[first:], self.stream)
        for array, (here, device) in zip(arrays[first:], views[first:], strict=True):
            device.copy_to_host(here.reshape(-1), stream=self.stream)
            self._results.append((array, here))

    def fetch(self, copiers: Copiers) -> None:
        """When the device is done, begin to copy what it gave."""
        if self._results:
            self.stream.synchronize()
            for array, here in self._results:
                self._copying += copiers.copy(array, here)
            self._results = []

    def finish(self, copiers: Copiers) -> None:
        """The slot is free again."""
        self.fetch(copiers)
        self._await(copiers)

    def abandon(self, copiers: Copiers) -> None:
        """Wait until nobody reads or writes its buffers, or the caller's, any more."""
        with suppress(Exception):  # what comes first is told
            self.stream.synchronize()
        self._await(copiers)

    def _await(self, copiers: Copiers) -> None:
        copiers.wait(self._copying)
        self._copying = []


class Copiers:
    """Threads that copy; they start when there is something large."""

    def __init__(self, threads: int | None) -> None:
        most = min(_config.NUMBA_NUM_THREADS, MOST_COPIERS)
        self.threads = min(threads or most, most)
        self._pool = ThreadPoolExecutor(self.threads, "xent-copy")

    def copy(self, target: Array, source: Array) -> list[Future[None]]:
        """Begin a copy; what is small is done at once."""
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
        """Until they are done."""
        for copy in list(copies):
            copy.result()


class _Process:
    """What this process keeps: one lock, and slots for each device that it has used."""

    lock = RLock()
    number = os.getpid()
    slots: ClassVar[dict[int, list[Slot]]] = {}
    weights: ClassVar[dict[int, tuple[Array, Any]]] = {}


def check_process() -> None:
    """A device does not work in a child of the process that has started it."""
    if os.getpid() != _Process.number:
        what = "a CUDA device cannot be used in a forked child of a process that has used one"
        raise UnavailableError("backend", what, "start the child with the method spawn")


def kept(weight: Array) -> Any:
    """Numbers that many calls share, on the device; copied when they have changed."""
    number = device_number()
    known = _Process.weights.get(number)
    if known is None or not np.array_equal(known[0], weight):
        own = np.array(weight)
        known = own, cuda.to_device(own)
        cuda.synchronize()  # such a copy may be under way still, and not every stream waits for it
        _Process.weights[number] = known
    return known[1]


@contextmanager
def turn() -> Iterator[None]:
    """Threads take turns; the device's errors are told in our words, Numba's warnings are not."""
    check_process()
    with _Process.lock, told(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a small job does not fill the device, and the like
        yield


def run(pieces: Iterable[Piece], copiers: Copiers) -> None:
    """Compute all pieces; afterwards every result is where it belongs."""
    slots = _Process.slots.setdefault(device_number(), [])
    slots += [Slot() for _ in range(UNDER_WAY - len(slots))]
    try:
        for number, piece in enumerate(pieces):
            slot = slots[number % UNDER_WAY]
            slot.finish(copiers)
            slot.start(piece, copiers)
            slots[(number + 2) % UNDER_WAY].fetch(copiers)
        for slot in slots:
            slot.finish(copiers)
    except BaseException:  # Ctrl-C too
        abandoned = list(slots)
        slots.clear()
        for slot in abandoned:
            slot.abandon(copiers)
        raise
