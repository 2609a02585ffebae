"""Rows with an index target and no option but weights and z-loss, of float32 and half types.

    1. load the logits into shared memory, 16 bytes at a time, and find the largest
    2. replace them by e_c = exp(x_c − max x), and sum up, in float64
    3. write grad_c = e_c·factor, 16 bytes at a time, with a factor of two words

Each logit is read once. An entry is rounded twice, as e_c and as the product, and stays within
2 ULP. A row whose factor is out of the range of two words of float32 is computed from its logits
again, in float64.
"""

from __future__ import annotations

import math

from numba import cuda, float32, float64

from xentcli.backends.cuda.exp_pass import part_sums, shared_offset
from xentcli.backends.cuda.formulas import UNIT, exponential, log1p, min_of
from xentcli.backends.cuda.launch_params import UNSCALE
from xentcli.backends.cuda.parts import combine_parts, store_sums
from xentcli.backends.cuda.primitives import (
    device,
    fma,
    get,
    kernel,
    load4,
    put,
    size_of,
    store4,
    times,
)
from xentcli.backends.cuda.reductions import (
    FACTS,
    SHARED_FACTS,
    THREADS,
    block_rows_and_part,
    defer,
    deferred_task,
    publish_and_check,
    row_offset,
    task_of,
)

# Shared memory before the logits is a multiple of 16 bytes, for aligned loads of them.
SCRATCH = 2 * THREADS
REGISTERS = 40  # per thread: the 65,536 of a multiprocessor are enough for six blocks


@device
def row_result(sums, weight, params):
    """Loss and log-sum-exp of a row with an index target, the factor of its exponentials in the
    gradient, and the target's entry. NaN where the largest logit is not finite.

    The target's entry is −weight·others/s where it has a largest logit, else weight·(e/s − 1),
    and 2·λ·lse·e/s is added to it.
    """
    others = fma(sums.others, UNIT, sums.ones - 1.0)
    if not abs(sums.peak) < math.inf:
        others = math.nan
    log_s, s = log1p(others), 1.0 + others
    lse = sums.peak + log_s
    gap = sums.peak - sums.target
    loss = fma(weight, log_s, times(times(lse, params.z_loss), lse))
    if weight != 0.0:
        loss = fma(weight, gap, loss)
    extra = 2.0 * times(lse, params.z_loss)
    e, _ = exponential(gap, 0.0)
    p = times(e, UNIT) / s
    entry = fma(weight, p, -weight)
    if sums.target == sums.peak:
        entry = -times(weight, others / s)
    return loss + 0.0, lse, (weight + extra) / s, fma(extra, p, entry)


@device
def share_row_result(sums, own, given, params, task, out, facts):
    """The row's first thread stores its result, and shares what the gradient needs."""
    _, _, weight, scale = given
    results, grad = out
    at = task.group * FACTS
    if task.thread == 0 and task.y >= 0:
        loss, lse, factor, target = row_result(sums, weight[task.y], params)
        if task.part == 0 or grad.size == 0:
            results[0, task.row] = loss
            results[1, task.row] = lse
        row_scale = scale[min_of(task.row, scale.size - 1)]
        factor *= row_scale
        e, _ = exponential(sums.peak - own if own > -math.inf else math.inf, 0.0)
        local = factor * times(e, UNIT) * UNSCALE
        high = float64(float32(local))
        in_range = local == 0.0 or 2.0**-114 <= abs(local) <= 2.0**-25
        facts[at] = high
        facts[at + 1] = local - high
        facts[at + 2] = times(factor, UNIT) if abs(factor) > 1.0 else factor
        facts[at + 3] = 1.0 if abs(factor) > 1.0 else UNIT
        facts[at + 4] = target * row_scale
        facts[at + 5] = 1.0 if in_range and (factor >= 0.0 or size_of(grad) > 2) else 0.0
    cuda.syncthreads()


@device
def gradient_product(grad, e, high, low):
    """e times a factor of two words, of one word for a half type; a product of 0 is +0.0. (Half
    types get no negative factor here, whose smallest products would become −0.0.)"""
    if size_of(grad) == 2:
        return fma(e, high, float32(0.0))
    return fma(e, high, e * low) + float32(0.0)


@device
def gradient_products(grad, four, high, low):
    """Four entries of the gradient."""
    a, b, c, d = four
    return (
        gradient_product(grad, a, high, low),
        gradient_product(grad, b, high, low),
        gradient_product(grad, c, high, low),
        gradient_product(grad, d, high, low),
    )


