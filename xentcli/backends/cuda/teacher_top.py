"""Rows of which a teacher stores K classes, one block for each: see `teacher_rows`."""

from __future__ import annotations

import math

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import UNIT, exponential, log1p
from xentcli.backends.cuda.long_rows import reduce_pair
from xentcli.backends.cuda.primitives import device, get, larger, put
from xentcli.backends.cuda.reductions import reduce_max, row_offset
from xentcli.backends.cuda.teacher_formulas import (
    BUCKET,
    CE,
    DROP,
    FORWARD_KL,
    JSD,
    REVERSE_KL,
    SUBSET,
    TEACHER,
    log,
    mass_correction,
    norm_of,
    ratio,
    scaled_gap,
    term,
    times_or_zero,
)
from xentcli.backends.cuda.teacher_rows import (
    SCRATCH,
    Result,
    entry,
    fill,
    has_no_gradient,
    largest,
    probability,
    row_task,
    write_ignored,
)
from xentcli.backends.cuda.two_words import add

LEAST = 2.0**-1074  # of p that float64 cannot represent, which is no 0


@device
def count_stored(classes, base, slots):
    """How many classes a row stores; they come before the empty slots."""
    n = 0
    while n < slots and classes[base + n] >= 0:
        n += 1
    return n


@device
def find_slot(classes, base, n, c):
    """The slot of a class, or −1; the stored classes ascend."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if classes[base + middle] < c:
            low = middle + 1
        else:
            high = middle
    if low < n and classes[base + low] == c:
        return low
    return -1


@device
def masses(x, start, peak, classes, base, n, task, params, sums):
    """Pass 2: how many are the largest, and the others' sum, of the stored classes and the rest."""
    ones, others = 0.0, (0.0, 0.0)
    rest_ones, rest = 0.0, (0.0, 0.0)
    for c in range(task.thread, task.count, task.threads):
        value = float64(get(x, start + c * params.x_step))
        high, low = scaled_gap(peak, value, params.temperature)
        e, lost = exponential(high, low)
        if find_slot(classes, base, n, c) >= 0:
            if value == peak:
                ones += 1.0
            else:
                others = add(others[0], others[1] + lost, e)
        elif value == peak:
            rest_ones += 1.0
        else:
            rest = add(rest[0], rest[1] + lost, e)
    ones = reduce_pair((ones, 0.0), sums, task)[0]
    rest_ones = reduce_pair((rest_ones, 0.0), sums, task)[0]
    others, rest = reduce_pair(others, sums, task), reduce_pair(rest, sums, task)
    return ones, others, rest_ones, rest


@device
def stored_norm(x, start, classes, base, n, task, params, sums):
    """The norm of the stored classes alone."""
    peak = -math.inf
    for j in range(task.thread, n, task.threads):
        peak = larger(peak, float64(get(x, start + classes[base + j] * params.x_step)))
    peak = reduce_max(peak, sums, task)
    ones, others = 0.0, (0.0, 0.0)
    for j in range(task.thread, n, task.threads):
        value = float64(get(x, start + classes[base + j] * params.x_step))
        high, low = scaled_gap(peak, value, params.temperature)
        e, lost = exponential(high, low)
        if value == peak:
            ones += 1.0
        else:
            others = add(others[0], others[1] + lost, e)
    ones = reduce_pair((ones, 0.0), sums, task)[0]
    return norm_of(peak, ones, reduce_pair(others, sums, task), params.temperature)


@device
def stored_term(x, log_q, norm, params):
    """p and y of a stored class."""
    p, high, low = probability(x, norm, params.temperature)
    if params.divergence != CE:
        return p, ((high + log_q) + low) + norm.log_sum
    if log_q == -math.inf:
        return p, 0.0
    return p, (high + low) + norm.log_sum


@device
def rest_terms(r, rest, stored, has_others, params):
    """The terms of the classes that are not stored: the value, p·u, q, and x or u."""
    if not has_others:
        return 0.0, 0.0, 0.0, 0.0
    if params.tail == TEACHER and params.divergence == JSD:
        value, u = term(params, rest, 0.0, -math.inf)
        return value, times_or_zero(rest, u), 0.0, u
    if params.tail != BUCKET:
        return 0.0, 0.0, 0.0, 0.0
    y = 0.0
    if params.divergence != CE:
        if not (r == 0.0 and rest == 0.0):  # else a bucket of excluded classes
            y = log(ratio(r, rest))
    elif r > 0.0:
        y = log1p(ratio(stored, rest))
    value, u = term(params, rest, r, y)
    return value, times_or_zero(rest, u), r, u


