"""The first two passes over a row of float32 or half types: load its logits into shared memory,
and replace them by their exponentials.

The second has most of the instructions: 17.2 per logit for compute capability 9.0, 11 of them
float64. The variants that took more are in `.github/TUNING.md`.
"""

from __future__ import annotations

import math

from numba import cuda, float32, float64, int32

from xentcli.backends.cuda.formulas import SCALE_BITS, exp_float32, min_of
from xentcli.backends.cuda.launch_params import SINGLE_SCALE_BITS
from xentcli.backends.cuda.parts import sums_of
from xentcli.backends.cuda.primitives import device, get, larger, load4, put, smaller, store4
from xentcli.backends.cuda.reductions import (
    NO_CLASS,
    THREADS,
    reduce_max,
    reduce_sums,
)

# Logits this far below the largest have e·2⁴⁸ = 0 in float32, and add nothing to a float32 loss
# unless weights above 10¹⁷⁷ bring them back. The gap of very large logits is rounded, to 512 at
# most, and `exp_float32` is accurate up to 700.
MAX_FLOAT32_GAP = 511.0

RESCALE = 2.0 ** (SCALE_BITS - SINGLE_SCALE_BITS)


@device
def shared_offset(params, start, task):
    """Where a row's part lies in shared memory, with the same alignment as in device memory."""
    size = (params.size + 7) // 4 * 4
    at = task.group * size
    if params.x_step == 1:
        at += (params.x_phase + start) & 3
    return at


@device
def store_four(four, z, at, extremes):
    """Store four logits in shared memory; the extremes of these and those before."""
    store4(z, at, four)
    a, b, c, d = four
    most = larger(extremes[0], larger(larger(a, b), larger(c, d)))
    return most, smaller(extremes[1], smaller(smaller(a, b), smaller(c, d)))


@device
def load_part(x, start, step, z, at, task):
    """Load the logits into shared memory; the largest and the smallest of this thread."""
    extremes = float32(-math.inf), float32(math.inf)
    begin, end = 0, 0
    if step == 1:
        begin = min_of((4 - (at & 3)) & 3, task.count)
        end = begin + ((task.count - begin) & -4)
    stride = 4 * task.threads
    c = begin + 4 * task.thread
    while c + 3 * stride < end:  # four loads are in flight before the first is used
        a = load4(x, start + c)
        b = load4(x, start + c + stride)
        d = load4(x, start + c + 2 * stride)
        e = load4(x, start + c + 3 * stride)
        extremes = store_four(a, z, at + c, extremes)
        extremes = store_four(b, z, at + c + stride, extremes)
        extremes = store_four(d, z, at + c + 2 * stride, extremes)
        extremes = store_four(e, z, at + c + 3 * stride, extremes)
        c += 4 * stride
    while c < end:
        extremes = store_four(load4(x, start + c), z, at + c, extremes)
        c += stride
    span = task.thread, begin, task.threads
    extremes = load_singly(x, start, 1, z, at, span, extremes)
    span = end + task.thread, task.count, task.threads
    return load_singly(x, start, step, z, at, span, extremes)


@device
def load_singly(x, start, step, z, at, span, extremes):
    """The same, one element at a time."""
    c, end, stride = span
    most, least = extremes
    while c < end:
        value = get(x, start + c * step)
        put(z, at + c, value)
        most, least = larger(most, value), smaller(least, value)
        c += stride
    return most, least


