"""Passes 1 and 2 of long rows with any option, in float64.

As in `exp_pipeline`, the largest logit of the next row is found while this row is computed, and the
exponentials are a software pipeline. Gaps d_c are computed for a block of classes before their
exponentials, and stay in the first-level cache: with a softcap, a loop over both would need more
registers than there are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import add, add_wide, add_wide_exponential, inline_jit
from xentcli.backends.cpu.exponential import ONE, gap_stage1, gap_stage2, gap_stage3
from xentcli.backends.cpu.formulas import (
    finite_or_zero,
    gap_below,
    gap_over,
    mass,
    mass_times_gap,
    peak_of,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for, itemsize
from xentcli.backends.cpu.load_store import advance, float64_at, load, prefetch, store
from xentcli.backends.cpu.row_ops import element, load_padded
from xentcli.backends.cpu.simd import LANES, constant, lanes_below, select, select_max
from xentcli.backends.cpu.softcap import cap_of, capped, times_slope

LATENCY = 2 * LANES  # classes between the gaps of a step and the exponentials it finishes
PREFETCH_BYTES = 2048
GAP_BLOCK = workspace.GAP_BLOCK

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


class PassSums(NamedTuple):
    """The sums of a row, carried through the loop."""

    ones: Any
    high: Any
    low: Any
    gaps: Any  # Σ a_c·d_c, with its error
    gaps_low: Any
    masses: Any  # Σ a_c, with its error
    masses_low: Any


class PassState(NamedTuple):
    """The sums, and the 32 exponentials in the pipeline."""

    sums: PassSums
    stage1: Any
    stage2: Any


@inline_jit
def row_buffers(space, classes):
    """Where they are in the work space."""
    second, _, _, _, _ = long_row_offsets(classes, 0, 0)
    blocks = 3 * second
    return Buffers(
        advance(float64_at(space, 0), LATENCY),
        advance(float64_at(space, second), LATENCY),
        float64_at(space, blocks),
        float64_at(space, blocks + 8 * GAP_BLOCK),
    )


@inline_jit
def masses_from(q, weight, classes, c, scalars, uniform):
    """a of classes c to c + 15, without the one-hot part of an index target."""
    w = load_padded(weight, classes, c, 0.0)
    if q is None:
        return mass(w, None, scalars, uniform)
    return mass(w, as_float64(load_padded(q, classes, c, 0.0)), scalars, uniform)


@inline_jit
def mass_of_class(q, weight, c, scalars, uniform):
    """a of one class, without the one-hot part."""
    if q is None:
        return mass(weight[c], None, scalars, uniform)
    return mass(weight[c], element(q, c), scalars, uniform)


@inline_jit
def top_of(exps, largest_x, scalars, exact):
    """What the gaps of a row come from, given its largest logit."""
    x = constant_for(exps, largest_x)
    cap, is_near = cap_of(x, scalars)
    return Top(peak_of(x, scalars, exact), cap, is_near and not exact)


@inline_jit
def near_gap(top, x):
    """d of 16 classes from z itself, its error, and the slope."""
    z, slope = capped(x, top.cap)
    return top.cap.z - z, constant(x, 0.0), slope


@inline_jit
def gap_of(top, x, scalars, exact):
    """d of 16 classes, its error, and the slope."""
    if top.is_near:
        return near_gap(top, x)
    return gap_below(top.peak, x, scalars, exact)


@inline_jit
def prefetch_next(x, c):
    """Prefetch what is read soon."""
    prefetch(x, c + PREFETCH_BYTES // itemsize(x))
    if itemsize(x) == 8:
        prefetch(x, c + (PREFETCH_BYTES + 64) // itemsize(x))


@inline_jit
def fill_gaps(rows, span, top, setup, buffers, maximum, how):
    """The gaps of a block of classes, and the largest logits of the next row with them.

    `how`: whether there is a softcap, and whether z itself is accurate enough.
    """
    next_x, x = rows
    _, classes, scalars, exact = setup
    begin, end = span
    is_capped, _ = how
    body = min(classes - classes % LANES, end)
    for c in range(begin, body, LANES):
        prefetch_next(next_x, c)
        maximum = select_max(load(next_x, c), maximum)
        found = gaps_with(top, as_float64(load(x, c)), scalars, exact, how)
        store_gaps(buffers, begin, c, found, is_capped, exact)
    for c in range(body, end, LANES):
        maximum = select_max(load_padded(next_x, classes, c, -math.inf), maximum)
        logits = as_float64(load_padded(x, classes, c, -math.inf))
        gap, error, slope = gaps_with(top, logits, scalars, exact, how)
        # A softcap makes −inf beyond the end finite.
        gap = select(lanes_below(classes - c), gap, constant(gap, math.inf))
        store_gaps(buffers, begin, c, (gap, error, slope), is_capped, exact)
    return maximum


@inline_jit
def gaps_with(top, x, scalars, exact, how):
    """d of 16 classes, its error, and the slope, by one of the formulas."""
    is_capped, is_near = how
    if is_near:
        return near_gap(top, x)
    if is_capped:
        return gap_below(top.peak, x, scalars, exact)
    gap, error = gap_over(top.peak.x, x, scalars, exact)
    return gap, finite_or_zero(error, gap), gap


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
    sums = PassSums(zero, zero, zero, zero, zero, zero, zero)
    return PassState(sums, stage1, gap_stage2(stage1, exact))


@inline_jit
def pass_step(state, gap, error, exact):
    """Feed 16 gaps; the new state, and 16 finished exponentials."""
    stage1, stage2 = gap_stage1(gap, error, exact), gap_stage2(state.stage1, exact)
    (e, lost), sums = gap_stage3(state.stage2, exact), state.sums
    low = sums.low + lost if exact else sums.low
    added = add_wide_exponential((sums.ones, sums.high, low), e, constant(e, ONE), exact)
    rest = sums.gaps, sums.gaps_low, sums.masses, sums.masses_low
    return PassState(PassSums(*added, *rest), stage1, stage2), e


@inline_jit
def add_masses(state, a, gap, exact):
    """Add 16 masses, and their products with gaps."""
    sums, stage1, stage2 = state
    gaps, gaps_low = add_wide(sums.gaps, sums.gaps_low, mass_times_gap(a, gap), exact)
    masses, masses_low = add(sums.masses, sums.masses_low, a)
    exps = sums.ones, sums.high, sums.low
    return PassState(PassSums(*exps, gaps, gaps_low, masses, masses_low), stage1, stage2)


@inline_jit
def add_exponentials(state, q, span, setup, buffers, wants):
    """The exponentials of a block of gaps, and with masses their sums."""
    weight, classes, scalars, exact = setup
    begin, end = span
    has_masses, with_slopes = wants
    uniform = scalars.label_smoothing / classes
    zero = constant_for(buffers.exps, 0.0)
    for c in range(begin, end, LANES):
        gap, error = load(buffers.gaps, c - begin), zero
        if exact:
            error = load(buffers.errors, c - begin)
        state, e = pass_step(state, gap, error, exact)
        if with_slopes:
            e = times_slope(e, load(buffers.slopes, c - LATENCY))
        store(buffers.exps, c - LATENCY, e)
        if has_masses:
            if q is not None:
                prefetch_next(q, c)
            a = masses_from(q, weight, classes, c, scalars, uniform)
            state = add_masses(state, a, gap + error, exact)
    return state


@inline_jit
def exp_pass(rows, top, q, setup, buffers, wants):
    """Pass 1 of the next row, and pass 2 of this one: the largest logits of that, and the sums.

    `wants`: whether all classes have masses, and whether exponentials are multiplied by slopes.
    """
    has_masses, with_slopes = wants
    _, classes, scalars, exact = setup
    maximum = constant_for(rows[0], -math.inf)
    state = start_pass(buffers.exps, exact)
    for begin in range(0, classes + LATENCY, GAP_BLOCK):
        span = begin, min(begin + GAP_BLOCK, classes + LATENCY)
        if top.is_near:
            maximum = fill_gaps(rows, span, top, setup, buffers, maximum, (True, True))
        elif scalars.softcap < math.inf:
            maximum = fill_gaps(rows, span, top, setup, buffers, maximum, (True, False))
        else:
            maximum = fill_gaps(rows, span, top, setup, buffers, maximum, (False, False))
        if has_masses:
            state = add_exponentials(state, q, span, setup, buffers, (True, with_slopes))
        else:
            state = add_exponentials(state, q, span, setup, buffers, (False, with_slopes))
    return maximum, state.sums
