"""Losses of long rows, 16 rows at a time.

A loss is a chain of dependent steps that takes 45 ns for one row as for 16, in which the processor
can do little else. So what it needs of a row is kept until there are 16.
"""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.formulas import (
    Masses,
    RowSums,
    finish_row,
    gap_over,
    hot_gap,
    largest,
)
from xentcli.backends.cpu.half_types import constant_for
from xentcli.backends.cpu.load_store import load, store
from xentcli.backends.cpu.simd import LANES, constant, equal, first_lane


@inline_jit
def finish(peak, target_x, hot, others, scalars, exact):
    """Loss, log-sum-exp and the gradient's sums of 16 rows."""
    gap, error = gap_over(peak, target_x, scalars, exact)
    distance, zero = hot_gap(hot, gap, error, exact), constant(peak, 0.0)
    masses = Masses(hot, zero, zero, equal(target_x, peak))
    return finish_row(largest(peak, zero, scalars, exact), others, masses, distance, scalars, exact)


@inline_jit
def sums_of_row(kept, row, target_x, others, scalars, exact):
    """The gradient's sums of one row; without z-loss they need no logarithm."""
    _, peak, hot = row
    if scalars.z_loss != 0.0:  # as 16 equal rows: scalars would be a second copy of all formulas
        both = constant_for(kept, others[0]), constant_for(kept, others[1])
        x, a = constant_for(kept, target_x), constant_for(kept, hot)
        sums = finish(constant_for(kept, peak), x, a, both, scalars, exact)[2]
        return first_sums(sums)
    sum_ = others[0]
    if not abs(largest(peak, 0.0, scalars, exact)[0]) < math.inf:
        sum_ = math.nan
    return RowSums(sum_, others[1], 0.0 if target_x == peak else hot, hot, 0.0)


@inline_jit
def first_sums(sums):
    """Those of the first of 16 rows."""
    one, low, rest = first_lane(sums.others), first_lane(sums.others_low), first_lane(sums.rest)
    return RowSums(one, low, rest, first_lane(sums.b), first_lane(sums.b_low))


@inline_jit
def keep_row(kept, slot, peak, target_x, hot, others):
    """Keep what the loss of a row needs."""
    kept[slot], kept[slot + LANES], kept[slot + 2 * LANES] = peak, target_x, hot
    kept[slot + 3 * LANES], kept[slot + 4 * LANES] = others


@inline_jit
def write_losses(kept, count, rows, per_row, scalars, exact):
    """The losses and log-sum-exps of the first `count` of 16 rows, which have these indices."""
    peak, target_x, hot = load(kept, 0), load(kept, LANES), load(kept, 2 * LANES)
    others = load(kept, 3 * LANES), load(kept, 4 * LANES)
    loss, lse, _ = finish(peak, target_x, hot, others, scalars, exact)
    store(kept, 5 * LANES, loss)
    store(kept, 6 * LANES, lse)
    for j in range(count):
        per_row.losses[rows[j]] = kept[j + 5 * LANES]
        per_row.lses[rows[j]] = kept[j + 6 * LANES]
