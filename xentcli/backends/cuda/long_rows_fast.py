"""Rows with an index target and no option but weights and z-loss, of float32 and half types.

    1. the logits into shared memory, 16 bytes at a time, and the largest
    2. there e_c = exp(x_c − max x) in their place, and the sum, in float64
    3. grad_c = e_c·factor, 16 bytes at a time, where the factor has two words

Each logit is read once. An entry is rounded twice, as e_c and as the product: it stays within
2 ULP. A row whose factor leaves what two words of float32 can say is computed from its logits
again, in float64.
"""

from __future__ import annotations

import math

from numba import cuda, float32, float64

from xentcli.backends.cuda.exp_pass import kept_at, summarised
from xentcli.backends.cuda.formulas import concluded, device, entry, exponential, lesser
from xentcli.backends.cuda.launch_params import UNBOOSTED
from xentcli.backends.cuda.primitives import fma, get, kernel, load4, put, size_of, store4
from xentcli.backends.cuda.reductions import (
    KNOWN,
    THREADS,
    TOLD,
    all_ready,
    leave,
    left_over,
    own_place,
    place_of,
    spot_of,
    tell,
    together,
    weight_of,
)

# With TOLD a multiple of 16 bytes: behind it in shared memory the logits begin, for wide loads.
SCRATCH = 2 * THREADS
REGISTERS = 40  # so that a processor's 65,536 are enough for six blocks


@device
def settled(sums, peak, given, call, spot, out, known):
    """The row's results, and what writing it needs, from the sums of all of it."""
    _, _, weight, scale = given
    results, grad = out
    at = spot.group * KNOWN
    if spot.thread == 0 and spot.y >= 0:
        hot = weight[spot.y]
        row = concluded(sums, hot, 0.0, call)
        if spot.part == 0 or grad.size == 0:
            results[0, spot.row] = row.loss
            results[1, spot.row] = row.lse
        times = scale[lesser(spot.row, scale.size - 1)]
        factor = row.b / (1.0 + row.others) * times
        local = factor * weight_of(sums.peak, peak, call) * UNBOOSTED
        high = float64(float32(local))
        e = exponential(sums.peak, sums.score, call)
        usual = local == 0.0 or 2.0**-114 <= abs(local) <= 2.0**-25
        known[at] = high
        known[at + 1] = local - high
        known[at + 2] = factor
        known[at + 3] = entry(e, hot, sums.score == sums.peak, row) * times + 0.0
        known[at + 4] = 1.0 if usual else 0.0
    cuda.syncthreads()


@device
def product(grad, e, high, low):
    """e times a factor of two words, where the result has more digits than a half type; never
    −0.0 where it is 0."""
    if size_of(grad) == 2:
        return fma(e, high, float32(0.0))
    return fma(e, high, fma(e, low, float32(0.0)))


@device
def products(grad, four, high, low):
    """Four entries of the gradient."""
    a, b, c, d = four
    return (
        product(grad, a, high, low),
        product(grad, b, high, low),
        product(grad, c, high, low),
        product(grad, d, high, low),
    )


@device
def write_usual(z, at, factors, call, spot, out):
    """Pass 3."""
    grad, start = out
    high, low = factors
    begin, end = 0, 0
    if call.g_step == 1:
        begin = lesser((4 - ((call.g_phase + start) & 3)) & 3, spot.count)
        end = begin + ((spot.count - begin) & -4)
    c = begin + 4 * spot.thread
    stride = 4 * spot.threads
    if (at + begin) & 3 == 0:
        while c + stride < end:
            four, more = load4(z, at + c), load4(z, at + c + stride)
            store4(grad, start + c, products(grad, four, high, low))
            store4(grad, start + c + stride, products(grad, more, high, low))
            c += 2 * stride
        if c < end:
            four = load4(z, at + c)
            store4(grad, start + c, products(grad, four, high, low))
    else:
        while c < end:
            four = get(z, at + c), get(z, at + c + 1), get(z, at + c + 2), get(z, at + c + 3)
            store4(grad, start + c, products(grad, four, high, low))
            c += stride
    c = spot.thread
    while c < begin:
        put(grad, start + c, product(grad, get(z, at + c), high, low))
        c += spot.threads
    c = end + spot.thread
    while c < spot.count:
        put(grad, start + c * call.g_step, product(grad, get(z, at + c), high, low))
        c += spot.threads


