"""Kernels that only move memory, over a range of 64-byte lines of float32."""

from __future__ import annotations

from xentcli.backends.cpu.arithmetic import jit
from xentcli.backends.cpu.load_store import load, prefetch, store, stream_store
from xentcli.backends.cpu.row_ops import max_across
from xentcli.backends.cpu.simd import LANES, constant, select_max

PREFETCH_ELEMENTS = 2048  # of float32: as far ahead as in `long_rows_fast_passes`


@jit
def copy_lines(span, x, y, factor, space):
    """Copy past the caches, `factor` lines at a time: read as many, then write them."""
    block = int(factor)
    a = load(x, span[0] * LANES)
    for first in range(span[0], span[1], block):
        end = min(first + block, span[1])
        for i in range(first * LANES, end * LANES, LANES):
            prefetch(x, i + PREFETCH_ELEMENTS)
            a = select_max(load(x, i), a)
        for i in range(first * LANES, end * LANES, LANES):
            stream_store(y, i, load(x, i))
    space[0] = max_across(a)


@jit
def read_lines(span, x, y, factor, space):
    """Find the largest number, for which everything has to be read."""
    a = load(x, span[0] * LANES)
    b, c, d = a, a, a
    for i in range(span[0] * LANES, (span[1] - 3) * LANES, 4 * LANES):
        prefetch(x, i + PREFETCH_ELEMENTS)
        prefetch(x, i + PREFETCH_ELEMENTS + LANES)
        prefetch(x, i + PREFETCH_ELEMENTS + 2 * LANES)
        prefetch(x, i + PREFETCH_ELEMENTS + 3 * LANES)
        a = select_max(load(x, i), a)
        b = select_max(load(x, i + LANES), b)
        c = select_max(load(x, i + 2 * LANES), c)
        d = select_max(load(x, i + 3 * LANES), d)
    space[0] = max_across(select_max(select_max(a, b), select_max(c, d)))


@jit
def scale_lines(span, x, y, factor, space):
    """Read, multiply and write back."""
    for i in range(span[0] * LANES, span[1] * LANES, LANES):
        prefetch(y, i + PREFETCH_ELEMENTS)
        line = load(y, i)
        store(y, i, line * constant(line, factor))
