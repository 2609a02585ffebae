"""The first two passes over a row of float32 or half types: its logits into shared memory, and
their exponentials in their place.

The second has most of the instructions: 17.2 per logit for compute capability 9.0, 11 of them
float64. The variants that took more are in `.github/TUNING.md`.
"""

from __future__ import annotations

import math

from numba import cuda, float32, float64, int32

from xentcli.backends.cuda.formulas import Sums, device, lesser, reference_of, single
from xentcli.backends.cuda.launch_params import UNBOOSTED
from xentcli.backends.cuda.primitives import get, larger, load4, put, smaller, store4
from xentcli.backends.cuda.reductions import FAR, THREADS, add_up, largest_of

# Below the largest logit: there e·2⁴⁸ is long 0 in float32, and so is a loss of any weight in
# float32. Where logits are so large that this is rounded, `single` still reaches what is left.
FAREST = 350.0


@device
def kept_at(call, start, spot):
    """Where a row's part lies in shared memory: there, too, its lines begin at multiples of 4."""
    room = (call.size + 7) // 4 * 4
    at = spot.group * room
    if call.x_step == 1:
        at += (call.x_phase + start) & 3
    return at


@device
def keep4(four, z, at, ends):
    """Four logits into shared memory; the largest and the smallest with those before."""
    store4(z, at, four)
    a, b, c, d = four
    most = larger(ends[0], larger(larger(a, b), larger(c, d)))
    return most, smaller(ends[1], smaller(smaller(a, b), smaller(c, d)))


@device
def kept(x, start, step, z, at, spot):
    """The logits into shared memory; the largest and the smallest of this thread's."""
    ends = float32(-math.inf), float32(math.inf)
    begin, end = 0, 0
    if step == 1:
        begin = lesser((4 - (at & 3)) & 3, spot.count)
        end = begin + ((spot.count - begin) & -4)
    stride = 4 * spot.threads
    c = begin + 4 * spot.thread
    while c + 3 * stride < end:  # four loads are under way before the first is needed
        a = load4(x, start + c)
        b = load4(x, start + c + stride)
        d = load4(x, start + c + 2 * stride)
        e = load4(x, start + c + 3 * stride)
        ends = keep4(a, z, at + c, ends)
        ends = keep4(b, z, at + c + stride, ends)
        ends = keep4(d, z, at + c + 2 * stride, ends)
        ends = keep4(e, z, at + c + 3 * stride, ends)
        c += 4 * stride
    while c < end:
        ends = keep4(load4(x, start + c), z, at + c, ends)
        c += stride
    span = spot.thread, begin, spot.threads
    ends = kept_singly(x, start, 1, z, at, span, ends)
    span = end + spot.thread, spot.count, spot.threads
    return kept_singly(x, start, step, z, at, span, ends)


@device
def kept_singly(x, start, step, z, at, span, ends):
    """The same one by one."""
    c, end, stride = span
    most, least = ends
    while c < end:
        value = get(x, start + c * step)
        put(z, at + c, value)
        most, least = larger(most, value), smaller(least, value)
        c += stride
    return most, least


@device
def exponentials(z, at, peak, ends, spot, by):
    """e·2⁴⁸ in place of the logits; how many are the largest, and the sum of the others.

    A thread has four neighbouring classes at a time, wherever these lie in memory. Most threads
    have neither a largest nor one whose e is 0, and need not look for them: the same bits with a
    third fewer instructions. (`ends` is of the same classes only where lines begin with the row.)
    """
    reference = reference_of(float64(peak))
    nearest, lowest = float32(reference), float32(reference - FAREST)
    bounds = reference, nearest, lowest
    ones, others = int32(0), 0.0
    c, end = at + 4 * spot.thread, at + (spot.count & -4)
    if at & 3 == 0 and ends[0] < nearest and ends[1] >= lowest:
        while c < end:
            e, more = four_alike(load4(z, c), reference, by)
            store4(z, c, e)
            others += more
            c += 4 * spot.threads
    elif at & 3 == 0:
        while c < end:
            e, more, more_ones = four_boosted(load4(z, c), bounds, by)
            store4(z, c, e)
            others += more
            ones += more_ones
            c += 4 * spot.threads
    else:
        while c < end:
            four = get(z, c), get(z, c + 1), get(z, c + 2), get(z, c + 3)
            e, more, more_ones = four_boosted(four, bounds, by)
            put(z, c, e[0])
            put(z, c + 1, e[1])
            put(z, c + 2, e[2])
            put(z, c + 3, e[3])
            others += more
            ones += more_ones
            c += 4 * spot.threads
    c = end + spot.thread
    if c < at + spot.count:
        last, more, more_ones = boosted(get(z, c), bounds, by)
        put(z, c, last)
        others += more
        ones += more_ones
    return float64(ones), others * UNBOOSTED


@device
def four_alike(four, reference, by):
    """e·2⁴⁸ of four logits that are neither a largest nor too far below; and their sum."""
    e = single(float64(four[0]), reference, by)
    f = single(float64(four[1]), reference, by)
    g = single(float64(four[2]), reference, by)
    h = single(float64(four[3]), reference, by)
    return (float32(e), float32(f), float32(g), float32(h)), (e + f) + (g + h)


@device
def boosted(x, bounds, by):
    """e·2⁴⁸ as it is kept, what of it belongs to the others' sum, and 1 where it is a largest."""
    reference, nearest, lowest = bounds
    e = single(float64(x), reference, by)
    kept, one = float32(e), int32(0)
    if x < lowest:
        kept = float32(0.0)
    if x == nearest:
        one = int32(1)
    if x == nearest or x < lowest:
        e = 0.0
    return kept, e, one


@device
def four_boosted(four, bounds, by):
    """The same of four logits together."""
    e, more_e, one_e = boosted(four[0], bounds, by)
    f, more_f, one_f = boosted(four[1], bounds, by)
    g, more_g, one_g = boosted(four[2], bounds, by)
    h, more_h, one_h = boosted(four[3], bounds, by)
    return (e, f, g, h), (more_e + more_f) + (more_g + more_h), (one_e + one_f) + (one_g + one_h)


@device
def summarised(x, start, call, spot, shared):
    """Passes 1 and 2: the part's sums, for all threads."""
    z, sums, _ = shared
    at = kept_at(call, start, spot)
    ends = kept(x, start, call.x_step, z, at, spot)
    peak = largest_of(float64(ends[0]), sums, spot)
    if call.x_step != 1:
        ends = float32(math.inf), float32(-math.inf)  # of other classes than this thread will have
    inside = spot.y - spot.begin
    score = 0.0
    if 0 <= inside < spot.count:
        score = float64(get(z, at + inside))
    cuda.syncthreads()  # the target's logit has been read
    ones, others = exponentials(z, at, peak, ends, spot, call.powers)
    sums[spot.first + spot.thread] = ones
    sums[spot.first + spot.thread + THREADS] = others
    add_up(sums, 2, THREADS, spot, spot.threads)
    ones, others = sums[spot.first], sums[spot.first + THREADS]
    cuda.syncthreads()
    return Sums(peak, ones, others, score, 0.0, 0.0, 0.0, FAR)
