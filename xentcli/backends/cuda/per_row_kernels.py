"""Kernels over one number per row: targets, weights, scales and losses.

Inputs may be strided: row o·inner + i is the element o·outer_step + i·inner_step.
"""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import min_of
from xentcli.backends.cuda.primitives import configured
from xentcli.backends.cuda.reductions import WARP
from xentcli.backends.cuda.two_words import add

THREADS = 256
GRID = 1024  # blocks, at most; a thread computes several rows if needed
BLOCK = 1024  # rows whose losses one warp adds up


def over_rows(kernel, rows, stream):
    """A kernel with its launch configuration for so many rows, at least one."""
    threads = min(THREADS, rows)
    return configured(kernel, min(GRID, math.ceil(rows / threads)), threads, stream)


@cuda.jit
def class_indices(values, inner, steps, classes, ignore_index, indices, found):
    """Targets as int64, −1 for `ignore_index`; counts those ignored, and those out of range.

    `values` are integers or floats. A target out of range becomes −1 too, so that no later kernel
    reads outside the logits.
    """
    counts = cuda.shared.array(2, int64)
    first = cuda.threadIdx.x == 0
    if first:
        counts[0] = 0
        counts[1] = 0
    cuda.syncthreads()
    ignored = 0
    wrong = 0
    for row in range(cuda.grid(1), indices.shape[0], cuda.gridsize(1)):
        value = values[row // inner * steps[0] + row % inner * steps[1]]
        index = -1
        if value == ignore_index:
            ignored += 1
        elif value >= 0 and value < classes and int64(value) == value:
            index = int64(value)
        else:
            wrong += 1
        indices[row] = index
    if ignored:
        cuda.atomic.add(counts, 0, ignored)
    if wrong:
        cuda.atomic.add(counts, 1, wrong)
    cuda.syncthreads()
    if first:
        cuda.atomic.add(found, 0, counts[0])
        cuda.atomic.add(found, 1, counts[1])


@cuda.jit
def as_float64(values, inner, steps, numbers, found):
    """Numbers as float64; counts those that are not finite."""
    for row in range(cuda.grid(1), numbers.shape[0], cuda.gridsize(1)):
        number = float64(values[row // inner * steps[0] + row % inner * steps[1]])
        numbers[row] = number
        if not math.isfinite(number):
            cuda.atomic.add(found, 0, 1)


@cuda.jit
def row_weights(indices, weight, sample_weight, weights):
    """v_i·w_{y_i}, and 0 for ignored rows; a single v is for all rows."""
    for row in range(cuda.grid(1), weights.shape[0], cuda.gridsize(1)):
        index = indices[row]
        if index < 0:
            weights[row] = 0.0
        else:
            v = sample_weight[row if sample_weight.shape[0] > 1 else 0]
            weights[row] = v * weight[index]


@cuda.jit
def scaled(values, divisor, factors, results):
    """values_i / divisor · factors_i; a single value or factor is for all rows."""
    for row in range(cuda.grid(1), results.shape[0], cuda.gridsize(1)):
        value = values[row if values.shape[0] > 1 else 0]
        product = value / divisor * factors[row if factors.shape[0] > 1 else 0]
        results[row] = product + 0.0  # −0.0 becomes 0.0


@cuda.jit
def block_sums(values, parts):
    """The sum of each 1024 numbers and its rounding error, in an order that never changes.

    One warp for each sum.
    """
    high = cuda.shared.array(WARP, float64)
    low = cuda.shared.array(WARP, float64)
    lane = cuda.threadIdx.x
    begin = int64(cuda.blockIdx.x) * BLOCK
    total = 0.0
    lost = 0.0
    for row in range(begin + lane, min_of(begin + BLOCK, values.shape[0]), WARP):
        total, lost = add(total, lost, values[row])
    high[lane] = total
    low[lane] = lost
    step = WARP // 2
    while step > 0:
        cuda.syncthreads()
        if lane < step:
            lost = low[lane] + low[lane + step]
            high[lane], low[lane] = add(high[lane], lost, high[lane + step])
        step //= 2
    if lane == 0:
        parts[0, cuda.blockIdx.x] = high[0]
        parts[1, cuda.blockIdx.x] = low[0]
