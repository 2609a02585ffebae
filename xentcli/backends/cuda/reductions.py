"""How the threads of a block share a part of a row, and the blocks a row.

A row is split into parts by its number of classes alone, a part among threads by its size alone,
and sums are trees of fixed shapes: so the bits of a row depend on nothing but the row.

Each block has its part in shared memory. It publishes the part's sums to the row's other blocks
and polls for theirs, but not forever: blocks of a row are launched one after the other and nearly
always run at the same time, but CUDA does not guarantee it. A block that gives up defers its part
to a second launch, which reads it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import cuda, int64

from xentcli.backends.cuda.formulas import min_of
from xentcli.backends.cuda.launch_params import INDEX
from xentcli.backends.cuda.primitives import device, larger
from xentcli.backends.cuda.two_words import add

THREADS = 256  # at most, in a block
ROWS = 8  # at most, in a block
SUMS_SIZE = 12  # numbers in `PartSums`
FACTS = 10  # numbers that the threads of a row share
SHARED_FACTS = FACTS * ROWS
WARP = 32  # threads
NO_CLASS = 9.0e15  # above any class index


class Task(NamedTuple):
    """What a thread works on: a part of a row, together with other threads."""

    row: Any
    part: Any
    y: Any  # the target's class; −1 if the row is ignored, 0 if targets are no indices
    begin: Any  # the part's first class
    count: Any  # its number of classes; 0 if there is nothing to do
    thread: Any  # its number among the threads of this row
    threads: Any
    first: Any  # of this row's numbers in shared arrays with one number per thread
    group: Any  # the number of the row in its block


@device
def block_rows_and_part(params):
    """The first row and the part of this block; the parts of a row are consecutive blocks."""
    if params.parts == 1:
        return int64(cuda.blockIdx.x) * cuda.blockDim.y, int64(0)
    return int64(cuda.blockIdx.z) * cuda.gridDim.y + cuda.blockIdx.y, int64(cuda.blockIdx.x)


@device
def task_of(first_row, part, targets, params):
    """What this thread works on, in a block of some rows, or of one part of a row."""
    row = first_row + cuda.threadIdx.y
    begin = part * params.size
    count = min_of(params.size, params.classes - begin)
    y = int64(0)
    if row >= params.rows:
        y = int64(-1)
    elif params.kind == INDEX:
        y = int64(targets[row])
    if y < 0:
        count = int64(0)
    first = int64(cuda.threadIdx.y) * cuda.blockDim.x
    return Task(
        row,
        part,
        y,
        begin,
        count,
        int64(cuda.threadIdx.x),
        int64(cuda.blockDim.x),
        first,
        int64(cuda.threadIdx.y),
    )


@device
def deferred_task(marks, i, targets, params):
    """What this thread works on, of deferred part i."""
    unit = marks[1 + params.rows + i]
    return task_of(unit // params.parts, unit % params.parts, targets, params)


@device
def row_offset(row, inner, outer_stride, inner_stride):
    """The offset of a row's first class."""
    if inner == 1:
        return row * outer_stride
    return row // inner * outer_stride + row % inner * inner_stride


@device
def reduce_max(value, sums, task):
    """The largest number of the threads of a row; NaN if any is NaN."""
    at = task.first + task.thread
    sums[at] = value
    cuda.syncthreads()
    if task.thread < WARP:
        for k in range(WARP, task.threads, WARP):
            value = larger(value, sums[at + k])
        sums[at] = value
    cuda.syncthreads()
    step = WARP // 2
    while step > 0:
        if task.thread < step:
            sums[at] = larger(sums[at], sums[at + step])
        cuda.syncthreads()
        step //= 2
    largest = sums[task.first]
    cuda.syncthreads()  # before the memory is used again
    return largest


@device
def reduce_sums(sums, many, stride, task, threads):
    """Sum `many` numbers, `stride` apart, over a row's first threads; the first one gets the sums.
    Other warps of the block only wait."""
    at = task.first + task.thread
    cuda.syncthreads()
    if task.thread < WARP:
        for j in range(many):
            i = at + j * stride
            value = sums[i]
            for k in range(WARP, threads, WARP):
                value += sums[i + k]
            sums[i] = value
    cuda.syncthreads()
    step = WARP // 2
    while step > 0:
        if task.thread < step:
            for j in range(many):
                i = at + j * stride
                sums[i] += sums[i + step]
        cuda.syncthreads()
        step //= 2


@device
def reduce_sum_with_error(sums, stride, task, threads):
    """The same for one number with its rounding error, in twice the precision."""
    at = task.first + task.thread
    cuda.syncthreads()
    if task.thread < WARP:
        high, low = sums[at], sums[at + stride]
        for k in range(WARP, threads, WARP):
            high, low = add(high, low + sums[at + k + stride], sums[at + k])
        sums[at], sums[at + stride] = high, low
    cuda.syncthreads()
    step = WARP // 2
    while step > 0:
        if task.thread < step:
            low = sums[at + stride] + sums[at + step + stride]
            sums[at], sums[at + stride] = add(sums[at], low, sums[at + step])
        cuda.syncthreads()
        step //= 2


@device
def publish_and_check(scratch, params, task, facts, polls):
    """Publish this part's sums, which are in `facts`; whether those of all parts are published.

    `marks` holds the number of deferred parts, then for each row the number of published parts,
    then the list of deferred parts. A fence separates the sums from the count that publishes them.
    """
    states, marks = scratch
    if task.thread == 0:
        at = (task.row * params.parts + task.part) * SUMS_SIZE
        for j in range(SUMS_SIZE):
            states[at + j] = facts[j]
        cuda.threadfence()
        ready = cuda.atomic.add(marks, 1 + task.row, int64(1)) + 1
        while ready < params.parts and polls > 0:
            ready = cuda.atomic.add(marks, 1 + task.row, int64(0))
            polls -= 1
        cuda.threadfence()
        facts[0] = 1.0 if ready == params.parts else 0.0
    cuda.syncthreads()
    answer = facts[0] > 0.0
    cuda.syncthreads()
    return answer


@device
def defer(marks, params, task):
    """Add this part to the list of deferred parts."""
    if task.thread == 0:
        i = cuda.atomic.add(marks, 0, int64(1))
        marks[1 + params.rows + i] = task.row * params.parts + task.part
