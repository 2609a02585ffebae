"""Kernels that only move memory: the limit of every other one, on the same vectors and threads."""

from __future__ import annotations

import numpy as np
from numba import prange

from xentcli.arrays.dtypes import Array
from xentcli.backends import Scalars
from xentcli.backends.cpu.arithmetic import called
from xentcli.backends.cpu.backend import CpuBackend
from xentcli.backends.cpu.load_store import load, pointer, prefetch, store, stream
from xentcli.backends.cpu.row_ops import across
from xentcli.backends.cpu.simd import LANES, constant, larger

AHEAD = 512  # elements of float32, as in the pipeline


@called
def copy_lines(source, begin, end, target):
    """Lines of 64 bytes, past the caches."""
    x, y = pointer(source, 0), pointer(target, 0)
    for i in range(begin, end, LANES):
        prefetch(x, i + AHEAD)
        stream(y, i, load(x, i))


@called
def largest_of(source, begin, end):
    """The largest number: every line has to be read."""
    x = pointer(source, 0)
    a = load(x, begin)
    b, c, d = a, a, a
    for i in range(begin, end - 3 * LANES, 4 * LANES):
        prefetch(x, i + AHEAD)
        prefetch(x, i + AHEAD + LANES)
        prefetch(x, i + AHEAD + 2 * LANES)
        prefetch(x, i + AHEAD + 3 * LANES)
        a = larger(load(x, i), a)
        b = larger(load(x, i + LANES), b)
        c = larger(load(x, i + 2 * LANES), c)
        d = larger(load(x, i + 3 * LANES), d)
    return across(larger(larger(a, b), larger(c, d)))


@called
def scale_lines(target, begin, end, factor):
    """Read, multiply, write back."""
    y = pointer(target, 0)
    for i in range(begin, end, LANES):
        prefetch(y, i + AHEAD)
        x = load(y, i)
        store(y, i, x * constant(x, factor))


def copy(deal, source, scalars, target):
    """Deal lines out to threads."""
    parts, first = deal
    lines = (len(source) - first) // LANES
    for part in prange(parts):
        begin, end = part * lines // parts * LANES, (part + 1) * lines // parts * LANES
        copy_lines(source, first + begin, first + end, target)


def read(deal, source, scalars, found):
    """Deal lines out to threads."""
    parts, first = deal
    lines = (len(source) - first) // LANES
    for part in prange(parts):
        begin, end = part * lines // parts * LANES, (part + 1) * lines // parts * LANES
        found[part] = largest_of(source, first + begin, first + end)


def rewrite(deal, scalars, target):
    """Deal lines out to threads."""
    parts, first = deal
    lines = (len(target) - first) // LANES
    for part in prange(parts):
        begin, end = part * lines // parts * LANES, (part + 1) * lines // parts * LANES
        scale_lines(target, first + begin, first + end, scalars.temperature)


class MemoryKernels(CpuBackend):
    """They take flat float32 arrays of at least a few lines."""

    def copy(self, source: Array, target: Array) -> None:
        """Every whole line of the target; the elements before the first are left out."""
        self.run(copy, (self.threads, _first(target)), source, Scalars(), target)

    def read(self, source: Array) -> None:
        """Every line is read."""
        found = np.empty(self.threads)
        self.run(read, (self.threads, 0), source, Scalars(), found)

    def rewrite(self, target: Array) -> None:
        """Every line is read and written back."""
        self.run(rewrite, (self.threads, 0), Scalars(), target)


def _first(target: Array) -> int:
    """The first element at the begin of a line."""
    return -target.ctypes.data % 64 // target.itemsize
