"""Passes 1 and 2 of long rows with any option, in float64, 16 classes at a time.

As in `exp_pipeline`, the largest logit of the next row is found in the loop over the exponentials
of this one, and the exponentials are a software pipeline.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import add, add_wide, add_wide_exponential, inline_jit
from xentcli.backends.cpu.exponential import ONE, gap_stage1, gap_stage2, gap_stage3
from xentcli.backends.cpu.formulas import gap_below, mass, mass_times_gap
from xentcli.backends.cpu.half_types import as_float64, constant_for, itemsize
from xentcli.backends.cpu.load_store import advance, float64_at, load, prefetch, store
from xentcli.backends.cpu.row_ops import element, load_padded
from xentcli.backends.cpu.simd import LANES, constant, lanes_below, select, select_max

LATENCY = 2 * LANES  # classes between the logits of a step and the exponentials it finishes
PREFETCH_BYTES = 2048

long_row_offsets = inline_jit(workspace.long_row_offsets)


class Buffers(NamedTuple):
    """What pass 2 stores of a row for pass 3: float64, one number for each class."""

    exps: Any
    slopes: Any  # dz/dx·T·2⁵⁰⁰, only with a softcap
    gaps: Any  # for whoever needs a third number


class PassSums(NamedTuple):
    """Carried through the loop: the largest logits of the next row, the sums of this one."""

    maximum: Any
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
    return Buffers(
        advance(float64_at(space, 0), LATENCY),
        float64_at(space, second),
        float64_at(space, 2 * second),
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
def start_pass(x, exps, exact):
    """Empty sums, and exponentials that are 0 in the pipeline."""
    zero = constant_for(exps, 0.0)
    stage1 = gap_stage1(constant_for(exps, math.inf), zero, exact)
    least = constant_for(x, -math.inf)
    sums = PassSums(least, zero, zero, zero, zero, zero, zero, zero)
    return PassState(sums, stage1, gap_stage2(stage1, exact))


@inline_jit
def pass_step(state, next_x, gap, error, exact):
    """Feed 16 gaps, and 16 logits of the next row; the new state, and 16 finished exponentials."""
    stage1, stage2 = gap_stage1(gap, error, exact), gap_stage2(state.stage1, exact)
    (e, lost), sums = gap_stage3(state.stage2, exact), state.sums
    low = sums.low + lost if exact else sums.low
    one = constant(e, ONE)
    ones, high, low = add_wide_exponential((sums.ones, sums.high, low), e, one, exact)
    rest = sums.gaps, sums.gaps_low, sums.masses, sums.masses_low
    return PassState(
        PassSums(select_max(next_x, sums.maximum), ones, high, low, *rest), stage1, stage2
    ), e


@inline_jit
def add_masses(state, a, gap, exact):
    """Add 16 masses, and their products with gaps."""
    sums, stage1, stage2 = state
    gaps, gaps_low = add_wide(sums.gaps, sums.gaps_low, mass_times_gap(a, gap), exact)
    masses, masses_low = add(sums.masses, sums.masses_low, a)
    exps = sums.maximum, sums.ones, sums.high, sums.low
    return PassState(PassSums(*exps, gaps, gaps_low, masses, masses_low), stage1, stage2)


@inline_jit
def exp_pass(rows, peak, q, setup, buffers, keeps):
    """Pass 1 of the next row, and pass 2 of this one; the sums.

    `keeps`: whether all classes have masses, and whether there is a softcap.
    """
    next_x, x = rows
    weight, classes, scalars, exact = setup
    has_masses, capped = keeps
    uniform = scalars.label_smoothing / classes
    state = start_pass(x, buffers.exps, exact)
    zero = constant_for(buffers.exps, 0.0)
    body = classes - classes % LANES
    for c in range(0, body, LANES):
        prefetch_next(next_x, c)
        gap, error, slope = gap_below(peak, as_float64(load(x, c)), scalars, exact)
        state, e = pass_step(state, load(next_x, c), gap, error, exact)
        store(buffers.exps, c - LATENCY, e)
        if capped:
            store(buffers.slopes, c, slope)
        if has_masses:
            a = masses_from(q, weight, classes, c, scalars, uniform)
            state = add_masses(state, a, gap + error, exact)
    for c in range(body, classes + LATENCY, LANES):  # the last classes, then empty the pipeline
        inside = lanes_below(classes - c)
        last = load_padded(next_x, classes, c, -math.inf)
        logits = as_float64(load_padded(x, classes, c, -math.inf))
        gap, error, slope = gap_below(peak, logits, scalars, exact)
        error = select(inside, error, zero)
        # A softcap makes −inf beyond the end finite.
        beyond = select(inside, gap, constant(gap, math.inf))
        state, e = pass_step(state, last, beyond, error, exact)
        store(buffers.exps, c - LATENCY, e)
        if capped and c < classes:
            store(buffers.slopes, c, slope)
        if has_masses and c < classes:
            a = masses_from(q, weight, classes, c, scalars, uniform)
            state = add_masses(state, a, select(inside, gap + error, zero), exact)
    return state.sums


@inline_jit
def prefetch_next(x, c):
    """Prefetch what pass 1 reads soon."""
    prefetch(x, c + PREFETCH_BYTES // itemsize(x))
    if itemsize(x) == 8:
        prefetch(x, c + (PREFETCH_BYTES + 64) // itemsize(x))
