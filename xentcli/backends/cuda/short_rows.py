"""Rows of few classes: one thread per row, from a tile that the block loads together."""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import min_of, peak_of, usable_logit
from xentcli.backends.cuda.launch_params import INDEX
from xentcli.backends.cuda.long_rows import output_value, part_exponentials
from xentcli.backends.cuda.parts import sums_of
from xentcli.backends.cuda.primitives import device, get, larger, put
from xentcli.backends.cuda.reductions import Task, row_offset
from xentcli.backends.cuda.row_result import store_row_result


@device
def rows_contiguous(params, step, outer):
    """Whether the rows of a block are contiguous."""
    return params.inner == 1 and step == 1 and outer == params.classes


@device
def load_rows(x, tile, pitch, first, rows, params):
    """Load some rows into shared memory: consecutive threads load consecutive elements."""
    thread, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
    if rows_contiguous(params, params.x_step, params.x_outer):
        start = first * params.x_outer
        row, c = thread // params.classes, thread % params.classes
        more_rows, more = threads // params.classes, threads % params.classes
        while row < rows:
            put(tile, row * pitch + c, float64(get(x, start + row * params.classes + c)))
            row, c = row + more_rows, c + more
            if c >= params.classes:
                row, c = row + 1, c - params.classes
    elif thread < rows:
        start = row_offset(first + thread, params.inner, params.x_outer, params.x_inner)
        for c in range(params.classes):
            put(tile, thread * pitch + c, float64(get(x, start + c * params.x_step)))


@device
def store_rows(tile, grad, pitch, first, rows, params):
    """Store some rows from shared memory, in the same way."""
    thread, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
    if rows_contiguous(params, params.g_step, params.g_outer):
        start = first * params.g_outer
        row, c = thread // params.classes, thread % params.classes
        more_rows, more = threads // params.classes, threads % params.classes
        while row < rows:
            put(grad, start + row * params.classes + c, get(tile, row * pitch + c))
            row, c = row + more_rows, c + more
            if c >= params.classes:
                row, c = row + 1, c - params.classes
    elif thread < rows:
        start = row_offset(first + thread, params.inner, params.g_outer, params.g_inner)
        for c in range(params.classes):
            put(grad, start + c * params.g_step, get(tile, thread * pitch + c))


@device
def compute_row(tile, at, given, params, task, out):
    """The results of a row; its gradient replaces its logits in the tile."""
    largest = -math.inf
    for c in range(params.classes):
        x = usable_logit(get(tile, at + c), params)
        put(tile, at + c, x)
        largest = larger(largest, x)
    target = 0.0
    if params.kind == INDEX:
        target = get(tile, at + task.y)
    start = row_offset(task.row, params.inner, params.x_outer, params.x_inner)
    peak = peak_of(largest, params)
    ones, argmax, others, peak_mass, other_mass, gap_sum = part_exponentials(
        tile, at, peak, given, params, task
    )
    sums = sums_of(largest, ones, others, target, peak_mass, other_mass, gap_sum, argmax)
    factors, entries = store_row_result(sums, peak, start, given, params, task, out)
    if out[1].size == 0:
        return
    for c in range(params.classes):
        e = get(tile, at + c)
        put(tile, at + c, output_value(c, e, factors, peak, given, start, params, task))
    if entries[0] >= 0.0:
        put(tile, at + int64(entries[0]), entries[1])
    if entries[2] >= 0.0:
        put(tile, at + int64(entries[2]), entries[3])


@cuda.jit
def short_rows(x, targets, weight, scale, params, results, grad):
    """One row for each thread of a block."""
    tile = cuda.shared.array(0, float64)
    given, out = (x, targets, weight, scale), (results, grad)
    thread = int64(cuda.threadIdx.x)
    first = int64(cuda.blockIdx.x) * cuda.blockDim.x
    rows = min_of(int64(cuda.blockDim.x), params.rows - first)
    pitch = params.classes | 1  # odd, so that threads use all banks of shared memory
    load_rows(x, tile, pitch, first, rows, params)
    cuda.syncthreads()
    if thread < rows:
        row, y = first + thread, int64(0)
        if params.kind == INDEX:
            y = int64(targets[row])
        zero, one = int64(0), int64(1)
        task = Task(row, zero, y, zero, params.classes, zero, one, zero, zero)
        if y >= 0:
            compute_row(tile, thread * pitch, given, params, task, out)
        else:
            results[0, row] = 0.0
            results[1, row] = math.nan
            for c in range(params.classes):
                put(tile, thread * pitch + c, 0.0)
    cuda.syncthreads()
    if grad.size > 0:
        store_rows(tile, grad, pitch, first, rows, params)
