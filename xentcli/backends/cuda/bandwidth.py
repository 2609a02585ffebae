"""Kernels that only move device memory: the limit of all others."""

from __future__ import annotations

from typing import Any

from numba import cuda
from numba.core import config

THREADS = 256
BLOCKS = (
    (1, 4096) if vars(config)["ENABLE_CUDASIM"] else (128, 4096)
)  # fewer leave much of a device idle
LOADS = 8  # numbers that a thread loads before it uses the first


@cuda.jit
def sum_up(source, impossible, found):
    """Read everything; the sum is stored only if it has a value that is impossible."""
    total = 0.0
    step = cuda.gridsize(1)
    i = cuda.grid(1)
    while i + 7 * step < len(source):
        a = source[i] + source[i + step]
        b = source[i + 2 * step] + source[i + 3 * step]
        c = source[i + 4 * step] + source[i + 5 * step]
        d = source[i + 6 * step] + source[i + 7 * step]
        total += (a + b) + (c + d)
        i += 8 * step
    while i < len(source):
        total += source[i]
        i += step
    if total == impossible:
        found[0] = total


@cuda.jit
def scale(target, factor):
    """Read, multiply, write back."""
    step = cuda.gridsize(1)
    i = cuda.grid(1)
    while i + 3 * step < len(target):
        a, b = target[i], target[i + step]
        c, d = target[i + 2 * step], target[i + 3 * step]
        target[i], target[i + step] = a * factor, b * factor
        target[i + 2 * step], target[i + 3 * step] = c * factor, d * factor
        i += 4 * step
    while i < len(target):
        target[i] *= factor
        i += step


def _grid(count: int) -> tuple[int, int]:
    return max(BLOCKS[0], min(BLOCKS[1], count // (THREADS * LOADS))), THREADS


def copy(source: Any, target: Any) -> None:
    """The driver's copy from device memory to device memory."""
    target.copy_to_device(source)


def read(source: Any) -> None:
    """Read an array of non-negative float64."""
    sum_up[_grid(len(source))](source, -1.0, source)


def rewrite(target: Any) -> None:
    """Read and write back an array of float64."""
    scale[_grid(len(target))](target, 1.0)
