"""Short rows: 16 rows at a time, one per lane, with any target and any option, in float64.

The fixed cost of a row is 100 to 200 ns, 50 times the arithmetic of a row of two classes; here 16
rows share it. `row_tiles` loads and stores the tiles.

Numbers stay in vectors, or go through memory as whole vectors. After 16 stores of single numbers a
load of all 16 has to wait for the last store: a tile of two classes took 540 ns that way.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import (
    add,
    add_wide,
    add_wide_exponential,
    any_lane,
    inline_jit,
)
from xentcli.backends.cpu.exponential import ONE, SLOPE_ONE, exp_of_gap
from xentcli.backends.cpu.formulas import (
    Masses,
    divisor,
    finish_row,
    finite_or_zero,
    gap_below,
    hot_gap,
    largest,
    log_of_sum,
    log_probability,
    mass,
    mass_times_gap,
    peak_of,
    total_of,
)
from xentcli.backends.cpu.gradient_formulas import (
    entries,
    entries_with_masses,
    entry_of_target,
    entry_with_mass,
    probability_factors,
    row_factors,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for, is_float64
from xentcli.backends.cpu.load_store import advance, load, store
from xentcli.backends.cpu.row_tiles import (
    COMPARE_UP_TO,
    pick,
    pick_weight,
    store_class,
    store_class_of_each_row,
    store_tile,
)
from xentcli.backends.cpu.simd import LANES, absolute, constant, equal, less, select
from xentcli.backends.cpu.softcap import times_slope


@inline_jit
def mass_of_class(qs, weight, c, scalars, uniform):
    """a of class c of each row, without the one-hot part of an index target."""
    w = constant_for(weight, weight[c])
    if qs is None:
        return mass(w, None, scalars, uniform)
    return mass(w, load(qs, c * LANES), scalars, uniform)


@inline_jit
def picked_mass(qs, setup, which, uniform):
    """a of one class of each row, without the one-hot part."""
    weight, classes, scalars = setup
    w = pick_weight(weight, which, classes)
    if qs is None:
        return mass(w, None, scalars, uniform)
    return mass(w, pick(qs, which, classes), scalars, uniform)


class TileSums(NamedTuple):
    """The largest logit of each row, and the sum of its other exponentials in two words."""

    max_x: Any  # and no `Peak`: the loop over tiles would carry all of it from one to the next
    others: Any
    others_low: Any


@inline_jit
def tile_buffers(exps, classes):
    """Three buffers one after the other: exponentials, and where they are needed slopes, gaps."""
    size = tile_size(classes)
    return exps, advance(exps, size), advance(exps, 2 * size)


@inline_jit
def tile_size(classes):
    """How many numbers a tile takes."""
    return max(classes, LANES) * LANES


@inline_jit
def tile_exponentials(xs, setup, peak, exps, keep_gaps):
    """Store the exponentials, slopes with a softcap, and gaps where they are to be kept."""
    _, classes, scalars = setup
    exps, slopes, gaps = tile_buffers(exps, classes)
    exact = is_float64(xs)
    max_x = as_float64(peak)
    peak = peak_of(max_x, scalars, exact)
    one, zero = constant(max_x, ONE), constant(max_x, 0.0)
    sums = zero, zero, zero
    for c in range(classes):
        logits = as_float64(load(xs, c * LANES))
        gap, error, slope = gap_below(peak, logits, scalars, exact)
        e, lost = exp_of_gap(gap, error, exact)
        store(exps, c * LANES, e)
        if scalars.softcap < math.inf:
            store(slopes, c * LANES, slope)
        if keep_gaps:
            store(gaps, c * LANES, gap + error)
        sums = add_wide_exponential(sums, e, one, exact)
        if exact:
            sums = sums[0], sums[1], sums[2] + lost
    ones, high, low = sums
    others, others_low = total_of(ones, high, low, exact)
    return TileSums(max_x, others, others_low)


@inline_jit
def mass_sums(qs, setup, gaps, uniform, exact):
    """Σ a_c·d_c, and Σ a_c with its error."""
    weight, classes, scalars = setup
    zero = constant(load(gaps, 0), 0.0)
    sum_high, sum_low, gap_high, gap_low = zero, zero, zero, zero
    for c in range(classes):
        a = mass_of_class(qs, weight, c, scalars, uniform)
        product = mass_times_gap(a, load(gaps, c * LANES))
        gap_high, gap_low = add_wide(gap_high, gap_low, product, exact)
        sum_high, sum_low = add(sum_high, sum_low, a)
    return gap_high + finite_or_zero(gap_low, gap_high), sum_high, sum_low


@inline_jit
def first_maxima(exps, classes):
    """The first class of each row whose exponential is that of 0."""
    argmax = constant(load(exps, 0), 0.0)
    for k in range(classes):
        c = classes - 1 - k
        argmax = select(
            equal(load(exps, c * LANES), constant(argmax, ONE)), constant(argmax, float(c)), argmax
        )
    return argmax


@inline_jit
def losses_and_sums(xs, qs, exps, y, setup, tile):
    """Losses, log-sum-exps, and what the gradients need beside the exponentials."""
    weight, classes, scalars = setup
    exps, _, gaps = tile_buffers(exps, classes)
    exact = is_float64(xs)
    uniform = scalars.label_smoothing / classes
    zero, peak = constant(tile.others, 0.0), peak_of(tile.max_x, scalars, exact)
    argmax, hot, of_max, rest, all_gaps = zero, zero, zero, zero, zero
    max_is_target = less(zero, zero)
    if qs is not None or uniform > 0.0:
        argmax = first_maxima(exps, classes)
        of_max = picked_mass(qs, setup, argmax, uniform)
        all_gaps, high, low = mass_sums(qs, setup, gaps, uniform, exact)
        rest = (high - of_max) + low
    distance = all_gaps, zero
    if qs is None:
        hot = pick_weight(weight, y, classes) * (1.0 - scalars.label_smoothing)
        gap, error, _ = gap_below(peak, pick(xs, y, classes), scalars, exact)
        distance = hot_gap(hot, gap, error, exact)
        if uniform > 0.0:
            distance = distance[0] + all_gaps, distance[1]
        max_is_target = equal(pick(exps, y, classes), constant(hot, ONE))
        if uniform > 0.0:
            max_is_target = equal(argmax, y)
    masses = Masses(hot, of_max, rest, max_is_target)
    limit = largest(peak.z, peak.z_low, scalars, exact)
    others = tile.others, tile.others_low
    loss, lse, row = finish_row(limit, others, masses, distance, scalars, exact)
    return loss, lse, (row, masses, argmax)


@inline_jit
def special_entries(qs, exps, y, setup, sums, factors, exact):
    """The gradient entries of the largest logit and of the target of each row."""
    row, masses, argmax = sums
    _, classes, scalars = setup
    exps, slopes, _ = tile_buffers(exps, classes)
    uniform = scalars.label_smoothing / classes
    of_max, of_target = constant(argmax, 0.0), constant(argmax, 0.0)
    slope, slope_of_max = constant(argmax, SLOPE_ONE), constant(argmax, SLOPE_ONE)
    if scalars.softcap < math.inf:
        slope, slope_of_max = pick(slopes, y, classes), pick(slopes, argmax, classes)
    if qs is not None or uniform > 0.0:
        e, always = pick(exps, argmax, classes), equal(argmax, argmax)
        of_max = entry_with_mass(e, masses.of_max, always, row, factors, slope_of_max, exact)
    if qs is None:
        e, is_max = pick(exps, y, classes), masses.max_is_target
        if uniform > 0.0 or scalars.z_loss > 0.0:
            a = picked_mass(None, setup, y, uniform) + masses.hot
            of_target = entry_with_mass(e, a, is_max, row, factors, slope, exact)
        else:
            of_target = entry_of_target(e, is_max, row, factors, slope, exact)
    return of_max, of_target


@inline_jit
def write_gradients(xs, qs, exps, y, setup, parts, out):
    """The gradients of 16 rows; those of ignored rows are 0."""
    row, sums, argmax, scale, not_ignored = parts
    _, classes, scalars = setup
    exps, slopes, _ = tile_buffers(exps, classes)
    exact = is_float64(xs)
    uniform = scalars.label_smoothing / classes
    zero = constant(scale, 0.0)
    masses = qs is not None or uniform > 0.0
    factors = row_factors(row, scale, scalars, masses, exact)
    found = row, sums, argmax
    of_max, of_target = special_entries(qs, exps, y, setup, found, factors, exact)
    of_max, of_target = select(not_ignored, of_max, zero), select(not_ignored, of_target, zero)
    if scalars.softcap == math.inf:
        multiply_rows(exps, classes, factors.before)
    for c in range(classes):
        g = class_entries(qs, setup, factors, (exps, slopes), c, exact)
        g = select(not_ignored, g, zero)
        if classes <= COMPARE_UP_TO:
            if qs is not None or uniform > 0.0:
                g = select(equal(argmax, constant(y, float(c))), of_max, g)
            g = with_target(g, qs, y, c, of_target)
        store_class(out, c, g)
    store_tile(out, classes)
    if classes > COMPARE_UP_TO:
        if qs is not None or uniform > 0.0:
            store_class_of_each_row(out, argmax, of_max)
        if qs is None:
            store_class_of_each_row(out, y, of_target)


@inline_jit
def class_entries(qs, setup, factors, buffers, c, exact):
    """The entries of class c, without the one-hot part of an index target."""
    weight, classes, scalars = setup
    uniform = scalars.label_smoothing / classes
    e, slope = load(buffers[0], c * LANES), constant(factors.high, SLOPE_ONE)
    if scalars.softcap < math.inf:
        slope = load(buffers[1], c * LANES)
        e = times_slope(e, slope) * factors.before
    if qs is None and not uniform > 0.0:
        g = entries(e, factors, exact)
        return g * factors.unit if scalars.z_loss > 0.0 else g
    pull = mass_of_class(qs, weight, c, scalars, uniform) * factors.per_mass
    if scalars.softcap < math.inf:
        pull = times_slope(pull, slope)
    return entries_with_masses(e, pull, factors, exact)


@inline_jit
def with_target(g, qs, y, c, of_target):
    """Entries of class c, with that of the target in the rows whose target it is."""
    if qs is None:
        return select(equal(y, constant(y, float(c))), of_target, g)
    return g


@inline_jit
def multiply_rows(exps, classes, factor):
    """Multiply each row of a tile by its own factor, unless all of these are 1."""
    if any_lane(less(constant(factor, 0.0), absolute(factor - 1.0))):
        for c in range(classes):
            store(exps, c * LANES, load(exps, c * LANES) * factor)


@inline_jit
def softmax_tile(xs, classes, peak, scalars, log, exps, out):
    """Probabilities of 16 rows, or their logarithms −d_c − log s."""
    exact = is_float64(xs)
    tile = tile_exponentials(xs, (None, classes, scalars), peak, exps, False)
    peak = peak_of(tile.max_x, scalars, exact)
    limit = peak.z / divisor(scalars)
    finite = less(absolute(limit), constant(limit, math.inf))
    log_s, log_s_low, unit = log_of_sum(tile.others, tile.others_low, exact)
    log_s, log_s_low = log_s * unit, log_s_low * unit
    factors = probability_factors(tile.others, tile.others_low, exact)
    for c in range(classes):
        if log:
            logits = as_float64(load(xs, c * LANES))
            gap, error, _ = gap_below(peak, logits, scalars, exact)
            value = log_probability(gap, error, log_s, log_s_low, exact)
        else:
            value = entries(load(exps, c * LANES), factors, exact)
        store_class(out, c, select(finite, value, constant(value, math.nan)))
    store_tile(out, classes)