@device
def write_again(given, factor, peak, call, spot, out):
    """Pass 3 of a row with an unusual factor. Each thread reads what it overwrites."""
    x, start_x = given
    grad, start = out
    c = spot.thread
    while c < spot.count:
        score = float64(get(x, start_x + c * call.x_step))
        put(grad, start + c * call.g_step, exponential(peak, score, call) * factor + 0.0)
        c += spot.threads


@device
def write_nothing(call, spot, out):
    """The gradient of a row that is ignored."""
    grad, start = out
    c = spot.thread
    while c < lesser(call.size, call.classes - spot.begin):
        put(grad, start + c * call.g_step, float32(0.0))
        c += spot.threads


@device
def write(x, start_x, peak, call, spot, grad, shared):
    """The gradient of a part, from what `settled` has told."""
    z, _, known = shared
    at = spot.group * KNOWN
    start = place_of(spot.row, call.inner, call.g_outer, call.g_inner) + spot.begin * call.g_step
    out = grad, start
    if spot.y < 0:
        if spot.row < call.rows:
            write_nothing(call, spot, out)
    elif known[at + 4] > 0.0:
        factors = float32(known[at]), float32(known[at + 1])
        write_usual(z, kept_at(call, start_x, spot), factors, call, spot, out)
    else:
        write_again((x, start_x), known[at + 2], peak, call, spot, out)
    cuda.syncthreads()
    inside = spot.y - spot.begin
    if spot.thread == 0 and spot.y >= 0 and 0 <= inside < spot.count:
        put(grad, start + inside * call.g_step, known[at + 3])


@device
def ignored(call, spot, out):
    """The results of a row that is ignored."""
    if spot.thread == 0 and spot.y < 0 and spot.part == 0 and spot.row < call.rows:
        out[0][0, spot.row] = 0.0
        out[0][1, spot.row] = math.nan


@kernel(REGISTERS)
def plain_rows(x, targets, weight, scale, call, states, marks, results, grad):
    """One block for some rows, or for a part of one: see `blocks`."""
    z = cuda.shared.array(0, float32)
    sums = cuda.shared.array(SCRATCH, float64)
    known = cuda.shared.array(TOLD, float64)
    shared, given, out = (z, sums, known), (x, targets, weight, scale), (results, grad)
    first_row, part = own_place(call)
    spot = spot_of(first_row, part, targets, call)
    start = place_of(spot.row, call.inner, call.x_outer, call.x_inner) + spot.begin * call.x_step
    row = summarised(x, start, call, spot, shared)
    peak = row.peak
    ignored(call, spot, out)
    if call.parts > 1 and spot.y >= 0:  # such a block has one row
        if spot.thread == 0:
            tell(known, 0, row)
        patience = call.patience if grad.size > 0 else 0
        if not all_ready((states, marks), call, spot, known, patience):
            if grad.size > 0:
                leave(marks, call, spot)
            return
        row = together(states, call, spot, sums)
    settled(row, peak, given, call, spot, out, known)
    if grad.size > 0:
        write(x, start, row.peak, call, spot, grad, shared)


@cuda.jit
def plain_rest(x, targets, weight, scale, call, states, marks, results, grad):
    """What `plain_rows` left over."""
    z = cuda.shared.array(0, float32)
    sums = cuda.shared.array(SCRATCH, float64)
    known = cuda.shared.array(TOLD, float64)
    shared, given, out = (z, sums, known), (x, targets, weight, scale), (results, grad)
    for i in range(cuda.blockIdx.x, marks[0], cuda.gridDim.x):
        spot = left_over(marks, i, targets, call)
        start = place_of(spot.row, call.inner, call.x_outer, call.x_inner)
        start += spot.begin * call.x_step
        peak = summarised(x, start, call, spot, shared).peak
        row = together(states, call, spot, sums)
        settled(row, peak, given, call, spot, out, known)
        write(x, start, row.peak, call, spot, grad, shared)
        cuda.syncthreads()