@device
def part_exponentials(z, at, peak, extremes, task, constants):
    """Replace the logits by e·2⁴⁸; how many equal the peak, and the sum of the others.

    A thread takes four consecutive classes at a time. Most threads have neither the peak nor a
    logit whose e is 0, and need not compare: the same bits with a third fewer instructions.
    (`extremes` are of the same classes only if the part is aligned in shared memory.)
    """
    reference = 0.0 if peak == -math.inf else float64(peak)  # for exp(−inf) = 0
    highest, lowest = float32(reference), float32(reference - MAX_FLOAT32_GAP)
    bounds = reference, highest, lowest
    ones, others = int32(0), 0.0
    c, end = at + 4 * task.thread, at + (task.count & -4)
    if at & 3 == 0 and extremes[0] < highest and extremes[1] >= lowest:
        while c < end:
            e, more = four_inner_exps(load4(z, c), reference, constants)
            store4(z, c, e)
            others += more
            c += 4 * task.threads
    elif at & 3 == 0:
        while c < end:
            e, more, more_ones = four_scaled_exps(load4(z, c), bounds, constants)
            store4(z, c, e)
            others += more
            ones += more_ones
            c += 4 * task.threads
    else:
        while c < end:
            four = get(z, c), get(z, c + 1), get(z, c + 2), get(z, c + 3)
            e, more, more_ones = four_scaled_exps(four, bounds, constants)
            put(z, c, e[0])
            put(z, c + 1, e[1])
            put(z, c + 2, e[2])
            put(z, c + 3, e[3])
            others += more
            ones += more_ones
            c += 4 * task.threads
    c = end + task.thread
    if c < at + task.count:
        last, more, more_ones = scaled_exp(get(z, c), bounds, constants)
        put(z, c, last)
        others += more
        ones += more_ones
    return float64(ones), others * RESCALE


@device
def four_inner_exps(four, reference, constants):
    """e·2⁴⁸ of four logits that are neither the peak nor too far below it, and their sum."""
    e = exp_float32(float64(four[0]), reference, constants)
    f = exp_float32(float64(four[1]), reference, constants)
    g = exp_float32(float64(four[2]), reference, constants)
    h = exp_float32(float64(four[3]), reference, constants)
    return (float32(e), float32(f), float32(g), float32(h)), (e + f) + (g + h)


@device
def scaled_exp(x, bounds, constants):
    """e·2⁴⁸ as float32, its share of the others' sum, and 1 if the logit is the peak."""
    reference, highest, lowest = bounds
    e = exp_float32(float64(x), reference, constants)
    rounded, one = float32(e), int32(0)
    if x < lowest:
        rounded = float32(0.0)
    if x == highest:
        one = int32(1)
    if x == highest or x < lowest:
        e = 0.0
    return rounded, e, one


@device
def four_scaled_exps(four, bounds, constants):
    """The same for four logits."""
    e, more_e, one_e = scaled_exp(four[0], bounds, constants)
    f, more_f, one_f = scaled_exp(four[1], bounds, constants)
    g, more_g, one_g = scaled_exp(four[2], bounds, constants)
    h, more_h, one_h = scaled_exp(four[3], bounds, constants)
    return (e, f, g, h), (more_e + more_f) + (more_g + more_h), (one_e + one_f) + (one_g + one_h)


@device
def part_sums(x, start, params, task, shared):
    """Passes 1 and 2: the part's sums, known to all threads afterwards."""
    z, sums, _ = shared
    at = shared_offset(params, start, task)
    extremes = load_part(x, start, params.x_step, z, at, task)
    peak = reduce_max(float64(extremes[0]), sums, task)
    if params.x_step != 1:
        extremes = float32(math.inf), float32(-math.inf)  # of other classes than in pass 2
    inside = task.y - task.begin
    target = 0.0
    if 0 <= inside < task.count:
        target = float64(get(z, at + inside))
    cuda.syncthreads()  # after the target's logit has been read
    ones, others = part_exponentials(z, at, peak, extremes, task, params.exp)
    sums[task.first + task.thread] = ones
    sums[task.first + task.thread + THREADS] = others
    reduce_sums(sums, 2, THREADS, task, task.threads)
    ones, others = sums[task.first], sums[task.first + THREADS]
    cuda.syncthreads()
    zero = 0.0, 0.0
    return sums_of(peak, ones, (others, 0.0), target, zero, zero, zero, NO_CLASS)
