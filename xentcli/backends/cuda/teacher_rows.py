"""Rows against a teacher, one block for each: everything in float64, and read again in each pass.

    1. the largest logits
    2. the sums of exponentials
    3. the value
    4. the gradient

The formulas are those of `cpu.teacher_dense` and `cpu.teacher_stored`. Sums are trees of fixed
shapes, so a row's bits depend on that row alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import cuda, float64, int64

from xentcli.backends.cuda.formulas import UNIT, exponential
from xentcli.backends.cuda.long_rows import reduce_pair
from xentcli.backends.cuda.primitives import device, get, larger, put
from xentcli.backends.cuda.reductions import THREADS, Task, reduce_max, row_offset
from xentcli.backends.cuda.teacher_formulas import (
    CE,
    FORWARD_KL,
    JSD,
    LOG_PROBS,
    LOGITS,
    REVERSE_KL,
    Norm,
    exp_of,
    log,
    mass_correction,
    norm_of,
    scaled_gap,
    term,
    times_or_zero,
)
from xentcli.backends.cuda.two_words import add

SCRATCH = 2 * THREADS


class Result(NamedTuple):
    """What the gradient of a row comes from."""

    value: Any
    middle: Any  # what is taken from x or u
    mass: Any  # 1 + surplus
    pull: Any  # Σ q of the terms but that of the largest logit
    factor: Any  # of the classes that are not stored


@device
def row_task(row, params):
    """What this thread works on: the row of its block."""
    zero = int64(0)
    threads = int64(cuda.blockDim.x)
    count = int64(params.classes)
    return Task(row, zero, zero, zero, count, int64(cuda.threadIdx.x), threads, zero, zero)


@device
def largest(x, start, step, task, sums):
    """The largest number of a row; NaN if any is NaN."""
    most = -math.inf
    for c in range(task.thread, task.count, task.threads):
        most = larger(most, float64(get(x, start + c * step)))
    return reduce_max(most, sums, task)


@device
def probability(x, norm, temperature):
    """p of a class, and −ln p but for ln Σe."""
    high, low = scaled_gap(norm.peak, x, temperature)
    e, _ = exponential(high, low)
    return e * (UNIT / (1.0 + norm.others)), high, low


@device
def write_ignored(row, task, params, results, grad):
    """The results of an ignored row."""
    if task.thread == 0:
        results[0, row] = 0.0
        results[1, row] = math.nan
    fill(row, 0.0, task, params, grad)


@device
def fill(row, value, task, params, grad):
    """Write one number to a whole row."""
    if params.writes:
        start = row_offset(row, params.inner, params.g_outer, params.g_inner)
        for c in range(task.thread, task.count, task.threads):
            put(grad, start + c * params.g_step, value)


@device
def row_norm(x, start, step, temperature, task, sums):
    """Passes 1 and 2 of a row of logits."""
    peak = largest(x, start, step, task, sums)
    ones, others = 0.0, (0.0, 0.0)
    for c in range(task.thread, task.count, task.threads):
        value = float64(get(x, start + c * step))
        high, low = scaled_gap(peak, value, temperature)
        e, lost = exponential(high, low)
        if value == peak:
            ones += 1.0
        else:
            others = add(others[0], others[1] + lost, e)
    ones = reduce_pair((ones, 0.0), sums, task)[0]
    return norm_of(peak, ones, reduce_pair(others, sums, task), temperature)


@device
def dense_term(x, t, norms, params):
    """p, q and y of a class."""
    p, high, low = probability(x, norms[0], params.temperature)
    cost, cost_low, extra = -t, 0.0, 0.0
    if params.kind == LOGITS:
        q, cost, cost_low = probability(t, norms[1], params.teacher_temperature)
        extra = norms[1].log_sum
    elif params.kind == LOG_PROBS:
        q = exp_of(t)
    else:
        q, cost = t, -log(t)
    if params.divergence == CE:
        if cost == math.inf:
            return p, q, 0.0
        return p, q, (high + low) + norms[0].log_sum
    return p, q, ((high - cost) + (low - cost_low)) + (norms[0].log_sum - extra)


@device
def dense_result(given, starts, norms, task, params, sums):
    """Pass 3: the value, and what the gradient needs."""
    x, t = given
    value, middle, mass, pull = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    for c in range(task.thread, task.count, task.threads):
        z = float64(get(x, starts[0] + c * params.x_step))
        p, q, y = dense_term(z, float64(get(t, starts[1] + c * params.t_step)), norms, params)
        part, u = term(params, p, q, y)
        value = add(value[0], value[1], part)
        middle = add(middle[0], middle[1], times_or_zero(p, u))
        mass = add(mass[0], mass[1], q)
        if z != norms[0].peak:
            pull = add(pull[0], pull[1], q)
    total = reduce_pair(value, sums, task)
    middle, pull = reduce_pair(middle, sums, task), reduce_pair(pull, sums, task)
    mass = reduce_pair(mass, sums, task)
    surplus = 0.0 if params.kind == LOGITS else (mass[0] - 1.0) + mass[1]
    found = total[0]
    if abs(found) < math.inf:
        found = (total[0] + total[1]) + mass_correction(params, surplus, 0.0)
    if not abs(norms[0].peak) + abs(norms[1].peak) + abs(surplus) < math.inf:
        found = math.nan
    center = middle[0] + middle[1]
    if params.divergence == REVERSE_KL:
        center = found
    return Result(found + 0.0, center, 1.0 + surplus, pull[0] + pull[1], 0.0)


@device
def entry(p, q, x, is_peak, others, row, params):
    """The gradient of a class of its own by the scaled logits."""
    if params.divergence <= FORWARD_KL:
        if is_peak and others < 1.0:
            return row.pull - row.mass * (others / (1.0 + others))
        return row.mass * p - q
    g = times_or_zero(p, x - row.middle)
    if params.divergence == JSD:
        return (1.0 - params.beta) * g
    return g


@device
def has_no_gradient(value, params):
    """Whether the gradient is NaN."""
    return value != value or (params.divergence == REVERSE_KL and value == math.inf)


@cuda.jit
def dense_rows(x, t, targets, scale, params, results, grad):
    """One block for each row."""
    sums = cuda.shared.array(SCRATCH, float64)
    row = int64(cuda.blockIdx.x)
    task = row_task(row, params)
    if targets[row] < 0:
        write_ignored(row, task, params, results, grad)
        return
    starts = (
        row_offset(row, params.inner, params.x_outer, params.x_inner),
        row_offset(row, params.inner, params.t_outer, params.t_inner),
    )
    student = row_norm(x, starts[0], params.x_step, params.temperature, task, sums)
    teacher = Norm(0.0, 0.0, 0.0)
    if params.kind == LOGITS:
        teacher = row_norm(t, starts[1], params.t_step, params.teacher_temperature, task, sums)
    norms = student, teacher
    found = dense_result((x, t), starts, norms, task, params, sums)
    if task.thread == 0:
        results[0, row] = found.value
        results[1, row] = student.peak / params.temperature + student.log_sum
    if not params.writes:
        return
    if has_no_gradient(found.value, params):
        fill(row, math.nan, task, params, grad)
        return
    by = scale[row if scale.size > 1 else 0] / params.temperature
    start = row_offset(row, params.inner, params.g_outer, params.g_inner)
    for c in range(task.thread, task.count, task.threads):
        z = float64(get(x, starts[0] + c * params.x_step))
        p, q, y = dense_term(z, float64(get(t, starts[1] + c * params.t_step)), norms, params)
        _, u = term(params, p, q, y)
        g = entry(p, q, u, z == student.peak, student.others, found, params)
        put(grad, start + c * params.g_step, by * g + 0.0)
