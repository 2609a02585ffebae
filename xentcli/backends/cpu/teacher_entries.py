"""The value of a row of which a teacher stores K classes, and its entries of the gradient.

See `teacher_stored` for how its numbers come about.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import add, any_lane, inline_jit, jit, log1p
from xentcli.backends.cpu.exponential import (
    ONE,
    UNSCALE,
)
from xentcli.backends.cpu.formulas import finite_or_zero
from xentcli.backends.cpu.half_types import cast_for, constant_for
from xentcli.backends.cpu.load_store import (
    load,
    load_masked,
    scatter,
    store,
)
from xentcli.backends.cpu.row_ops import sum_across
from xentcli.backends.cpu.simd import (
    LANES,
    absolute,
    constant,
    equal,
    lanes_below,
    less,
    select,
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
from xentcli.backends.cpu.teacher_stored import count_stored, slots_at


class TopRow(NamedTuple):
    """What the entries of the gradient come from."""

    value: Any
    mass: Any  # Σ p of the stored classes
    middle: Any  # Σ p·u of all terms
    pull: Any  # Σ q of the terms but that of the largest logit
    bucket: Any  # x or u of the bucket


@jit
def sum_terms(stored, share, costs):
    """Sums over the stored classes: terms, p, p·u, and q of all but the largest logit."""
    zero, one = constant_for(stored.gaps, 0.0), constant_for(stored.gaps, ONE)
    by = UNSCALE / (1.0 + (share.others + share.others_low) * UNSCALE)
    total, low, mass, middle, pull = zero, zero, zero, zero, zero
    for j in range(0, stored.slots, LANES):
        inside, (_, there) = lanes_below(stored.slots - j), slots_at(stored, j)
        e, gap = load(stored.exps, j), load(stored.gaps, j)
        q, log_q = load_masked(stored.q, j, inside), load_masked(stored.log_q, j, inside)
        p, y = e * by, (gap + log_q) + share.log_sum
        if costs.divergence == CE:
            excluded = equal(log_q, constant(log_q, -math.inf))
            y = select(excluded, zero, gap + share.log_sum)
        value, x = term(costs, p, q, select(there, y, zero))  # an empty slot adds nothing
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
        y = log(q / rest) if rest > 2.0**-1000 else log(q) - share.log_rest
        if costs.divergence == CE:
            y = log1p(share.odds, 0.0)[0] if share.odds < 2.0**400 else 0.0 - share.log_rest
            y = y if q > 0.0 else 0.0
        if q == 0.0 and rest == 0.0:  # a bucket of excluded classes
            y = 0.0
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
        if tail == BUCKET and stored.rest < share.rest * 2.0**1000:
            return a - stored.rest / share.rest
        return a
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
