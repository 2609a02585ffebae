"""The K classes of a row that a teacher stores: their terms, and their entries of the gradient.

The other classes enter as one number, their exponentials' sum: so the row itself takes the same
pass as without a teacher, and its gradient is p times one factor but for these K entries. K numbers
are computed in float64, 16 at a time, whatever the dtype of the logits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import add, add_exponential, any_lane, inline_jit, jit, log1p
from xentcli.backends.cpu.exponential import (
    F32_SCALE_BITS,
    ONE,
    UNSCALE,
    exp_of_gap,
    exp_stage1_f32,
    exp_stage2_f32,
    exp_stage3_f32,
)
from xentcli.backends.cpu.formulas import finite_or_zero, gap_over, log_of_sum
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for
from xentcli.backends.cpu.load_store import (
    advance,
    float64_at,
    gather,
    load,
    load_int64,
    load_masked,
    scatter,
    store,
)
from xentcli.backends.cpu.row_ops import max_across, sum_across, sums_across
from xentcli.backends.cpu.simd import (
    LANES,
    absolute,
    constant,
    equal,
    lanes_below,
    less,
    less_equal_or_nan,
    maximum,
    select,
    select_max,
)
from xentcli.backends.cpu.teacher_formulas import (
    BUCKET,
    CE,
    DROP,
    FORWARD_KL,
    JSD,
    REVERSE_KL,
    SUBSET,
    TEACHER,
    log,
    mass_correction,
    product_or_zero,
    term,
)

F32_ONE = 2.0**F32_SCALE_BITS  # what exp(0) is kept as in float32
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
    odds: Any  # Σ p of the stored, over that


class TopRow(NamedTuple):
    """What the entries of the gradient come from."""

    value: Any
    mass: Any  # Σ p of the stored classes
    middle: Any  # Σ p·u of all terms
    pull: Any  # Σ q of the terms but that of the largest logit
    bucket: Any  # x or u of the bucket


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
        parts = exp_stage2_f32(exp_stage1_f32(value, constant(value, peak)))
        e, lost = exp_stage3_f32(parts)
        e, lost = select(there, as_float64(e), zero), select(there, as_float64(lost), zero)
        ones, high, _ = add_exponential((ones, high, zero), e, constant(zero, F32_ONE))
        low = low + lost
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
    total = ONE + (others + low)
    log_sum = high * unit + log_low * unit
    return Share(others, low, log_sum, beside / total, mass / beside)


@jit
def sum_terms(stored, share, costs):
    """Sums over the stored classes: terms, p, p·u, and q of all but the largest logit."""
    zero, one = constant_for(stored.gaps, 0.0), constant_for(stored.gaps, ONE)
    by = UNSCALE / (1.0 + (share.others + share.others_low) * UNSCALE)
    total, low, mass, middle, pull = zero, zero, zero, zero, zero
    for j in range(0, stored.slots, LANES):
        inside = lanes_below(stored.slots - j)
        e, gap = load(stored.exps, j), load(stored.gaps, j)
        q, log_q = load_masked(stored.q, j, inside), load_masked(stored.log_q, j, inside)
        p, y = e * by, (gap + log_q) + share.log_sum
        if costs.divergence == CE:
            excluded = equal(log_q, constant(log_q, -math.inf))
            y = select(excluded, zero, gap + share.log_sum)
        value, x = term(costs, p, q, y)
        store(stored.gaps, j, x)
        total, low = add(total, low, value)
        mass, middle = mass + p, middle + product_or_zero(p, x)
        pull = pull + select(equal(e, one), zero, q)
    total, low = sum_across(total, low)
    mass, middle = sum_across(mass, zero)[0], sum_across(middle, zero)[0]
    return total + finite_or_zero(low, total), mass, middle, sum_across(pull, zero)[0]


@inline_jit
def top_row(stored, share, costs, tail, has_others):
    """The value of a row, and what its gradient needs."""
    value, mass, middle, pull = sum_terms(stored, share, costs)
    rest, bucket = share.rest if has_others else 0.0, 0.0
    if has_others and (tail == BUCKET or (tail == TEACHER and costs.divergence == JSD)):
        q = stored.rest if tail == BUCKET else 0.0
        y = log(q / rest)
        if costs.divergence == CE:
            y = log1p(share.odds, 0.0)[0] if share.odds < 2.0**400 else 0.0 - log(rest)
            y = y if q > 0.0 else 0.0
        of_bucket, bucket = term(costs, rest, q, y)
        value, middle = value + of_bucket, middle + product_or_zero(rest, bucket)
        pull += q
    value += mass_correction(costs, tail, stored.surplus, rest)
    return TopRow(value + 0.0, mass, middle, pull, bucket)


@inline_jit
def factor_of_others(stored, share, row, costs, tail):
    """The gradient of a class that is not stored, over its p and the scale."""
    a = 1.0 + stored.surplus
    if tail == SUBSET:
        return share.log_sum * 0.0
    if costs.divergence <= FORWARD_KL:
        return a - stored.rest / share.rest if tail == BUCKET and share.rest > 0.0 else a
    if costs.divergence == REVERSE_KL:
        return row.bucket - row.value if tail == BUCKET else 0.0 - (row.value + row.mass)
    x = 0.0 if tail == DROP else row.bucket
    return (x - row.middle) * (1.0 - costs.beta)


@jit
def write_entries(stored, share, row, costs, tail, scale):
    """The gradient of the stored classes, into the work space."""
    one = constant_for(stored.gaps, ONE)
    others, a = (share.others + share.others_low) * UNSCALE, 1.0 + stored.surplus
    by, of_max = UNSCALE / (1.0 + others), row.pull - a * (others / (1.0 + others))
    middle = row.value if costs.divergence == REVERSE_KL else row.middle
    if costs.divergence == REVERSE_KL and tail == DROP:
        middle = (row.value + row.mass) - 1.0
    for j in range(0, stored.slots, LANES):
        inside = lanes_below(stored.slots - j)
        e = load(stored.exps, j)
        p, x = e * by, load(stored.gaps, j)
        if costs.divergence <= FORWARD_KL:
            g = p * a - load_masked(stored.q, j, inside)
            if others < 1.0:
                g = select(equal(e, one), constant(g, of_max), g)
        else:
            g = product_or_zero(p, x - middle)
            if costs.divergence == JSD:
                g = g * (1.0 - costs.beta)
        store(stored.entries, j, g * scale)


@inline_jit
def write_nan(stored):
    """The same of a row without an answer."""
    for j in range(0, stored.slots, LANES):
        store(stored.entries, j, constant_for(stored.entries, math.nan))


@jit
def replace_exponentials(exps, stored, factor):
    """Put numbers in the row's buffer that times the factor are the entries of the gradient, so
    that pass 3 writes them with the others; whether the buffer's dtype has all these numbers.

    Written afterwards, each made the processor read back a line that had just been streamed past
    the caches: 64 entries of a row took as long as 8,000 of its other classes.
    """
    done = True
    for j in range(0, stored.slots, LANES):
        index, there = slots_at(stored, j)
        g = load(stored.entries, j)
        zero, one, e = constant(g, 0.0), constant(g, 1.0), absolute(g) / abs(factor)
        bad = select(less(e, constant(e, 2.0**100)), zero, one)
        tiny = less(e, constant(e, 2.0**-100))
        bad = select(tiny, select(equal(g, zero), zero, one), bad)
        if any_lane(less(zero, select(there, bad, zero))):
            done = False
        scatter(exps, index, there, cast_for(exps, g / factor))
    return done


@inline_jit
def scatter_entries(stored, grad):
    """Write them to the gradient."""
    for j in range(0, stored.slots, LANES):
        index, there = slots_at(stored, j)
        g = cast_for(grad, load(stored.entries, j)) + constant_for(grad, 0.0)
        scatter(grad, index, there, g)


@inline_jit
def finish_stored(stored, share, costs, tail, classes, scale):
    """The value of a row, and the factor of its other classes; the entries of its gradient."""
    row = top_row(stored, share, costs, tail, count_stored(stored) < classes)
    factor = factor_of_others(stored, share, row, costs, tail)
    infinite = costs.divergence == REVERSE_KL and row.value == math.inf
    if math.isnan(row.value) or infinite:
        write_nan(stored)
        return row.value, math.nan
    write_entries(stored, share, row, costs, tail, scale)
    return row.value, factor


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
