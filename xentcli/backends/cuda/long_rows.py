"""Rows with any target and any option, of any kind; and probabilities. In float64.

    1. z_c into shared memory, and the largest
    2. there e_c = exp(z_c − max z) in their place, and the sums
    3. the gradient, or the probabilities

With a softcap the logits are read a second time for its slope, with probabilities as targets
these are. In a part whose largest z is not the row's, e_c is computed again: exact to the last
bits where the row is, which a factor exp(max of the part − max z) would not be.
"""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import (
    Sums,
    added,
    below,
    device,
    divisor,
    exponential,
    exponential_in_two,
    lesser,
    log1p,
    reference_of,
    scored,
    slope,
)
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX, LOG, SOFTMAX
from xentcli.backends.cuda.primitives import fma, get, kernel, larger, put
from xentcli.backends.cuda.reductions import (
    FAR,
    KNOWN,
    THREADS,
    TOLD,
    add_up,
    add_up_exactly,
    all_ready,
    largest_of,
    leave,
    left_over,
    own_place,
    place_of,
    spot_of,
    tell,
    together,
    whole,
)
from xentcli.backends.cuda.row_result import has_masses, mass_at, settled

SCRATCH = 6 * THREADS
REGISTERS = 48  # so that a processor's 65,536 are enough for five blocks


@device
def kept_scores(x, start, call, z, at, spot):
    """z into shared memory; the largest of this thread's."""
    most = -math.inf
    c = spot.thread
    while c < spot.count:
        score = scored(float64(get(x, start + c * call.x_step)), call)
        put(z, at + c, score)
        most = larger(most, score)
        c += spot.threads
    return most


@device
def exponentials(z, at, peak, given, call, spot):
    """e in place of z, and the sums of this thread's classes, but for the largest and the score."""
    reference = reference_of(peak)
    spread = has_masses(call)
    ones, others, low, of_ones, rest, far, top = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, FAR
    c = spot.thread
    while c < spot.count:
        score = get(z, at + c)
        e, lost = exponential_in_two(reference, score, call)
        put(z, at + c, e)
        if score == reference:
            ones += 1.0
            top = lesser(top, float64(spot.begin + c))
        else:
            others, low = added(others, low + lost, e)
        if spread:
            a = mass_at(given, spot.begin + c, call, spot.row)
            if a != 0.0:
                gap, _ = below(reference, score, divisor(call))
                far = fma(a, gap, far)
                if score == reference:
                    of_ones += a
                else:
                    rest += a
        c += spot.threads
    return (others, low), ones, of_ones, rest, far, top


@device
def summarised(given, start, call, spot, shared):
    """Passes 1 and 2: the part's sums, for all threads."""
    z, sums, _ = shared
    at = spot.group * call.size
    most = kept_scores(given[0], start, call, z, at, spot)
    peak = largest_of(most, sums, spot)
    inside = spot.y - spot.begin
    score = 0.0
    if call.kind == INDEX and 0 <= inside < spot.count:
        score = get(z, at + inside)
    cuda.syncthreads()  # the target's z has been read
    others, ones, of_ones, rest, far, top = exponentials(z, at, peak, given, call, spot)
    mine = spot.first + spot.thread
    sums[mine] = others[0]
    sums[mine + THREADS] = others[1]
    sums[mine + 2 * THREADS] = ones
    sums[mine + 3 * THREADS] = of_ones
    sums[mine + 4 * THREADS] = rest
    sums[mine + 5 * THREADS] = far
    add_up_exactly(sums, THREADS, spot, spot.threads)
    add_up(sums[2 * THREADS :], 4, THREADS, spot, spot.threads)
    i = spot.first
    of_others = whole(sums[i], sums[i + THREADS])
    ones, of_ones = sums[i + 2 * THREADS], sums[i + 3 * THREADS]
    rest, far = sums[i + 4 * THREADS], sums[i + 5 * THREADS]
    cuda.syncthreads()
    top = -largest_of(-top, sums, spot)
    return Sums(peak, ones, of_others, score, of_ones, rest, far, top)


@device
def announced(sums, start, given, call, spot, out, known):
    """Let a row's first thread settle it, and tell the others."""
    if spot.thread == 0 and spot.y >= 0:
        facts = settled(sums, start, given, call, spot, out)
        at = spot.group * KNOWN
        for i in range(7):
            known[at + i] = facts[i]
    cuda.syncthreads()


