"""The K classes of a row that a teacher stores: their terms, and their entries of the gradient.

The other classes enter as one number, their exponentials' sum: so the row itself takes the same
pass as without a teacher, and its gradient is p times one factor but for these K entries. K numbers
are computed in float64, 16 at a time, whatever the dtype of the logits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import add, add_exponential, inline_jit, jit
from xentcli.backends.cpu.exponential import (
    F32_SCALE_BITS,
    ONE,
    exp_of_gap,
    exp_stage1_f32,
    exp_stage2_f32,
    exp_stage3_f32,
)
from xentcli.backends.cpu.formulas import finite_or_zero, gap_over, log_of_sum
from xentcli.backends.cpu.half_types import as_float64, constant_for
from xentcli.backends.cpu.load_store import (
    advance,
    float64_at,
    gather,
    load,
    load_int64,
    scatter,
    store,
)
from xentcli.backends.cpu.row_ops import max_across, sum_across, sums_across
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    lanes_below,
    less_equal_or_nan,
    maximum,
    select,
    select_max,
)
from xentcli.backends.cpu.teacher_formulas import log

F32_ONE = 2.0**F32_SCALE_BITS  # what exp(0) is kept as in float32
LEAST = 2.0**-1074  # of p that float64 cannot represent, which is no 0
stored_step = inline_jit(workspace.stored_step)


class TopView(NamedTuple):
    """`TopK` as pointers, and the number of its columns."""

    classes: Any
    q: Any
    log_q: Any
    rest: Any
    surplus: Any
    slots: Any


class Stored(NamedTuple):
    """The stored classes of one row, and numbers of them in the work space."""

    classes: Any
    q: Any
    log_q: Any
    rest: Any
    surplus: Any
    slots: Any
    exps: Any
    gaps: Any  # then x or u of `term`
    entries: Any


class Share(NamedTuple):
    """What the exponentials of a row's terms are divided by, and those of the other classes."""

    others: Any  # the sum without a largest, in two words
    others_low: Any
    log_sum: Any
    rest: Any  # Σ p of the classes that are not stored
    log_rest: Any  # its logarithm, also where it is too small for float64
    odds: Any  # Σ p of the stored, over that


@inline_jit
def stored_row(top, i, space, offset):
    """The stored classes of row i."""
    first, step = i * top.slots, stored_step(top.slots)
    return Stored(
        advance(top.classes, first),
        advance(top.q, first),
        advance(top.log_q, first),
        top.rest[i],
        top.surplus[i],
        top.slots,
        float64_at(space, offset),
        float64_at(space, offset + step),
        float64_at(space, offset + 2 * step),
    )


@inline_jit
def slots_at(stored, j):
    """16 classes, and which of them there are."""
    inside = lanes_below(stored.slots - j)
    index = load_int64(stored.classes, j, inside)
    zero = constant(index, 0.0)
    there = less_equal_or_nan(zero, select(inside, index, constant(index, -1.0)))
    return select_max(index, zero), there


@inline_jit
def count_stored(stored):
    """How many classes are stored."""
    n = 0
    while n < stored.slots and stored.classes[n] >= 0:
        n += 1
    return n


@inline_jit
def stored_max(x, stored):
    """The largest logit of the stored classes."""
    peak = constant_for(stored.gaps, -math.inf)
    for j in range(0, stored.slots, LANES):
        index, there = slots_at(stored, j)
        value = as_float64(gather(x, index))
        peak = maximum(peak, select(there, value, constant(value, -math.inf)))
    return max_across(peak)


@jit
def store_exponentials(x, peak, stored, student, exact):
    """Exponentials of the stored classes, and gaps; the three sums of `add_exponential`."""
    zero, one = constant_for(stored.gaps, 0.0), constant_for(stored.gaps, ONE)
    sums = zero, zero, zero
    for j in range(0, stored.slots, LANES):
        index, there = slots_at(stored, j)
        value = as_float64(gather(x, index))
        gap, error = gap_over(constant(value, peak), value, student, exact)
        error = finite_or_zero(error, gap)
        e, lost = exp_of_gap(gap, error, exact)
        e, lost = select(equal(value, value), e, value), select(there, lost, zero)
        e = select(there, e, zero)
        store(stored.exps, j, e)
        store(stored.gaps, j, gap + error)
        sums = add_exponential(sums, e, one)
        if exact:
            sums = sums[0], sums[1], sums[2] + lost
    return sums_across(sums)


@jit
def pipeline_sums(x, peak, stored):
    """The sums without a largest and of the largest, as `exp_pipeline` adds them up in float32,
    multiplied by 2⁴⁸: the very same numbers, so that they can be taken from the row's sums."""
    zero = constant_for(stored.gaps, 0.0)
    ones, high, low = zero, zero, zero
    for j in range(0, stored.slots, LANES):
        index, there = slots_at(stored, j)
        value = gather(x, index)
        parts = exp_stage2_f32(exp_stage1_f32(value, constant(value, peak), None))
        e, lost = exp_stage3_f32(parts)
        is_max = equal(value, constant(value, peak))
        one = select(is_max, constant(zero, F32_ONE), zero)
        ones = ones + select(there, one, zero)
        high = high + select(there, select(is_max, zero, as_float64(e)), zero)
        low = low + select(there, as_float64(lost), zero)
    return sum_across(ones, zero)[0], sum_across(high, low)


@inline_jit
def remove_stored(exps, stored):
    """Put zeros in their places of the row's buffer."""
    for j in range(0, stored.slots, LANES):
        index, there = slots_at(stored, j)
        scatter(exps, index, there, constant_for(exps, 0.0))


@inline_jit
def sums_of_buffer(exps, classes, one):
    """The three sums of `add_exponential` of the row's buffer."""
    zero = constant_for(exps, 0.0)
    sums = zero, zero, zero
    for c in range(0, classes, LANES):
        sums = add_exponential(sums, load(exps, c), constant(zero, one))
    return sums_across((as_float64(sums[0]), as_float64(sums[1]), as_float64(sums[2])))


@inline_jit
def share_of(sums, rest, exact):
    """From the sums of the stored classes, and of the others, multiplied by 2⁹⁰⁰."""
    others, low = add(sums[0] + rest[0] - ONE, sums[2] + rest[2], sums[1])
    others, low = add(others, low, rest[1])
    others, low = others + low, low - ((others + low) - others)
    high, log_low, unit = log_of_sum(others, low, exact)
    beside, mass = rest[0] + (rest[1] + rest[2]), sums[0] + (sums[1] + sums[2])
    log_sum, p = high * unit + log_low * unit, beside / (ONE + (others + low))
    if p == 0.0 and beside > 0.0:
        p = LEAST
    log_rest = (log(beside) - log(ONE)) - log_sum
    return Share(others, low, log_sum, p, log_rest, mass / beside)


@inline_jit
def top_from(top, first):
    """The same from a row on."""
    return TopView(
        advance(top.classes, first * top.slots),
        advance(top.q, first * top.slots),
        advance(top.log_q, first * top.slots),
        advance(top.rest, first),
        advance(top.surplus, first),
        top.slots,
    )
