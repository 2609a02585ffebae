"""Rows of any dtype with any target and any option; and softmax. In float64.

    1. load the logits into shared memory, and find the largest
    2. replace them by e_c = exp(z_c − max z), and sum up
    3. write the gradient, or the probabilities

An entry is rounded twice, as e_c and as the product with a factor of two words. With a softcap the
logits are read a second time for its slope, and so are targets that are probabilities. In a part
whose largest logit is not the row's, e_c is computed again: with a factor exp(max of the part −
max z) its last bits would depend on how the row is split.
"""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import (
    exponential,
    gap_of,
    has_softcap,
    min_of,
    peak_of,
    usable_logit,
)
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX, LOG
from xentcli.backends.cuda.parts import combine_parts, store_sums, sums_of
from xentcli.backends.cuda.primitives import device, fma, get, kernel, larger, put, times
from xentcli.backends.cuda.reductions import (
    FACTS,
    NO_CLASS,
    SHARED_FACTS,
    THREADS,
    block_rows_and_part,
    defer,
    deferred_task,
    publish_and_check,
    reduce_max,
    reduce_sum_with_error,
    reduce_sums,
    row_offset,
    task_of,
)
from xentcli.backends.cuda.row_result import (
    has_other_masses,
    mass_of_class,
    store_row_result,
    times_slope_at,
)
from xentcli.backends.cuda.two_words import add, difference

SCRATCH = 3 * THREADS
REGISTERS = 48  # per thread: the 65,536 of a multiprocessor are enough for five blocks


@device
def load_logits(x, start, params, z, at, task):
    """Load the logits into shared memory; the largest of this thread."""
    most = -math.inf
    c = task.thread
    while c < task.count:
        value = usable_logit(float64(get(x, start + c * params.x_step)), params)
        put(z, at + c, value)
        most = larger(most, value)
        c += task.threads
    return most


@device
def part_exponentials(z, at, peak, given, params, task):
    """Replace logits by e; the sums of this thread's classes, but for the peak and the target."""
    spread = has_other_masses(params)
    ones, argmax, others = 0.0, NO_CLASS, (0.0, 0.0)
    peak_mass, other_mass, gap_sum = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    c = task.thread
    while c < task.count:
        x = get(z, at + c)
        gap, error = gap_of(peak, x, params)
        e, lost = exponential(gap, error)
        put(z, at + c, e)
        if x == peak.x:
            ones += 1.0
            argmax = min_of(argmax, float64(task.begin + c))
        else:
            others = add(others[0], others[1] + lost, e)
        if spread:
            a = mass_of_class(given, task.begin + c, params, task.row)
            if a != 0.0:
                gap_sum = add(gap_sum[0], gap_sum[1], times(a, gap))
                if x == peak.x:
                    peak_mass = add(peak_mass[0], peak_mass[1], a)
                else:
                    other_mass = add(other_mass[0], other_mass[1], a)
        c += task.threads
    return ones, argmax, others, peak_mass, other_mass, gap_sum


@device
def part_sums(given, start, params, task, shared):
    """Passes 1 and 2: the part's sums, known to all threads afterwards."""
    z, sums, _ = shared
    at = task.group * params.size
    largest = reduce_max(load_logits(given[0], start, params, z, at, task), sums, task)
    inside = task.y - task.begin
    target = 0.0
    if params.kind == INDEX and 0 <= inside < task.count:
        target = get(z, at + inside)
    cuda.syncthreads()  # after the target's logit has been read
    ones, argmax, others, peak_mass, other_mass, gap_sum = part_exponentials(
        z, at, peak_of(largest, params), given, params, task
    )
    mine = task.first + task.thread
    sums[mine + 2 * THREADS] = ones
    reduce_sums(sums[2 * THREADS :], 1, THREADS, task, task.threads)
    ones = sums[task.first + 2 * THREADS]
    others = reduce_pair(others, sums, task)
    if has_other_masses(params):
        peak_mass = reduce_pair(peak_mass, sums, task)
        other_mass = reduce_pair(other_mass, sums, task)
        gap_sum = reduce_pair(gap_sum, sums, task)
        argmax = -reduce_max(-argmax, sums, task)
    return sums_of(largest, ones, others, target, peak_mass, other_mass, gap_sum, argmax)


@device
def reduce_pair(pair, sums, task):
    """The sum of two words each of the threads of a row, known to all of them."""
    mine = task.first + task.thread
    sums[mine], sums[mine + THREADS] = pair
    reduce_sum_with_error(sums, THREADS, task, task.threads)
    pair = sums[task.first], sums[task.first + THREADS]
    cuda.syncthreads()  # before the memory is used again
    return pair


@device
def share_row_result(sums, peak, start, given, params, task, out, facts):
    """The row's first thread stores its result, and shares what the gradient needs."""
    if task.thread == 0 and task.y >= 0:
        factors, entries = store_row_result(sums, peak, start, given, params, task, out)
        at = task.group * FACTS
        for i in range(5):
            facts[at + i] = factors[i]
        for i in range(4):
            facts[at + 5 + i] = entries[i]
    cuda.syncthreads()