@device
def value_of(c, e, factors, given, start, call, spot):
    """What is written for a class: its gradient as if it were no target, or its probability."""
    per_e, per_mass, others, peak = factors
    if not abs(peak / divisor(call)) < math.inf:
        return math.nan
    if call.mode == SOFTMAX:
        return e / (1.0 + others)
    if call.mode == LOG:
        score = scored(float64(get(given[0], start + c * call.x_step)), call)
        gap, error = below(peak, score, divisor(call))
        return 0.0 - (gap + (error + log1p(others)))
    g = e * per_e
    if has_masses(call):
        g = fma(e, per_e, -per_mass * mass_at(given, spot.begin + c, call, spot.row))
    if call.softcap < math.inf:
        g *= slope(float64(get(given[0], start + c * call.x_step)), call)
    return g + 0.0  # −0.0 becomes 0.0


@device
def write(peaks, given, start_x, call, spot, grad, shared):
    """Pass 3, from what `announced` has told. Each thread reads what it overwrites."""
    own, peak = peaks
    z, _, known = shared
    at = spot.group * KNOWN
    start = place_of(spot.row, call.inner, call.g_outer, call.g_inner) + spot.begin * call.g_step
    factors = known[at], known[at + 1], known[at + 2], peak
    if spot.y < 0 and spot.row < call.rows:
        count = lesser(call.size, call.classes - spot.begin)
        c = spot.thread
        while c < count:
            put(grad, start + c * call.g_step, 0.0)
            c += spot.threads
    c = spot.thread
    while c < spot.count:
        e = get(z, spot.group * call.size + c)
        if own != peak:
            score = scored(float64(get(given[0], start_x + c * call.x_step)), call)
            e = exponential(peak, score, call)
        value = value_of(c, e, factors, given, start_x, call, spot)
        put(grad, start + c * call.g_step, value)
        c += spot.threads
    cuda.syncthreads()
    if spot.thread == 0 and spot.y >= 0 and call.mode == GRADIENT:
        if known[at + 3] >= 0.0:
            put(grad, start + int64(known[at + 3]) * call.g_step, known[at + 4])
        if known[at + 5] >= 0.0:
            put(grad, start + int64(known[at + 5]) * call.g_step, known[at + 6])


@kernel(REGISTERS)
def general_rows(x, targets, weight, scale, call, states, marks, results, grad):
    """One block for some rows, or for a part of one: see `blocks`."""
    z = cuda.shared.array(0, float64)
    sums = cuda.shared.array(SCRATCH, float64)
    known = cuda.shared.array(TOLD, float64)
    shared, given, out = (z, sums, known), (x, targets, weight, scale), (results, grad)
    first_row, part = own_place(call)
    spot = spot_of(first_row, part, targets, call)
    start = place_of(spot.row, call.inner, call.x_outer, call.x_inner) + spot.begin * call.x_step
    row = summarised(given, start, call, spot, shared)
    own = row.peak
    if spot.thread == 0 and spot.y < 0 and spot.part == 0 and spot.row < call.rows:
        results[0, spot.row] = 0.0
        results[1, spot.row] = math.nan
    if call.parts > 1 and spot.y >= 0:  # such a block has one row
        if spot.thread == 0:
            tell(known, 0, row)
        patience = call.patience if grad.size > 0 else 0
        if not all_ready((states, marks), call, spot, known, patience):
            if grad.size > 0:
                leave(marks, call, spot)
            return
        row = together(states, call, spot, sums)
    announced(row, start, given, call, spot, out, known)
    if grad.size > 0:
        write((own, row.peak), given, start, call, spot, grad, shared)


@cuda.jit
def general_rest(x, targets, weight, scale, call, states, marks, results, grad):
    """What `general_rows` left over."""
    z = cuda.shared.array(0, float64)
    sums = cuda.shared.array(SCRATCH, float64)
    known = cuda.shared.array(TOLD, float64)
    shared, given, out = (z, sums, known), (x, targets, weight, scale), (results, grad)
    for i in range(cuda.blockIdx.x, marks[0], cuda.gridDim.x):
        spot = left_over(marks, i, targets, call)
        start = place_of(spot.row, call.inner, call.x_outer, call.x_inner)
        start += spot.begin * call.x_step
        own = summarised(given, start, call, spot, shared).peak
        row = together(states, call, spot, sums)
        announced(row, start, given, call, spot, out, known)
        write((own, row.peak), given, start, call, spot, grad, shared)
        cuda.syncthreads()
