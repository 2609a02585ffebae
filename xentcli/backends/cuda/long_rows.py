"""Rows of any dtype with any target and any option; and softmax. In float64.

    1. load z_c into shared memory, and find the largest
    2. replace them by e_c = exp(z_c − max z), and sum up
    3. write the gradient, or the probabilities

With a softcap the logits are read a second time for its slope, and so are targets that are
probabilities. In a part whose largest z is not the row's, e_c is computed again: with a factor
exp(max of the part − max z) its last bits would depend on how the row is split.
"""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import (
    PartSums,
    add,
    device,
    divisor,
    exp_reference,
    exponential,
    exponential_with_error,
    log1p,
    min_of,
    scaled_gap,
    scaled_logit,
    slope,
)
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX, LOG, SOFTMAX
from xentcli.backends.cuda.primitives import fma, get, kernel, larger, put
from xentcli.backends.cuda.reductions import (
    FACTS,
    NO_CLASS,
    SHARED_FACTS,
    THREADS,
    block_rows_and_part,
    combine_parts,
    defer,
    deferred_task,
    publish_and_check,
    reduce_max,
    reduce_sum_with_error,
    reduce_sums,
    rounded_sum,
    row_offset,
    store_sums,
    task_of,
)
from xentcli.backends.cuda.row_result import has_other_masses, mass_of_class, store_row_result

SCRATCH = 6 * THREADS
REGISTERS = 48  # per thread: the 65,536 of a multiprocessor are enough for five blocks


@device
def load_scaled_logits(x, start, params, z, at, task):
    """Load z into shared memory; the largest of this thread."""
    most = -math.inf
    c = task.thread
    while c < task.count:
        scaled = scaled_logit(float64(get(x, start + c * params.x_step)), params)
        put(z, at + c, scaled)
        most = larger(most, scaled)
        c += task.threads
    return most


@device
def part_exponentials(z, at, peak, given, params, task):
    """Replace z by e; the sums of this thread's classes, without the peak and the target's z."""
    reference = exp_reference(peak)
    spread = has_other_masses(params)
    ones, others, low, peak_mass, other_mass, gap_sum = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    argmax = NO_CLASS
    c = task.thread
    while c < task.count:
        scaled = get(z, at + c)
        e, lost = exponential_with_error(reference, scaled, params)
        put(z, at + c, e)
        if scaled == reference:
            ones += 1.0
            argmax = min_of(argmax, float64(task.begin + c))
        else:
            others, low = add(others, low + lost, e)
        if spread:
            a = mass_of_class(given, task.begin + c, params, task.row)
            if a != 0.0:
                gap, _ = scaled_gap(reference, scaled, divisor(params))
                gap_sum = fma(a, gap, gap_sum)
                if scaled == reference:
                    peak_mass += a
                else:
                    other_mass += a
        c += task.threads
    return (others, low), ones, peak_mass, other_mass, gap_sum, argmax


@device
def part_sums(given, start, params, task, shared):
    """Passes 1 and 2: the part's sums, known to all threads afterwards."""
    z, sums, _ = shared
    at = task.group * params.size
    most = load_scaled_logits(given[0], start, params, z, at, task)
    peak = reduce_max(most, sums, task)
    inside = task.y - task.begin
    target_z = 0.0
    if params.kind == INDEX and 0 <= inside < task.count:
        target_z = get(z, at + inside)
    cuda.syncthreads()  # after the target's z has been read
    others, ones, peak_mass, other_mass, gap_sum, argmax = part_exponentials(
        z, at, peak, given, params, task
    )
    mine = task.first + task.thread
    sums[mine] = others[0]
    sums[mine + THREADS] = others[1]
    sums[mine + 2 * THREADS] = ones
    sums[mine + 3 * THREADS] = peak_mass
    sums[mine + 4 * THREADS] = other_mass
    sums[mine + 5 * THREADS] = gap_sum
    reduce_sum_with_error(sums, THREADS, task, task.threads)
    reduce_sums(sums[2 * THREADS :], 4, THREADS, task, task.threads)
    i = task.first
    of_others = rounded_sum(sums[i], sums[i + THREADS])
    ones, peak_mass = sums[i + 2 * THREADS], sums[i + 3 * THREADS]
    other_mass, gap_sum = sums[i + 4 * THREADS], sums[i + 5 * THREADS]
    cuda.syncthreads()
    argmax = -reduce_max(-argmax, sums, task)
    return PartSums(peak, ones, of_others, target_z, peak_mass, other_mass, gap_sum, argmax)


@device
def share_row_result(sums, start, given, params, task, out, facts):
    """The row's first thread stores its result, and shares what the gradient needs."""
    if task.thread == 0 and task.y >= 0:
        result = store_row_result(sums, start, given, params, task, out)
        at = task.group * FACTS
        for i in range(7):
            facts[at + i] = result[i]
    cuda.syncthreads()


@device
def output_value(c, e, factors, given, start, params, task):
    """What is written for a class: its gradient without the target's part, or its probability."""
    per_e, per_mass, others, peak = factors
    if not abs(peak / divisor(params)) < math.inf:
        return math.nan
    if params.mode == SOFTMAX:
        return e / (1.0 + others)
    if params.mode == LOG:
        scaled = scaled_logit(float64(get(given[0], start + c * params.x_step)), params)
        gap, error = scaled_gap(peak, scaled, divisor(params))
        return 0.0 - (gap + (error + log1p(others)))
    g = e * per_e
    if has_other_masses(params):
        g = fma(e, per_e, -per_mass * mass_of_class(given, task.begin + c, params, task.row))
    if params.softcap < math.inf:
        g *= slope(float64(get(given[0], start + c * params.x_step)), params)
    return g + 0.0  # −0.0 becomes 0.0


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
    factors = facts[at], facts[at + 1], facts[at + 2], peak
    if task.y < 0 and task.row < params.rows:
        count = min_of(params.size, params.classes - task.begin)
        c = task.thread
        while c < count:
            put(grad, start + c * params.g_step, 0.0)
            c += task.threads
    c = task.thread
    while c < task.count:
        e = get(z, task.group * params.size + c)
        if own != peak:
            scaled = scaled_logit(float64(get(given[0], start_x + c * params.x_step)), params)
            e = exponential(peak, scaled, params)
        value = output_value(c, e, factors, given, start_x, params, task)
        put(grad, start + c * params.g_step, value)
        c += task.threads
    cuda.syncthreads()
    if task.thread == 0 and task.y >= 0 and params.mode == GRADIENT:
        if facts[at + 3] >= 0.0:
            put(grad, start + int64(facts[at + 3]) * params.g_step, facts[at + 4])
        if facts[at + 5] >= 0.0:
            put(grad, start + int64(facts[at + 5]) * params.g_step, facts[at + 6])


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
    share_row_result(row, start, given, params, task, out, facts)
    if grad.size > 0:
        write_part((own, row.peak), given, start, params, task, grad, shared)


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
        share_row_result(row, start, given, params, task, out, facts)
        write_part((own, row.peak), given, start, params, task, grad, shared)
        cuda.syncthreads()
