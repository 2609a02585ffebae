"""KL(base‖model) of each row, 16 classes at a time, in float64.

    KL = Σ p_c·(x_c + expm1(−x_c)) = Σ (p_c·(x_c − 1) + q_c),   x_c = ln p_c − ln q_c = r − δ_c
    δ_c = d_c − d′_c, the gaps to the largest logit of base and model;  r = ln(s′/s)

    1. the largest logits
    2. s = Σ exp(−d_c), s′ = Σ exp(−d′_c), and Σ exp(−d_c)·expm1(δ_c), which is s′ − s
    3. the terms: for |x| < 1 by a series, elsewhere as p·(x − 1) + q

Where all |δ| are below 1, r is log1p of the third sum over s: it keeps its digits where the rows
are close to each other.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit, jit, log1p, polynomial
from xentcli.backends.cpu.formulas import divisor
from xentcli.backends.cpu.gaps import (
    UNSCALE,
    bounded_gap_and_e,
    expm1_and_power,
    gap_of,
    peak_of_row,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for
from xentcli.backends.cpu.load_store import prefetch
from xentcli.backends.cpu.row_ops import load_padded, max_across, row_max, row_pointer, total_across
from xentcli.backends.cpu.simd import (
    LANES,
    absolute,
    constant,
    equal,
    first_lane,
    fma,
    lanes_below,
    less,
    power_of_two,
    select,
    select_max,
)

# (x + expm1(−x)) / x² in powers of −x, up to the last that matters for |x| < 1.
excess_series = polynomial(tuple(1.0 / math.factorial(j + 2) for j in range(17, -1, -1)))


class Pair(NamedTuple):
    """16 classes of base and model: gaps with their errors, exponentials, and δ."""

    e: Any
    other_e: Any
    gap: Any
    other_gap: Any
    delta: Any


class PairSums(NamedTuple):
    """The sums of pass 2, in 16 lanes."""

    ones: Any
    others: Any
    other_ones: Any
    other_others: Any
    change: Any  # Σ e·expm1(δ)
    largest: Any  # |δ|
    excluded: Any  # how many classes the base gives a probability and the model none


@inline_jit
def half_of(x, classes, c, peak, scalars):
    """d of 16 classes, its rounding error, and e·2¹⁰⁰; infinite and 0 beyond the end."""
    values = as_float64(load_padded(x, classes, c, -math.inf))
    gap, error = gap_of(values, peak, scalars, True)
    inside, zero = lanes_below(classes - c), constant(gap, 0.0)
    gap, error = select(inside, gap, constant(gap, math.inf)), select(inside, error, zero)
    return gap, error, bounded_gap_and_e(gap, error)[1]


@inline_jit
def pair_of(rows, classes, c, peaks, scalars):
    """16 classes of both rows."""
    gap, error, e = half_of(rows[0], classes, c, peaks[0], scalars)
    other_gap, other_error, other_e = half_of(rows[1], classes, c, peaks[1], scalars)
    delta = (gap - other_gap) + (error - other_error)
    return Pair(e * UNSCALE, other_e * UNSCALE, gap, other_gap, delta)


@inline_jit
def expm1(x):
    """eˣ − 1 for |x| ≤ 1."""
    s, biased = expm1_and_power(0.0 - x, None)
    power = power_of_two(biased, 0)
    return fma(power, s, power - 1.0)


@inline_jit
def pair_sums(rows, classes, peaks, scalars):
    """Pass 2. Beyond the end both gaps are infinite, and both exponentials 0."""
    zero = as_float64(constant_for(rows[0], 0.0))
    one, infinite = constant(zero, 1.0), constant(zero, math.inf)
    sums = PairSums(zero, zero, zero, zero, zero, zero, zero)
    for c in range(0, classes, LANES):
        pair = pair_of(rows, classes, c, peaks, scalars)
        size = absolute(pair.delta)
        near = less(size, one)
        change = pair.e * expm1(select(near, pair.delta, zero))
        size = select(equal(size, size), size, zero)  # both gaps are infinite: nothing to compare
        excluded = select(equal(pair.other_gap, infinite), pair.e, zero)
        is_one, other_is_one = equal(pair.e, one), equal(pair.other_e, one)
        sums = PairSums(
            sums.ones + select(is_one, one, zero),
            sums.others + select(is_one, zero, pair.e),
            sums.other_ones + select(other_is_one, one, zero),
            sums.other_others + select(other_is_one, zero, pair.other_e),
            sums.change + change,
            select_max(sums.largest, size),
            sums.excluded + select(less(zero, excluded), one, zero),
        )
        prefetch(rows[0], c + classes)
        prefetch(rows[1], c + classes)
    return sums


@inline_jit
def term(pair, totals, r):
    """The terms of 16 classes."""
    zero, one = constant(pair.e, 0.0), constant(pair.e, 1.0)
    p, q, x = pair.e / totals[0], pair.other_e / totals[1], constant(pair.e, r) - pair.delta
    near = less(absolute(x), one)
    small = select(near, x, zero)
    series = p * (small * small * excess_series(0.0 - small))
    far = select(less(zero, pair.e), p * (x - 1.0) + q, q)
    return select(near, series, far)


@inline_jit
def row_divergence(rows, classes, peaks, scalars):
    """KL of one row; both largest logits are finite."""
    sums = pair_sums(rows, classes, peaks, scalars)
    if total_across(sums.excluded) > 0.0:
        return math.inf
    others = (total_across(sums.ones) - 1.0) + total_across(sums.others)
    model_others = (total_across(sums.other_ones) - 1.0) + total_across(sums.other_others)
    totals = 1.0 + others, 1.0 + model_others
    r = log1p(model_others, 0.0)[0] - log1p(others, 0.0)[0]
    if max_across(sums.largest) < 1.0:
        change = total_across(sums.change) / totals[0]
        size = change if change >= 0.0 else -change / (1.0 + change)
        r = math.copysign(log1p(size, 0.0)[0], change)
    total = constant(sums.ones, 0.0)
    for c in range(0, classes, LANES):
        found = term(pair_of(rows, classes, c, peaks, scalars), totals, r)
        total = total + select(lanes_below(classes - c), found, constant(found, 0.0))
    return total_across(total) + 0.0


@jit
def divergence_range(count, base, model, classes, scalars, results):
    """Some rows with contiguous classes."""
    for i in range(count):
        rows = row_pointer(base, i), row_pointer(model, i)
        first = peak_of_row(row_max(rows[0], classes), scalars, True)
        second = peak_of_row(row_max(rows[1], classes), scalars, True)
        limit = abs(first_lane(first.z)) + abs(first_lane(second.z))
        limit = limit / divisor(scalars)
        results[i] = math.nan
        if limit < math.inf:
            results[i] = row_divergence(rows, classes, (first, second), scalars)
