"""Passes 1 and 2 of long rows, 16 classes at a time: the largest logit, exponentials, sums.

An exponential is a dependency chain of 100 cycles, and the 114 instructions that a processor can
have waiting are two of them: it runs at half its speed. So the loop is a software pipeline: each
step begins one exponential, continues the one before and finishes the one before that, three
chains of 30 cycles. Measured with everything in the cache: 4.5 ns for 16 classes, against 5.7 ns.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba.extending import overload

from xentcli.backends.cpu.arithmetic import (
    JIT_OPTIONS,
    add_exponential,
    add_positive,
    every_lane,
    seldom,
)
from xentcli.backends.cpu.exponential import (
    F32_SCALE_BITS,
    SCALE_BITS,
    exp_stage1,
    exp_stage1_f32,
    exp_stage2,
    exp_stage2_f32,
    exp_stage3,
    exp_stage3_f32,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for
from xentcli.backends.cpu.simd import F64, LANES, constant, equal, less_or_nan, select, select_max

LATENCY = 2 * LANES  # classes between the logits of a step and the exponentials it finishes
INLINE_OPTIONS: Any = {**JIT_OPTIONS, "forceinline": True}


class PipelineSums(NamedTuple):
    """Carried through the loop: the largest logits of the next row, the sums of this one.

    The rounding errors of float32 exponentials are a sum of their own. A loss does without, an
    entry in float32 does not, and what nobody uses is not computed.
    """

    maximum: Any
    ones: Any
    high: Any
    low: Any
    lost: Any


class PipelineState(NamedTuple):
    """The sums, and the 32 exponentials in the pipeline; in float32 also which are of the largest
    logit. Known from the start, that is not waited for in the end."""

    sums: PipelineSums
    stage1: Any
    stage2: Any


def start_pipeline(x: Any, peak: Any, inverse: Any) -> Any:
    """Empty sums, and exponentials that are 0 in the pipeline."""
    raise NotImplementedError  # compiled code takes `_start_pipeline`


def pipeline_step(state: PipelineState, next_x: Any, x: Any, peak: Any, inverse: Any) -> Any:
    """Feed 16 logits `x`, and 16 of the next row; the new state, and 16 finished exponentials.

    In float32 gaps are multiplied by `inverse`: see `exp_stage1_f32`.
    """
    raise NotImplementedError  # compiled code takes `_pipeline_step`


@overload(start_pipeline, jit_options=INLINE_OPTIONS)
def _start_pipeline(x, peak, inverse):
    if peak == F64:

        def double(x, peak, inverse):
            zero, least = constant(peak, 0.0), constant_for(x, -math.inf)
            sums = PipelineSums(least, zero, zero, zero, zero)
            return PipelineState(sums, (zero, zero, zero), (zero, zero))

        return double

    def single(x, peak, inverse):
        zero, least = constant(peak, 0.0), constant_for(x, -math.inf)
        sums, below = PipelineSums(least, zero, zero, zero, zero), equal(zero, zero)
        parts = zero, zero, zero, zero
        return PipelineState(sums, (parts, below), (parts, below))

    return single


@overload(pipeline_step, jit_options=INLINE_OPTIONS)
def _pipeline_step(state, next_x, x, peak, inverse):
    if peak == F64:

        def double(state, next_x, x, peak, inverse):
            first, second = exp_stage1(as_float64(x), peak), exp_stage2(state.stage1)
            (e, lost), sums = exp_stage3(state.stage2), state.sums
            one, maximum = constant(e, 2.0**SCALE_BITS), select_max(next_x, sums.maximum)
            added = add_exponential((sums.ones, sums.high, sums.low + lost), e, one)
            sums = PipelineSums(maximum, added[0], added[1], added[2], sums.lost)
            return PipelineState(sums, first, second), e

        return double

    def single(state, next_x, x, peak, inverse):
        first, second = exp_stage1_f32(x, peak, inverse), exp_stage2_f32(state.stage1[0])
        (e, lost), is_below, sums = exp_stage3_f32(state.stage2[0]), state.stage2[1], state.sums
        below, one, zero = less_or_nan(x, peak), constant(e, 2.0**F32_SCALE_BITS), constant(e, 0.0)
        ones = sums.ones
        if seldom(not every_lane(below)):
            ones = ones + select(below, zero, one)
        high, low = add_positive(sums.high, sums.low, select(is_below, e, zero))
        maximum = select_max(next_x, sums.maximum)
        sums = PipelineSums(maximum, ones, high, low, sums.lost + lost)
        return PipelineState(sums, (first, below), (second, state.stage1[1])), e

    return single
