"""A dense teacher with any divergence, and logits, log-probabilities or probabilities: one row at
a time, 16 classes at a time, in float64.

    1. the largest logits
    2. e = exp(−d), and q up to a factor; y without ln Σe; their sums
    3. the terms of the value
    4. the gradient

Pass 2 stores three numbers for each class, which stay in the cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import add, add_exponential, inline_jit, jit
from xentcli.backends.cpu.exponential import ONE, UNSCALE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    RowSums,
    finite_or_zero,
    gap_over,
    log_of_sum,
    total_of,
)
from xentcli.backends.cpu.gradient_formulas import (
    entries_with_masses,
    in_every_lane,
    row_factors,
)
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64
from xentcli.backends.cpu.load_store import float64_at, load, prefetch, store
from xentcli.backends.cpu.long_rows_pass import long_row_offsets
from xentcli.backends.cpu.row_ops import (
    fill,
    load_padded,
    row_max,
    row_pointer,
    store_padded,
    sum_across,
    sums_across,
    write_ignored_rows,
)
from xentcli.backends.cpu.simd import LANES, constant, equal, fma, lanes_below, select
from xentcli.backends.cpu.teacher_formulas import (
    CE,
    FORWARD_KL,
    JSD,
    REVERSE_KL,
    costs_of,
    log,
    mass_correction,
    product_or_zero,
    softmax_options,
    term,
)
from xentcli.backends.teacher import Kind

LOGITS, LOG_PROBS, PROBS = int(Kind.LOGITS), int(Kind.LOG_PROBS), int(Kind.PROBS)


class Buffers(NamedTuple):
    """What pass 2 stores of a row: float64, one number for each class."""

    exps: Any
    q: Any
    y: Any  # then x or u


class Teacher(NamedTuple):
    """What q and ln q of a row come from."""

    kind: Any
    peak: Any  # the largest logit, or log-probability
    scalars: Any  # with the teacher's temperature


class Sums(NamedTuple):
    """The sums of pass 2. Exponentials are multiplied by 2⁹⁰⁰."""

    others: Any  # Σ e without a largest, in two words
    others_low: Any
    teacher: Any  # the same of the teacher, or Σ q
    teacher_low: Any
    rest: Any  # q of all classes but those of the student's largest logit


class Row(NamedTuple):
    """What passes 3 and 4 need of a row, besides the buffers."""

    unit: Any  # of the stored q
    log_ratio: Any  # what the stored y lack
    surplus: Any  # Σ q − 1
    value: Any
    middle: Any  # what is taken from x or u for the gradient


@inline_jit
def teacher_of(t, classes, scalars):
    """The largest number of a row, for those that are exponents."""
    peak = 0.0
    if scalars.kind != PROBS:
        peak = row_max(t, classes)
    if scalars.kind == LOG_PROBS and peak == -math.inf:
        peak = 0.0  # nothing has a probability
    temperature = scalars.teacher_temperature if scalars.kind == LOGITS else 1.0
    return Teacher(scalars.kind, peak, softmax_options(temperature))


@inline_jit
def teacher_entries(t, teacher, exact):
    """q of 16 classes up to a factor, and −ln q up to a number, in two words."""
    zero = constant(t, 0.0)
    if teacher.kind == PROBS:
        return t, zero - log(t), zero
    gap, error = gap_over(constant(t, teacher.peak), t, teacher.scalars, exact)
    error = finite_or_zero(error, gap)
    q, _ = exp_of_gap(gap, error, exact)
    q = select(equal(t, t), q, t)
    if teacher.kind == LOG_PROBS:
        return q, zero - t, zero
    return q, gap, error


@inline_jit
def teacher_sum(sums, q, kind):
    """The three parts of `add_exponential`; of probabilities the first stays 0."""
    if kind == PROBS:
        high, low = add(sums[1], sums[2], q)
        return sums[0], high, low
    return add_exponential(sums, q, constant(q, ONE))


@inline_jit
def store_row(rows, classes, peak, teacher, options, buffers):
    """Pass 2."""
    student, cross, exact = options
    zero, one = constant_for(buffers.exps, 0.0), constant_for(buffers.exps, ONE)
    sums, teacher_sums = (zero, zero, zero), (zero, zero, zero)
    rest, rest_low = zero, zero
    for c in range(0, classes, LANES):
        x = as_float64(load_padded(rows[0], classes, c, -math.inf))
        t = as_float64(load_padded(rows[1], classes, c, -math.inf))
        inside = lanes_below(classes - c)
        gap, error = gap_over(constant(x, peak), x, student, exact)
        error = finite_or_zero(error, gap)
        e, lost = exp_of_gap(gap, error, exact)
        q, cost, cost_low = teacher_entries(t, teacher, exact)
        q = select(inside, q, zero)  # a probability beyond the end is no −∞
        y = (gap - cost) + (error - cost_low)
        if cross:
            y = select(equal(cost, constant(cost, math.inf)), zero, gap + error)
        store(buffers.exps, c, e)
        store(buffers.q, c, q)
        store(buffers.y, c, y)
        sums = add_exponential(sums, e, one)
        if exact:
            sums = sums[0], sums[1], sums[2] + lost
        teacher_sums = teacher_sum(teacher_sums, q, teacher.kind)
        rest, rest_low = add(rest, rest_low, select(equal(e, one), zero, q))
        prefetch(rows[0], c + classes)
        prefetch(rows[1], c + classes)
    ones, high, low = sums_across(sums)
    others, others_low = total_of(ones, high, low, exact)
    ones, high, low = sums_across(teacher_sums)
    if teacher.kind != PROBS:
        high, low = total_of(ones, high, low, exact)
    rest, rest_low = sum_across(rest, rest_low)
    return Sums(others, others_low, high, low, rest + rest_low)


@inline_jit
def exp_of(x):
    """exp x."""
    if x <= 0.0:
        return exp_of_gap(0.0 - x, 0.0, True)[0] * UNSCALE
    return ONE / exp_of_gap(x, 0.0, True)[0]


@inline_jit
def masses_of(sums, teacher, log_s, options):
    """The unit of the stored q, what their y lack, and Σ q − 1."""
    log_ratio = log_s[0] * log_s[2]
    if teacher.kind == PROBS:
        return 1.0, log_ratio, (sums.teacher - 1.0) + sums.teacher_low
    total = 1.0 + (sums.teacher + sums.teacher_low) * UNSCALE
    if teacher.kind == LOG_PROBS:
        unit = exp_of(teacher.peak)
        return unit * UNSCALE, log_ratio, fma(unit, total, -1.0)
    _, cross, exact = options
    high, low, unit = log_of_sum(sums.teacher, sums.teacher_low, exact)
    if cross:
        high, low = 0.0, 0.0
    log_ratio = (log_ratio - high * unit) + (log_s[1] * log_s[2] - low * unit)
    return UNSCALE / total, log_ratio, 0.0


@inline_jit
def sum_terms(classes, sums, units, costs, buffers):
    """Pass 3: the sum of the terms, and Σ p·u. x or u replaces y."""
    zero = constant_for(buffers.exps, 0.0)
    unit, log_ratio = units
    by = UNSCALE / (1.0 + (sums.others + sums.others_low) * UNSCALE)
    high, low, middle, middle_low = zero, zero, zero, zero
    for c in range(0, classes, LANES):
        p, q = load(buffers.exps, c) * by, load(buffers.q, c) * unit
        value, x = term(costs, p, q, load(buffers.y, c) + log_ratio)
        inside = lanes_below(classes - c)
        high, low = add(high, low, select(inside, value, zero))
        if costs.divergence >= REVERSE_KL:
            store(buffers.y, c, x)
        if costs.divergence == JSD:
            pull = select(inside, product_or_zero(p, x), zero)
            middle, middle_low = add(middle, middle_low, pull)
    value, value_low = sum_across(high, low)
    middle, middle_low = sum_across(middle, middle_low)
    return value + finite_or_zero(value_low, value), middle + middle_low


@inline_jit
def write_pulled(classes, sums, row, factors, exact, buffers, grad):
    """Pass 4 of cross-entropy and forward KL: (Σq)·p − q.

    Where the student's p is above ½ that is Σ q of the other classes less (Σq)·Σ p of these.
    """
    wide, one = in_every_lane(buffers.exps, factors), constant_for(buffers.exps, ONE)
    others = (sums.others + sums.others_low) * UNSCALE
    share = others / (1.0 + others) * (1.0 + row.surplus)
    of_max = (sums.rest * row.unit - share) * factors.per_mass * factors.unit
    for c in range(0, classes, LANES):
        e, q = load(buffers.exps, c), load(buffers.q, c) * row.unit
        g = entries_with_masses(e * wide.before, q * wide.per_mass, wide, exact)
        if others < 1.0:
            g = select(equal(e, one), constant(g, of_max), g)
        store_padded(grad, classes, c, cast_for(grad, g) + constant_for(grad, 0.0))


@inline_jit
def write_shifted(classes, row, factors, buffers, grad):
    """Pass 4 of reverse KL and JSD: p·(x − Σ p·x), or with u."""
    wide = in_every_lane(buffers.exps, factors)
    for c in range(0, classes, LANES):
        e, x = load(buffers.exps, c) * wide.before, load(buffers.y, c)
        p = fma(e, wide.high, e * wide.low) * wide.unit
        g = product_or_zero(p, x - row.middle)
        store_padded(grad, classes, c, cast_for(grad, g) + constant_for(grad, 0.0))


@inline_jit
def write_gradient(classes, sums, row, scale, costs, options, buffers, grad):
    """Pass 4. A row without an answer is NaN, and so is one of which reverse KL is infinite."""
    student, _, exact = options
    infinite = costs.divergence == REVERSE_KL and row.value == math.inf
    if math.isnan(row.value) or infinite:
        fill(grad, classes, math.nan)
        return
    pulled = costs.divergence <= FORWARD_KL
    b = 1.0 + row.surplus if pulled else 1.0 - costs.beta if costs.divergence == JSD else 1.0
    sums_of_row = RowSums(sums.others, sums.others_low, 0.0, b, 0.0)
    factors = row_factors(sums_of_row, scale, student, True, exact)
    if pulled:
        write_pulled(classes, sums, row, factors, exact, buffers, grad)
    else:
        write_shifted(classes, row, factors, buffers, grad)


@jit
def dense_range(count, logits, teachers, targets, shared, per_row, grad, space, mode):
    """Some rows."""
    classes, scalars = shared
    write_ignored_rows(count, classes, targets, per_row, grad)
    second, _, _, _, _ = long_row_offsets(classes, 0, 0)
    buffers = Buffers(
        float64_at(space, 0), float64_at(space, second), float64_at(space, 2 * second)
    )
    exact = is_float64(space)
    student, costs = softmax_options(scalars.temperature), costs_of(scalars)
    options = student, costs.divergence == CE, exact
    for i in range(count):
        if targets[i] < 0:
            continue
        x, t = row_pointer(logits, i), row_pointer(teachers, i)
        peak, teacher = row_max(x, classes), teacher_of(t, classes, scalars)
        sums = store_row((x, t), classes, peak, teacher, options, buffers)
        log_s = log_of_sum(sums.others, sums.others_low, exact)
        unit, log_ratio, surplus = masses_of(sums, teacher, log_s, options)
        value, middle = sum_terms(classes, sums, (unit, log_ratio), costs, buffers)
        value += mass_correction(costs, 0, surplus, 0.0)
        per_row.lses[i] = peak / scalars.temperature + log_s[0] * log_s[2]
        if not abs(peak) + abs(teacher.peak) + abs(surplus) < math.inf:
            value = math.nan
        if not abs(peak) < math.inf:
            per_row.lses[i] = math.nan
        per_row.losses[i] = value + 0.0
        if grad is not None:
            middle = value if costs.divergence == REVERSE_KL else middle
            row = Row(unit, log_ratio, surplus, value, middle)
            scale = per_row.scale[i * per_row.scale_step]
            g = row_pointer(grad, i)
            write_gradient(classes, sums, row, scale, costs, options, buffers, g)
