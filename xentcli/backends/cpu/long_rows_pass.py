"""Passes 1 and 2 of long rows with any option, in float64.

As in `exp_pipeline`, the largest logit of the next row is found while this row is computed, and the
exponentials are a software pipeline. Gaps d_c are computed for a block of classes before their
exponentials, and stay in the first-level cache: a loop over both would need more registers than
there are with a softcap, and another copy of its code for each kind of gap. While the exponentials
of a block are computed, no logits are read; so those that the next block needs are prefetched.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import add_exponential, any_lane, flag, inline_jit, jit
from xentcli.backends.cpu.exponential import ONE, gap_stage1, gap_stage2, gap_stage3
from xentcli.backends.cpu.formulas import (
    finite_or_zero,
    gap_below,
    gap_over,
    peak_of,
    total_of,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for, itemsize
from xentcli.backends.cpu.load_store import advance, float64_at, load, store
from xentcli.backends.cpu.long_rows_masses import add_masses, no_masses
from xentcli.backends.cpu.row_ops import load_padded, max_across, prefetch_line, sums_across
from xentcli.backends.cpu.simd import LANES, constant, equal, lanes_below, select, select_max
from xentcli.backends.cpu.softcap import (
    Cap,
    cap_of,
    cap_stage1,
    cap_stage2,
    capped,
    is_usual,
    plain_peak,
    times_slope,
    times_usual_slope,
)

LATENCY = 2 * LANES  # classes between the gaps of a step and the exponentials it finishes
PREFETCH_BYTES = 2048
GAP_BLOCK, GAP_BYTES = workspace.GAP_BLOCK, workspace.GAP_BYTES

long_row_offsets = inline_jit(workspace.long_row_offsets)


class Buffers(NamedTuple):
    """Numbers in float64, one for each class of a row, or of a block."""

    exps: Any  # e_c, with a softcap times its slope
    slopes: Any  # dz/dx·T·2⁵⁰⁰, only with a softcap
    gaps: Any  # d_c of a block
    errors: Any  # and their errors


class Top(NamedTuple):
    """What the gaps of a row come from."""

    peak: Any
    cap: Any  # for z itself, which is accurate enough where `is_near`
    is_near: Any


class PassState(NamedTuple):
    """Carried through the loop over the gaps of a row."""

    sums: Any  # of exponentials: see `add_exponential`
    masses: Any
    stage1: Any  # the 32 exponentials in the pipeline
    stage2: Any


@inline_jit
def row_buffers(space, classes):
    """Where they are in the work space."""
    second, _, _, _, _ = long_row_offsets(classes, 0, 0)
    gaps = 3 * second
    return Buffers(
        advance(float64_at(space, 0), LATENCY),
        advance(float64_at(space, second), LATENCY),
        float64_at(space, gaps),
        float64_at(space, gaps + GAP_BYTES),
    )


@inline_jit
def top_of(exps, largest_x, scalars, exact):
    """What the gaps of a row come from, given its largest logit."""
    x = constant_for(exps, largest_x)
    if is_usual(scalars) and not exact:
        cap = cap_of(x, scalars)
        return Top(plain_peak(cap.z), cap, True)
    return Top(peak_of(x, scalars, exact), Cap(x, x, x), False)


@inline_jit
def gap_of(top, x, scalars, exact):
    """d of 16 classes, its error, and the slope."""
    if top.is_near:
        z, slope = capped(x, top.cap)
        return top.cap.z - z, constant(x, 0.0), slope
    return gap_below(top.peak, x, scalars, exact)


@jit
def gap_apart(top, x, scalars, exact):
    """The same as a function of its own, where it is called a few times for each row."""
    return gap_of(top, x, scalars, exact)


@inline_jit
def fill_gaps(rows, span, top, setup, buffers, maximum, is_capped):
    """The gaps of the whole vectors of a block, and the largest logits of the next row with what
    they have been."""
    next_x, x = rows
    begin, body = span
    scalars, exact = setup.scalars, setup.exact
    for c in range(begin, body, LANES):
        maximum = select_max(load(next_x, c), maximum)
        logits = as_float64(load(x, c))
        if is_capped:
            gap, error, slope = gap_below(top.peak, logits, scalars, exact)
        else:
            gap, error = gap_over(top.peak.x, logits, scalars, exact)
            error, slope = finite_or_zero(error, gap), gap
        store_gaps(buffers, begin, c, (gap, error, slope), is_capped, exact)
    return maximum


@inline_jit
def fill_near_gaps(rows, span, top, buffers, maximum):
    """The same with a softcap where z itself is accurate enough: a software pipeline."""
    next_x, x = rows
    begin, body = span
    logits = as_float64(load(x, begin))
    parts, zero = cap_stage1(logits, top.cap), constant(logits, 0.0)
    for c in range(begin, body, LANES):
        maximum = select_max(load(next_x, c), maximum)
        following = as_float64(load(x, min(c + LANES, body - LANES)))
        stage1 = cap_stage1(following, top.cap)
        z, slope = cap_stage2(parts, logits, top.cap)
        store_gaps(buffers, begin, c, (top.cap.z - z, zero, slope), flag(True), flag(False))
        parts, logits = stage1, following
    return maximum


@inline_jit
def fill_end(rows, span, top, setup, buffers, maximum):
    """The same for the last classes, and gaps of 0 beyond the end."""
    begin, body, end = span
    scalars, exact, classes = setup.scalars, setup.exact, setup.classes
    zero = constant_for(buffers.gaps, 0.0)
    for c in range(body, min(classes, end), LANES):
        maximum = select_max(load_padded(rows[0], classes, c, -math.inf), maximum)
        logits = as_float64(load_padded(rows[1], classes, c, 0.0))
        gap, error, slope = gap_apart(top, logits, scalars, exact)
        inside = lanes_below(classes - c)
        gap, error = select(inside, gap, zero), select(inside, error, zero)
        store_gaps(buffers, begin, c, (gap, error, slope), scalars.softcap < math.inf, exact)
    for c in range(max(body, classes + -classes % LANES), end, LANES):
        store_gaps(buffers, begin, c, (zero, zero, zero), flag(False), exact)
    return maximum


@inline_jit
def fill_block(rows, span, top, setup, buffers, maximum):
    """The gaps of a block by the formula for the options."""
    begin, end = span
    body = max(begin, min(setup.classes - setup.classes % LANES, end))
    if begin < body:
        if top.is_near:
            maximum = fill_near_gaps(rows, (begin, body), top, buffers, maximum)
        elif setup.scalars.softcap < math.inf:
            maximum = fill_gaps(rows, (begin, body), top, setup, buffers, maximum, flag(True))
        else:
            maximum = fill_gaps(rows, (begin, body), top, setup, buffers, maximum, flag(False))
    return fill_end(rows, (begin, body, end), top, setup, buffers, maximum)


@inline_jit
def store_gaps(buffers, begin, c, found, is_capped, exact):
    """Store what belongs to 16 gaps."""
    gap, error, slope = found
    store(buffers.gaps, c - begin, gap)
    if exact:
        store(buffers.errors, c - begin, error)
    if is_capped:
        store(buffers.slopes, c, slope)


@inline_jit
def start_pass(exps, exact):
    """Empty sums, and exponentials that are 0 in the pipeline."""
    zero = constant_for(exps, 0.0)
    stage1 = gap_stage1(constant_for(exps, math.inf), zero, exact)
    return PassState(
        (zero, zero, zero), no_masses(zero), stage1, gap_stage2(stage1, exact, flag(False))
    )


@inline_jit
def pass_step(state, gap, error, exact, cancels):
    """Feed 16 gaps; the new state, and 16 finished exponentials."""
    stage1, stage2 = gap_stage1(gap, error, exact), gap_stage2(state.stage1, exact, cancels)
    (e, lost), (ones, high, low) = gap_stage3(state.stage2, exact), state.sums
    if exact:
        sums = add_exponential((ones, high, low + lost), e, constant(e, ONE))
    else:
        is_one, one, other = equal(e, constant(e, ONE)), constant(e, ONE), e
        if any_lane(is_one):  # seldom: a branch costs less than masks
            other = select(is_one, constant(e, 0.0), e)
            ones = ones + select(is_one, one, constant(e, 0.0))
        sums = ones, high + other, low
    return PassState(sums, state.masses, stage1, stage2), e


@inline_jit
def add_exponentials(state, q, ahead, span, setup, buffers, wants):
    """The exponentials of a block of gaps, and with masses their sums. The logits that pass 1 reads
    with the gaps of the next block are prefetched, while no others are read."""
    begin, end = span
    has_masses, are_plain, with_slopes, is_near = wants
    for c in range(begin, end, LANES):
        gap = load(buffers.gaps, c - begin)
        error = constant(gap, 0.0)
        if setup.exact:
            error = load(buffers.errors, c - begin)
        prefetch_line(ahead, c)
        state, e = pass_step(state, gap, error, setup.exact, has_masses)
        if with_slopes:
            slope = load(buffers.slopes, c - LATENCY)
            e = times_usual_slope(e, slope) if is_near else times_slope(e, slope)
        store(buffers.exps, c - LATENCY, e)
        if has_masses:
            if q is not None:
                prefetch_line(q, c + PREFETCH_BYTES // itemsize(q))
            if setup.exact:
                gap = gap + error
            masses = add_masses(state.masses, q, setup, c, gap, are_plain)
            state = PassState(state.sums, masses, state.stage1, state.stage2)
    return state


@jit
def exp_pass(rows, top, q, setup, buffers, with_slopes):
    """Pass 1 of the next row, and pass 2 of this one: the largest logit of that, the sum of all
    exponentials but one largest, and the sums of masses.

    `with_slopes`: whether the exponentials that are kept are multiplied by their slopes.
    """
    classes, exact = setup.classes, setup.exact
    maximum = constant_for(rows[0], -math.inf)
    state = start_pass(buffers.exps, exact)
    for begin in range(0, classes, GAP_BLOCK):
        end = begin + GAP_BLOCK
        if end >= classes:  # then empty the pipeline
            end = classes + LATENCY
        span, ahead = (begin, end), advance(rows[0], min(end, classes) - begin)
        maximum = fill_block(rows, span, top, setup, buffers, maximum)
        if not setup.has_masses:
            wants = flag(False), flag(False), with_slopes, top.is_near
            state = add_exponentials(state, q, ahead, span, setup, buffers, wants)
        elif setup.are_plain:
            wants = flag(True), flag(True), with_slopes, top.is_near
            state = add_exponentials(state, q, ahead, span, setup, buffers, wants)
        else:
            wants = flag(True), flag(False), with_slopes, top.is_near
            state = add_exponentials(state, q, ahead, span, setup, buffers, wants)
    ones, high, low = sums_across(state.sums)
    beyond = float(-classes % LANES)  # their gaps are 0
    return max_across(maximum), total_of(ones - beyond * ONE, high, low, exact), state.masses