@device
def factor_of_others(r, rest, value, middle, mass, bucket, surplus, params):
    """The gradient of a class that is not stored, over its p."""
    a = 1.0 + surplus
    if params.tail == SUBSET:
        return 0.0
    if params.divergence <= FORWARD_KL:
        if params.tail == BUCKET and r < rest * 2.0**1000:
            return a - r / rest
        return a
    if params.divergence == REVERSE_KL:
        if params.tail == BUCKET:
            return bucket - value
        return -(value + mass)
    return (1.0 - params.beta) * (bucket - middle)


@device
def top_result(x, start, top, base, n, norm, rest, stored, row, task, params, sums):
    """Pass 3."""
    classes, q, log_q, rests, surpluses = top
    value, middle, mass, pull = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    for j in range(task.thread, n, task.threads):
        z = float64(get(x, start + classes[base + j] * params.x_step))
        p, y = stored_term(z, log_q[base + j], norm, params)
        part, u = term(params, p, q[base + j], y)
        value = add(value[0], value[1], part)
        middle = add(middle[0], middle[1], times_or_zero(p, u))
        mass = add(mass[0], mass[1], p)
        if z != norm.peak:
            pull = add(pull[0], pull[1], q[base + j])
    total, middle = reduce_pair(value, sums, task), reduce_pair(middle, sums, task)
    mass, pull = reduce_pair(mass, sums, task), reduce_pair(pull, sums, task)
    r, surplus, has_others = rests[row], surpluses[row], n < params.classes
    more, more_middle, more_pull, bucket = rest_terms(r, rest, stored, has_others, params)
    found = total[0] + more
    if abs(found) < math.inf:
        high, low = add(total[0], total[1], more)
        found = (high + low) + mass_correction(params, surplus, rest)
    center, mass = (middle[0] + middle[1]) + more_middle, mass[0] + mass[1]
    factor = factor_of_others(r, rest, found, center, mass, bucket, surplus, params)
    if params.divergence == REVERSE_KL:
        center = found
        if params.tail == DROP:
            center = (found + mass) - 1.0
    return Result(found + 0.0, center, 1.0 + surplus, (pull[0] + pull[1]) + more_pull, factor)


@device
def write_top(x, start, top, base, n, norms, found, by, row, task, params, grad):
    """Pass 4: a stored class has an entry of its own, the others have p times one factor."""
    classes, q, log_q, _, _ = top
    whole, norm = norms
    g_start = row_offset(row, params.inner, params.g_outer, params.g_inner)
    for c in range(task.thread, task.count, task.threads):
        z = float64(get(x, start + c * params.x_step))
        slot = find_slot(classes, base, n, c)
        if slot >= 0:
            p, y = stored_term(z, log_q[base + slot], norm, params)
            _, u = term(params, p, q[base + slot], y)
            g = entry(p, q[base + slot], u, z == norm.peak, norm.others, found, params)
        elif params.tail == SUBSET:
            g = 0.0
        else:
            p, _, _ = probability(z, whole, params.temperature)
            g = found.factor * p
        put(grad, g_start + c * params.g_step, by * g + 0.0)


@cuda.jit
def top_rows(x, classes, q, log_q, rests, surpluses, targets, scale, params, results, grad):
    """One block for each row."""
    sums = cuda.shared.array(SCRATCH, float64)
    row = int64(cuda.blockIdx.x)
    task = row_task(row, params)
    if targets[row] < 0:
        write_ignored(row, task, params, results, grad)
        return
    start = row_offset(row, params.inner, params.x_outer, params.x_inner)
    top, base = (classes, q, log_q, rests, surpluses), row * params.slots
    n = count_stored(classes, base, params.slots)
    peak = largest(x, start, params.x_step, task, sums)
    ones, others, rest_ones, rest = masses(x, start, peak, classes, base, n, task, params, sums)
    both = add(others[0], others[1] + rest[1], rest[0])
    whole = norm_of(peak, ones + rest_ones, both, params.temperature)
    norm, total = whole, 1.0 + whole.others
    beside = (rest_ones + (rest[0] + rest[1]) * UNIT) / total
    if beside == 0.0 and rest[0] + rest[1] > 0.0:
        beside = LEAST
    stored = (ones + (others[0] + others[1]) * UNIT) / total
    if params.tail == SUBSET:
        norm = stored_norm(x, start, classes, base, n, task, params, sums)
    if n == params.classes:
        beside = 0.0
    found = top_result(x, start, top, base, n, norm, beside, stored, row, task, params, sums)
    value, lse = found.value, peak / params.temperature + whole.log_sum
    if not abs(lse) < math.inf:
        value, lse = math.nan, math.nan
    if task.thread == 0:
        results[0, row] = value
        results[1, row] = lse
    if not params.writes:
        return
    if has_no_gradient(value, params):
        fill(row, math.nan, task, params, grad)
        return
    by = scale[row if scale.size > 1 else 0] / params.temperature
    write_top(x, start, top, base, n, (whole, norm), found, by, row, task, params, grad)