@device
def output_value(c, e, factors, peak, given, start, params, task):
    """What is written for a class: its gradient without the target's part, or its probability."""
    high, low, unit, per_mass, up = factors
    if params.mode == LOG:
        gap, error = gap_of(peak, logit_at(given[0], start, c, params), params)
        return log_probability((gap, error), (high, low), unit)
    e = times(e, unit)
    if has_other_masses(params):
        a = mass_of_class(given, task.begin + c, params, task.row)
        g = fma(e, high, fma(e, low, -times(per_mass, a)))
        g = times_slope_at((g, 0.0), given[0], start + c * params.x_step, params)[0]
        return times(g, up) + 0.0
    if has_softcap(params) and params.mode == GRADIENT:
        e, lost = times_slope_at((e, 0.0), given[0], start + c * params.x_step, params)
        return times(fma(e, high, fma(e, low, times(lost, high))), up) + 0.0
    return times(fma(e, high, times(e, low)), up) + 0.0  # −0.0 becomes 0.0


@device
def logit_at(x, start, c, params):
    """A logit as it was in shared memory."""
    return usable_logit(float64(get(x, start + c * params.x_step)), params)


@device
def log_probability(gap, log_s, unit):
    """−gap − log s; `log_s` is in units of its own."""
    high, low = times(log_s[0], unit), times(log_s[1], unit)
    if gap[0] == 0.0 or not gap[0] < math.inf:
        return 0.0 - (gap[0] + high)
    high, error = difference(gap[0], -high)
    return 0.0 - (high + (error + (gap[1] + low)))


@device
def write_part(peaks, given, start_x, params, task, grad, shared):
    """Pass 3, with the facts of `share_row_result`. Each thread reads only what it overwrites."""
    own, peak = peaks
    z, _, facts = shared
    at = task.group * FACTS
    start = (
        row_offset(task.row, params.inner, params.g_outer, params.g_inner)
        + task.begin * params.g_step
    )
    factors = facts[at], facts[at + 1], facts[at + 2], facts[at + 3], facts[at + 4]
    if task.y < 0 and task.row < params.rows:
        count = min_of(params.size, params.classes - task.begin)
        c = task.thread
        while c < count:
            put(grad, start + c * params.g_step, 0.0)
            c += task.threads
    c = task.thread
    while c < task.count:
        e = get(z, task.group * params.size + c)
        if own != peak.x:
            gap, error = gap_of(peak, logit_at(given[0], start_x, c, params), params)
            e, _ = exponential(gap, error)
        value = output_value(c, e, factors, peak, given, start_x, params, task)
        put(grad, start + c * params.g_step, value)
        c += task.threads
    cuda.syncthreads()
    if task.thread == 0 and task.y >= 0:
        for i in (5, 7):
            if facts[at + i] >= 0.0:
                put(grad, start + int64(facts[at + i]) * params.g_step, facts[at + i + 1])


@kernel(REGISTERS)
def general_rows(x, targets, weight, scale, params, states, marks, results, grad):
    """One block for some rows, or for a part of one row: see `reductions`."""
    z = cuda.shared.array(0, float64)
    sums = cuda.shared.array(SCRATCH, float64)
    facts = cuda.shared.array(SHARED_FACTS, float64)
    shared, given, out = (z, sums, facts), (x, targets, weight, scale), (results, grad)
    first_row, part = block_rows_and_part(params)
    task = task_of(first_row, part, targets, params)
    start = (
        row_offset(task.row, params.inner, params.x_outer, params.x_inner)
        + task.begin * params.x_step
    )
    row = part_sums(given, start, params, task, shared)
    own = row.peak
    if task.thread == 0 and task.y < 0 and task.part == 0 and task.row < params.rows:
        results[0, task.row] = 0.0
        results[1, task.row] = math.nan
    if params.parts > 1 and task.y >= 0:  # then a block has one row
        if task.thread == 0:
            store_sums(facts, 0, row)
        max_polls = params.max_polls if grad.size > 0 else 0
        if not publish_and_check((states, marks), params, task, facts, max_polls):
            if grad.size > 0:
                defer(marks, params, task)
            return
        row = combine_parts(states, params, task, sums)
    peak = peak_of(row.peak, params)
    share_row_result(row, peak, start, given, params, task, out, facts)
    if grad.size > 0:
        write_part((own, peak), given, start, params, task, grad, shared)


@cuda.jit
def general_deferred(x, targets, weight, scale, params, states, marks, results, grad):
    """The parts that `general_rows` has deferred."""
    z = cuda.shared.array(0, float64)
    sums = cuda.shared.array(SCRATCH, float64)
    facts = cuda.shared.array(SHARED_FACTS, float64)
    shared, given, out = (z, sums, facts), (x, targets, weight, scale), (results, grad)
    for i in range(cuda.blockIdx.x, marks[0], cuda.gridDim.x):
        task = deferred_task(marks, i, targets, params)
        start = row_offset(task.row, params.inner, params.x_outer, params.x_inner)
        start += task.begin * params.x_step
        own = part_sums(given, start, params, task, shared).peak
        row = combine_parts(states, params, task, sums)
        peak = peak_of(row.peak, params)
        share_row_result(row, peak, start, given, params, task, out, facts)
        write_part((own, peak), given, start, params, task, grad, shared)
        cuda.syncthreads()