@device
def write_scaled(z, at, factors, params, task, out):
    """Pass 3."""
    grad, start = out
    high, low = factors
    begin, end = 0, 0
    if params.g_step == 1:
        begin = min_of((4 - ((params.g_phase + start) & 3)) & 3, task.count)
        end = begin + ((task.count - begin) & -4)
    c = begin + 4 * task.thread
    stride = 4 * task.threads
    if (at + begin) & 3 == 0:
        while c + stride < end:
            four, more = load4(z, at + c), load4(z, at + c + stride)
            store4(grad, start + c, gradient_products(grad, four, high, low))
            store4(grad, start + c + stride, gradient_products(grad, more, high, low))
            c += 2 * stride
        if c < end:
            four = load4(z, at + c)
            store4(grad, start + c, gradient_products(grad, four, high, low))
    else:
        while c < end:
            four = get(z, at + c), get(z, at + c + 1), get(z, at + c + 2), get(z, at + c + 3)
            store4(grad, start + c, gradient_products(grad, four, high, low))
            c += stride
    c = task.thread
    while c < begin:
        put(grad, start + c, gradient_product(grad, get(z, at + c), high, low))
        c += task.threads
    c = end + task.thread
    while c < task.count:
        put(grad, start + c * params.g_step, gradient_product(grad, get(z, at + c), high, low))
        c += task.threads


@device
def write_recomputed(given, factors, peak, params, task, out):
    """Pass 3 of a row with a factor out of range. Each thread reads only what it overwrites."""
    x, start_x = given
    grad, start = out
    factor, unit = factors
    c = task.thread
    while c < task.count:
        e, _ = exponential(peak - float64(get(x, start_x + c * params.x_step)), 0.0)
        put(grad, start + c * params.g_step, times(times(e, unit), factor))
        c += task.threads


@device
def write_zeros(params, task, out):
    """The gradient of an ignored row."""
    grad, start = out
    c = task.thread
    while c < min_of(params.size, params.classes - task.begin):
        put(grad, start + c * params.g_step, float32(0.0))
        c += task.threads


@device
def write_part(x, start_x, peak, params, task, grad, shared):
    """The gradient of a part, with the facts of `share_row_result`."""
    z, _, facts = shared
    at = task.group * FACTS
    start = (
        row_offset(task.row, params.inner, params.g_outer, params.g_inner)
        + task.begin * params.g_step
    )
    out = grad, start
    if task.y < 0:
        if task.row < params.rows:
            write_zeros(params, task, out)
    elif facts[at + 5] > 0.0:
        factors = float32(facts[at]), float32(facts[at + 1])
        write_scaled(z, shared_offset(params, start_x, task), factors, params, task, out)
    else:
        factors = facts[at + 2], facts[at + 3]
        write_recomputed((x, start_x), factors, peak, params, task, out)
    cuda.syncthreads()
    inside = task.y - task.begin
    if task.thread == 0 and task.y >= 0 and 0 <= inside < task.count:
        put(grad, start + inside * params.g_step, facts[at + 4])


@device
def write_ignored_results(params, task, out):
    """The results of an ignored row."""
    if task.thread == 0 and task.y < 0 and task.part == 0 and task.row < params.rows:
        out[0][0, task.row] = 0.0
        out[0][1, task.row] = math.nan


@kernel(REGISTERS)
def fast_rows(x, targets, weight, scale, params, states, marks, results, grad):
    """One block for some rows, or for a part of one row: see `reductions`."""
    z = cuda.shared.array(0, float32)
    sums = cuda.shared.array(SCRATCH, float64)
    facts = cuda.shared.array(SHARED_FACTS, float64)
    shared, given, out = (z, sums, facts), (x, targets, weight, scale), (results, grad)
    first_row, part = block_rows_and_part(params)
    task = task_of(first_row, part, targets, params)
    start = (
        row_offset(task.row, params.inner, params.x_outer, params.x_inner)
        + task.begin * params.x_step
    )
    row = part_sums(x, start, params, task, shared)
    peak = row.peak
    write_ignored_results(params, task, out)
    if params.parts > 1 and task.y >= 0:  # then a block has one row
        if task.thread == 0:
            store_sums(facts, 0, row)
        max_polls = params.max_polls if grad.size > 0 else 0
        if not publish_and_check((states, marks), params, task, facts, max_polls):
            if grad.size > 0:
                defer(marks, params, task)
            return
        row = combine_parts(states, params, task, sums)
    share_row_result(row, peak, given, params, task, out, facts)
    if grad.size > 0:
        write_part(x, start, row.peak, params, task, grad, shared)


@cuda.jit
def fast_deferred(x, targets, weight, scale, params, states, marks, results, grad):
    """The parts that `fast_rows` has deferred."""
    z = cuda.shared.array(0, float32)
    sums = cuda.shared.array(SCRATCH, float64)
    facts = cuda.shared.array(SHARED_FACTS, float64)
    shared, given, out = (z, sums, facts), (x, targets, weight, scale), (results, grad)
    for i in range(cuda.blockIdx.x, marks[0], cuda.gridDim.x):
        task = deferred_task(marks, i, targets, params)
        start = row_offset(task.row, params.inner, params.x_outer, params.x_inner)
        start += task.begin * params.x_step
        peak = part_sums(x, start, params, task, shared).peak
        row = combine_parts(states, params, task, sums)
        share_row_result(row, peak, given, params, task, out, facts)
        write_part(x, start, row.peak, params, task, grad, shared)
        cuda.syncthreads()
