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

from numba import cuda, float32, float64, int32

from xentcli.kernels.cuda.blocks import (
    FAR,
    KNOWN,
    THREADS,
    TOLD,
    add_up,
    all_ready,
    largest_of,
    leave,
    place_of,
    spot_of,
    tell,
    together,
    weight_of,
)
from xentcli.kernels.cuda.formulas import (
    UNBOOSTED,
    Sums,
    concluded,
    device,
    entry,
    exponential,
    lesser,
    reference_of,
    single,
)
from xentcli.kernels.cuda.primitives import (
    fma,
    get,
    kernel,
    larger,
    load4,
    put,
    size_of,
    smaller,
    store4,
)

FAREST = 150.0  # below the largest logit, where e·2⁴⁸ is 0 in float32
SCRATCH = 2 * THREADS
REGISTERS = 40  # so that a processor's 65,536 are enough for six blocks


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
    if (at + begin) & 3 == 0:
        while c < end:
            four = load4(z, at + c)
            store4(grad, start + c, products(grad, four, high, low))
            c += 4 * spot.threads
    else:
        while c < end:
            four = get(z, at + c), get(z, at + c + 1), get(z, at + c + 2), get(z, at + c + 3)
            store4(grad, start + c, products(grad, four, high, low))
            c += 4 * spot.threads
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
    spot = spot_of(cuda.blockIdx.x, targets, call)
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
        spot = spot_of(marks[1 + call.rows + i], targets, call)
        start = place_of(spot.row, call.inner, call.x_outer, call.x_inner)
        start += spot.begin * call.x_step
        peak = summarised(x, start, call, spot, shared).peak
        row = together(states, call, spot, sums)
        settled(row, peak, given, call, spot, out, known)
        write(x, start, row.peak, call, spot, grad, shared)
        cuda.syncthreads()
