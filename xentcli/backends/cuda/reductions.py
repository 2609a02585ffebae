"""How the threads of a block share some classes of a row, and blocks a row.

A row is cut into parts by its number of classes alone, a part among its threads by its size
alone, and sums are trees of fixed shapes: so a row's bits depend on nothing but the row.

Each block keeps its part in shared memory. It hands the part's sums to the row's other blocks and
waits for theirs, but not for ever: blocks of a row are started one after the other and nearly
always run at the same time, and nobody promises it. A block that has waited in vain leaves its
part to a second launch, which reads it again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import cuda, int64

from xentcli.backends.cuda.formulas import Sums, added, below, device, divisor, exponential, lesser
from xentcli.backends.cuda.launch_params import INDEX
from xentcli.backends.cuda.primitives import larger, times

THREADS = 256  # of a block, at most
ROWS = 8  # of a block, at most
STATE = 8  # numbers of `Sums`
KNOWN = 8  # numbers that a row's threads tell each other
TOLD = KNOWN * ROWS
WARP = 32  # threads that go in step
FAR = 9.0e15  # more than any class


class Spot(NamedTuple):
    """What a thread works at: a part of a row, with other threads."""

    row: Any
    part: Any
    y: Any  # the target's class, −1 where the row is ignored, 0 where there are no indices
    begin: Any  # the part's first class
    count: Any  # its classes; 0 where there is nothing to do
    thread: Any  # of those of this row
    threads: Any
    first: Any  # where this row's numbers begin in shared arrays of one number per thread
    group: Any  # which of the block's rows it is


@device
def own_place(call):
    """The rows and the part of this block: with several parts, these are neighbouring blocks."""
    if call.parts == 1:
        return int64(cuda.blockIdx.x) * cuda.blockDim.y, int64(0)
    return int64(cuda.blockIdx.z) * cuda.gridDim.y + cuda.blockIdx.y, int64(cuda.blockIdx.x)


@device
def spot_of(first_row, part, targets, call):
    """What this thread works at, in a block that has some rows from that one on, or a part."""
    row = first_row + cuda.threadIdx.y
    begin = part * call.size
    count = lesser(call.size, call.classes - begin)
    y = int64(0)
    if row >= call.rows:
        y = int64(-1)
    elif call.kind == INDEX:
        y = int64(targets[row])
    if y < 0:
        count = int64(0)
    first = int64(cuda.threadIdx.y) * cuda.blockDim.x
    return Spot(
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
def left_over(marks, i, targets, call):
    """The part that is number i on the list of those left over."""
    unit = marks[1 + call.rows + i]
    return spot_of(unit // call.parts, unit % call.parts, targets, call)


@device
def place_of(row, inner, outer_stride, inner_stride):
    """Where a row's first class lies."""
    if inner == 1:
        return row * outer_stride
    return row // inner * outer_stride + row % inner * inner_stride


@device
def largest_of(value, sums, spot):
    """The largest of the numbers that a row's threads have; NaN where one is."""
    at = spot.first + spot.thread
    sums[at] = value
    cuda.syncthreads()
    if spot.thread < WARP:
        for k in range(WARP, spot.threads, WARP):
            value = larger(value, sums[at + k])
        sums[at] = value
    cuda.syncthreads()
    step = WARP // 2
    while step > 0:
        if spot.thread < step:
            sums[at] = larger(sums[at], sums[at + step])
        cuda.syncthreads()
        step //= 2
    largest = sums[spot.first]
    cuda.syncthreads()  # before the memory is used again
    return largest


@device
def add_up(sums, many, stride, spot, threads):
    """Sums of `many` numbers of each of a row's first threads, `stride` apart; they are left
    with the first. The rest of a block, in its warps, has little to do for it."""
    at = spot.first + spot.thread
    cuda.syncthreads()
    if spot.thread < WARP:
        for j in range(many):
            i = at + j * stride
            value = sums[i]
            for k in range(WARP, threads, WARP):
                value += sums[i + k]
            sums[i] = value
    cuda.syncthreads()
    step = WARP // 2
    while step > 0:
        if spot.thread < step:
            for j in range(many):
                i = at + j * stride
                sums[i] += sums[i + step]
        cuda.syncthreads()
        step //= 2


