"""Passes 1 and 2 over a row of logits and a row of a teacher's, in float32.

See `teacher_dense_fast` for what they are. Both go through pipelines like that of `exp_pipeline`,
with a temperature each.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from xentcli.backends.cpu.arithmetic import add_exponential, difference, inline_jit
from xentcli.backends.cpu.exponential import (
    F32_LN2_HIGH,
    F32_LN2_LOW,
    F32_MIN_DIFFERENCE,
    F32_ROUND,
    F32_SCALE_BITS,
    exp_series_f32,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for, itemsize
from xentcli.backends.cpu.load_store import (
    load,
    prefetch,
    store,
)
from xentcli.backends.cpu.row_ops import (
    load_padded,
    max_across,
    sums_across,
)
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    fma,
    less_equal_or_nan,
    power_of_two,
    select,
    select_max,
    select_min,
)
from xentcli.backends.elementary import PER_LN2

LATENCY = 2 * LANES  # classes between the logits of a step and the exponentials it finishes
PREFETCH_BYTES = 2048
ONE_F32 = 2.0**F32_SCALE_BITS  # what exp(0) is kept as


class Softmax(NamedTuple):
    """What a row's exponentials come from, in 16 lanes: its largest logit, 1/temperature."""

    peak: Any
    inverse: Any
    inverse_low: Any


class Stages(NamedTuple):
    """32 exponentials in the pipeline, and the sums: see `exp_pipeline`."""

    first: Any
    second: Any
    sums: Any


class PassState(NamedTuple):
    """Carried through passes 1 and 2."""

    student: Any
    teacher: Any
    maximum: Any  # of the next row
    teacher_maximum: Any
    least: Any  # a − b, or a; −inf where the value is infinite


@inline_jit
def scaled_gap(x, softmax):
    """(x − max x) / temperature, and its rounding error; NaN for that of −inf."""
    gap, error = difference(x, softmax.peak)
    high = gap * softmax.inverse
    low = fma(gap, softmax.inverse, constant(high, 0.0) - high)
    return high, fma(gap, softmax.inverse_low, fma(error, softmax.inverse, low))


@inline_jit
def first_stage(gap, error):
    """The first stage of exp(gap + error)·2⁴⁸."""
    biased = fma(gap, constant(gap, PER_LN2), constant(gap, F32_ROUND))
    n = biased - constant(gap, F32_ROUND)
    high = fma(n, constant(gap, -F32_LN2_HIGH), gap)  # exact
    low = fma(n, constant(gap, -F32_LN2_LOW), error)
    return gap, high, low, high + low, power_of_two(biased, F32_SCALE_BITS)


@inline_jit
def second_stage(parts):
    """The second stage: within 0.54 ULP, where that of `exponential` is within 0.7."""
    gap, high, low, r, power = parts
    square = r * r
    curved = fma(square, exp_series_f32(r, square), low)
    one = constant(gap, 1.0)
    near = one + high
    return gap, near + ((high - (near - one)) + curved), power


@inline_jit
def third_stage(parts):
    """The third stage: the exponential, NaN of NaN."""
    gap, number, power = parts
    near = less_equal_or_nan(constant(gap, F32_MIN_DIFFERENCE), gap)
    return select(near, power * number, constant(gap, 0.0))


@inline_jit
def start_stages(like):
    """Empty sums, and exponentials that are 0 in the pipeline."""
    least, zero = constant(like, -math.inf), constant(like, 0.0)
    first = first_stage(least, zero)
    return Stages(first, second_stage(first), (zero, zero, zero))


@inline_jit
def step(stages, gap, error):
    """Feed 16 gaps; the new stages, and 16 finished exponentials."""
    first, second = first_stage(gap, error), second_stage(stages.first)
    e = third_stage(stages.second)
    one = constant(e, ONE_F32)
    return Stages(first, second, add_exponential(stages.sums, e, one)), e


@inline_jit
def kept_gap(a, a_low, b, b_low, cross):
    """a − b; for cross-entropy a, and 0 where the teacher excludes the class."""
    if cross:
        return select(equal(b, constant(b, -math.inf)), constant(b, 0.0), a)
    high = a - b
    total = high + (a_low - b_low)
    return select(equal(total, total), total, high)


@inline_jit
def both_steps(state, xs, softmaxes, cross, buffers, c):
    """Pass 2 of 16 classes, with the next row's `xs` for pass 1."""
    next_x, next_t, x, t = xs
    a, a_low = scaled_gap(x, softmaxes[0])
    b, b_low = scaled_gap(t, softmaxes[1])
    exps, weights, gaps = buffers
    gap = kept_gap(a, a_low, b, b_low, cross)
    store(gaps, c, gap)
    student, e = step(state.student, a, a_low)
    teacher, w = step(state.teacher, b, b_low)
    store(exps, c - LATENCY, e)
    store(weights, c - LATENCY, w)
    return PassState(
        student,
        teacher,
        select_max(next_x, state.maximum),
        select_max(next_t, state.teacher_maximum),
        select_min(gap, state.least),
    )


@inline_jit
def exp_pass(rows, classes, softmaxes, cross, buffers):
    """Pass 1 of the next rows and pass 2 of these."""
    next_x, next_t, x, t = rows
    zero = constant(softmaxes[0].peak, 0.0)
    least, stages = constant(zero, -math.inf), start_stages(zero)
    state = PassState(stages, stages, least, least, zero)
    body = classes - classes % LANES
    for c in range(0, body, LANES):
        prefetch(next_x, c + PREFETCH_BYTES // itemsize(next_x))
        prefetch(next_t, c + PREFETCH_BYTES // itemsize(next_t))
        xs = load(next_x, c), load(next_t, c), load(x, c), load(t, c)
        state = both_steps(state, xs, softmaxes, cross, buffers, c)
    for c in range(body, classes + LATENCY, LANES):  # the last classes, then empty the pipeline
        xs = (
            load_padded(next_x, classes, c, -math.inf),
            load_padded(next_t, classes, c, -math.inf),
            load_padded(x, classes, c, -math.inf),
            load_padded(t, classes, c, -math.inf),
        )
        state = both_steps(state, xs, softmaxes, cross, buffers, c)
    return state


@inline_jit
def two_singles(value):
    """A float64 as a sum of two float32."""
    high = np.float64(np.float32(value))
    return high, value - high


@inline_jit
def softmax_of(like, peak, temperature):
    """The same for every row of a temperature, but for the largest logit."""
    high, low = two_singles(1.0 / temperature)
    return Softmax(constant_for(like, peak), constant_for(like, high), constant_for(like, low))


@inline_jit
def min_across(a):
    """The least of 16 numbers as float64."""
    return 0.0 - max_across(constant(a, 0.0) - a)


@inline_jit
def others_of(sums):
    """The sum of all exponentials but one largest, which is 1."""
    ones, high, low = sums
    total = sums_across((as_float64(ones), as_float64(high), as_float64(low)))
    return ((total[0] - ONE_F32) + (total[1] + total[2])) * (1.0 / ONE_F32)
