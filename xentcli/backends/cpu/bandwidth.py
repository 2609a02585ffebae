"""Kernels that only move memory, with the same vectors and threads: the limit of all others."""

from __future__ import annotations

import numpy as np
from numba import prange

from xentcli.arrays.dtypes import Array
from xentcli.backends import Scalars
from xentcli.backends.cpu.arithmetic import jit
from xentcli.backends.cpu.backend import CpuBackend
from xentcli.backends.cpu.load_store import load, pointer, prefetch, store, stream_store
from xentcli.backends.cpu.row_ops import max_across
from xentcli.backends.cpu.simd import LANES, constant, select_max

PREFETCH_ELEMENTS = 512  # of float32: as far ahead as in `long_rows_fast`


@jit
def copy_lines(source, begin, end, target):
    """Copy 64 bytes at a time, past the caches."""
    x, y = pointer(source, 0), pointer(target, 0)
    for i in range(begin, end, LANES):
        prefetch(x, i + PREFETCH_ELEMENTS)
        stream_store(y, i, load(x, i))


@jit
def largest_of(source, begin, end):
    """The largest number, for which everything has to be read."""
    x = pointer(source, 0)
    a = load(x, begin)
    b, c, d = a, a, a
    for i in range(begin, end - 3 * LANES, 4 * LANES):
        prefetch(x, i + PREFETCH_ELEMENTS)
        prefetch(x, i + PREFETCH_ELEMENTS + LANES)
        prefetch(x, i + PREFETCH_ELEMENTS + 2 * LANES)
        prefetch(x, i + PREFETCH_ELEMENTS + 3 * LANES)
        a = select_max(load(x, i), a)
        b = select_max(load(x, i + LANES), b)
        c = select_max(load(x, i + 2 * LANES), c)
        d = select_max(load(x, i + 3 * LANES), d)
    return max_across(select_max(select_max(a, b), select_max(c, d)))


@jit
def scale_lines(target, begin, end, factor):
    """Read, multiply and write back."""
    y = pointer(target, 0)
    for i in range(begin, end, LANES):
        prefetch(y, i + PREFETCH_ELEMENTS)
        x = load(y, i)
        store(y, i, x * constant(x, factor))


def copy(split, source, scalars, target):
    """Split the cache lines among threads."""
    parts, first = split
    lines = (len(source) - first) // LANES
    for part in prange(parts):
        begin, end = part * lines // parts * LANES, (part + 1) * lines // parts * LANES
        copy_lines(source, first + begin, first + end, target)


def read(split, source, scalars, maxima):
    """Split the cache lines among threads."""
    parts, first = split
    lines = (len(source) - first) // LANES
    for part in prange(parts):
        begin, end = part * lines // parts * LANES, (part + 1) * lines // parts * LANES
        maxima[part] = largest_of(source, first + begin, first + end)


def rewrite(split, scalars, target):
    """Split the cache lines among threads."""
    parts, first = split
    lines = (len(target) - first) // LANES
    for part in prange(parts):
        begin, end = part * lines // parts * LANES, (part + 1) * lines // parts * LANES
        scale_lines(target, first + begin, first + end, scalars.temperature)


class MemoryKernels(CpuBackend):
    """For flat float32 arrays of at least a few cache lines."""

    def copy(self, source: Array, target: Array) -> None:
        """Copy every whole cache line of the target; the elements before the first are left out."""
        self.run(copy, (self.threads, _first(target)), source, Scalars(), target)

    def read(self, source: Array) -> None:
        """Read every cache line."""
        maxima = np.empty(self.threads)
        self.run(read, (self.threads, 0), source, Scalars(), maxima)

    def rewrite(self, target: Array) -> None:
        """Read and write back every cache line."""
        self.run(rewrite, (self.threads, 0), Scalars(), target)


def _first(target: Array) -> int:
    """The first element at the start of a cache line."""
    return -target.ctypes.data % 64 // target.itemsize
