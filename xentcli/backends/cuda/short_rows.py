"""Rows of few classes: one thread for each, from a tile that the block has read together."""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import Sums, device, lesser, scored
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX
from xentcli.backends.cuda.long_rows import exponentials, value_of
from xentcli.backends.cuda.primitives import get, larger, put
from xentcli.backends.cuda.reductions import Spot, place_of, whole
from xentcli.backends.cuda.row_result import settled


@device
def side_by_side(call, step, outer):
    """Whether the rows of a block lie one after the other."""
    return call.inner == 1 and step == 1 and outer == call.classes


@device
def take(x, tile, pitch, first, rows, call):
    """Some rows into shared memory: neighbours by neighbouring threads."""
    thread, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
    if side_by_side(call, call.x_step, call.x_outer):
        start = first * call.x_outer
        row, c = thread // call.classes, thread % call.classes
        more_rows, more = threads // call.classes, threads % call.classes
        while row < rows:
            put(tile, row * pitch + c, float64(get(x, start + row * call.classes + c)))
            row, c = row + more_rows, c + more
            if c >= call.classes:
                row, c = row + 1, c - call.classes
    elif thread < rows:
        start = place_of(first + thread, call.inner, call.x_outer, call.x_inner)
        for c in range(call.classes):
            put(tile, thread * pitch + c, float64(get(x, start + c * call.x_step)))


@device
def give(tile, grad, pitch, first, rows, call):
    """Some rows from shared memory, in the same way."""
    thread, threads = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
    if side_by_side(call, call.g_step, call.g_outer):
        start = first * call.g_outer
        row, c = thread // call.classes, thread % call.classes
        more_rows, more = threads // call.classes, threads % call.classes
        while row < rows:
            put(grad, start + row * call.classes + c, get(tile, row * pitch + c))
            row, c = row + more_rows, c + more
            if c >= call.classes:
                row, c = row + 1, c - call.classes
    elif thread < rows:
        start = place_of(first + thread, call.inner, call.g_outer, call.g_inner)
        for c in range(call.classes):
            put(grad, start + c * call.g_step, get(tile, thread * pitch + c))


@device
def computed(tile, at, given, call, spot, out):
    """A row's results, and its gradient in place of its logits in the tile."""
    peak = -math.inf
    for c in range(call.classes):
        score = scored(get(tile, at + c), call)
        put(tile, at + c, score)
        peak = larger(peak, score)
    score = 0.0
    if call.kind == INDEX:
        score = get(tile, at + spot.y)
    start = place_of(spot.row, call.inner, call.x_outer, call.x_inner)
    pair, ones, of_ones, rest, far, top = exponentials(tile, at, peak, given, call, spot)
    sums = Sums(peak, ones, whole(pair[0], pair[1]), score, of_ones, rest, far, top)
    per_e, per_mass, others, place, largest, inside, target = settled(
        sums, start, given, call, spot, out
    )
    if out[1].size == 0:
        return
    factors = per_e, per_mass, others, peak
    for c in range(call.classes):
        put(tile, at + c, value_of(c, get(tile, at + c), factors, given, start, call, spot))
    if call.mode == GRADIENT:
        if place >= 0.0:
            put(tile, at + int64(place), largest)
        if inside >= 0.0:
            put(tile, at + int64(inside), target)


@cuda.jit
def short_rows(x, targets, weight, scale, call, results, grad):
    """As many rows as a block has threads."""
    tile = cuda.shared.array(0, float64)
    given, out = (x, targets, weight, scale), (results, grad)
    thread = int64(cuda.threadIdx.x)
    first = int64(cuda.blockIdx.x) * cuda.blockDim.x
    rows = lesser(int64(cuda.blockDim.x), call.rows - first)
    pitch = call.classes | 1  # odd, so that threads use all banks of the memory
    take(x, tile, pitch, first, rows, call)
    cuda.syncthreads()
    if thread < rows:
        row, y = first + thread, int64(0)
        if call.kind == INDEX:
            y = int64(targets[row])
        zero, one = int64(0), int64(1)
        spot = Spot(row, zero, y, zero, call.classes, zero, one, zero, zero)
        if y >= 0:
            computed(tile, thread * pitch, given, call, spot, out)
        else:
            results[0, row] = 0.0
            results[1, row] = math.nan
            for c in range(call.classes):
                put(tile, thread * pitch + c, 0.0)
    cuda.syncthreads()
    if grad.size > 0:
        give(tile, grad, pitch, first, rows, call)