@device
def add_up_exactly(sums, stride, spot, threads):
    """The same of one number and its rounding error, in twice the precision."""
    at = spot.first + spot.thread
    cuda.syncthreads()
    if spot.thread < WARP:
        high, low = sums[at], sums[at + stride]
        for k in range(WARP, threads, WARP):
            high, low = added(high, low + sums[at + k + stride], sums[at + k])
        sums[at], sums[at + stride] = high, low
    cuda.syncthreads()
    step = WARP // 2
    while step > 0:
        if spot.thread < step:
            low = sums[at + stride] + sums[at + step + stride]
            sums[at], sums[at + stride] = added(sums[at], low, sums[at + step])
        cuda.syncthreads()
        step //= 2


@device
def whole(high, low):
    """A sum and its error as one number."""
    if abs(high) < math.inf:
        return high + low
    return high


@device
def told(known, at):
    """The sums that a row's first thread has put into shared memory."""
    return Sums(
        known[at],
        known[at + 1],
        known[at + 2],
        known[at + 3],
        known[at + 4],
        known[at + 5],
        known[at + 6],
        known[at + 7],
    )


@device
def tell(known, at, sums):
    """Put them there."""
    known[at] = sums.peak
    known[at + 1] = sums.ones
    known[at + 2] = sums.others
    known[at + 3] = sums.score
    known[at + 4] = sums.of_ones
    known[at + 5] = sums.rest
    known[at + 6] = sums.far
    known[at + 7] = sums.top


@device
def all_ready(room, call, spot, known, patience):
    """Hand over this part's sums, which lie in `known`; whether those of all parts are there.

    `marks` counts what is left over, then for each row the parts that are ready, then lists what
    is left over. A fence parts the sums from the mark that says they are there.
    """
    states, marks = room
    if spot.thread == 0:
        at = (spot.row * call.parts + spot.part) * STATE
        for j in range(STATE):
            states[at + j] = known[j]
        cuda.threadfence()
        ready = cuda.atomic.add(marks, 1 + spot.row, int64(1)) + 1
        while ready < call.parts and patience > 0:
            ready = cuda.atomic.add(marks, 1 + spot.row, int64(0))
            patience -= 1
        cuda.threadfence()
        known[0] = 1.0 if ready == call.parts else 0.0
    cuda.syncthreads()
    answer = known[0] > 0.0
    cuda.syncthreads()
    return answer


@device
def leave(marks, call, spot):
    """Put this part on the list of what is left over."""
    if spot.thread == 0:
        i = cuda.atomic.add(marks, 0, int64(1))
        marks[1 + call.rows + i] = spot.row * call.parts + spot.part


@device
def weight_of(peak, part, call):
    """What exponentials of a part are multiplied by among those of the row."""
    if part == -math.inf:
        return 0.0
    return exponential(peak, part, call)


@device
def together(states, call, spot, sums):
    """The sums of a whole row, for its first thread; all threads have to call it."""
    first = spot.row * call.parts * STATE
    peak = -math.inf
    for k in range(spot.thread, call.parts, spot.threads):
        peak = larger(peak, states[first + k * STATE])
    peak = largest_of(peak, sums, spot)
    ones, others, low, score, of_ones, rest, far = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    top = FAR
    if spot.thread < WARP:
        for k in range(spot.thread, call.parts, WARP):
            part = told(states, first + k * STATE)
            score += part.score
            if part.peak == peak:
                ones += part.ones
                others, low = added(others, low, part.others)
                of_ones += part.of_ones
                rest += part.rest
                far += part.far
                top = lesser(top, part.top)
            else:
                e = times(part.ones + part.others, weight_of(peak, part.peak, call))
                others, low = added(others, low, e)
                a = part.of_ones + part.rest
                rest += a
                gap, _ = below(peak, part.peak, divisor(call))
                far += part.far + (times(a, gap) if a != 0.0 else 0.0)
        at = spot.first + spot.thread
        sums[at] = others
        sums[at + WARP] = low
        sums[at + 2 * WARP] = ones
        sums[at + 3 * WARP] = score
        sums[at + 4 * WARP] = of_ones
        sums[at + 5 * WARP] = rest
        sums[at + 6 * WARP] = far
    add_up_exactly(sums, WARP, spot, WARP)
    add_up(sums[2 * WARP :], 5, WARP, spot, WARP)
    others = whole(sums[0], sums[WARP])
    ones, score, of_ones = sums[2 * WARP], sums[3 * WARP], sums[4 * WARP]
    rest, far = sums[5 * WARP], sums[6 * WARP]
    cuda.syncthreads()
    top = -largest_of(-top, sums, spot)
    return Sums(peak, ones, others, score, of_ones, rest, far, top)
