"""Short rows: 16 rows at a time, one per lane, with any target and any option, in float64.

The fixed cost of a row is 100 to 200 ns, 50 times the arithmetic of a row of two classes; here 16
rows share it. `row_tiles` loads and stores the tiles.

Numbers stay in vectors, or go through memory as whole vectors. After 16 stores of single numbers a
load of all 16 has to wait for the last store: a tile of two classes took 540 ns that way.
"""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import add, add_exponential, inline_jit, log1p, scaled_gap
from xentcli.backends.cpu.formulas import (
    Masses,
    divide,
    divisor,
    exponential,
    finish_row,
    gradient_entry,
    mass,
    mass_times_gap,
    scaled_logit,
    slope,
)
from xentcli.backends.cpu.half_types import as_float64, constant_for, is_float64
from xentcli.backends.cpu.load_store import load, store
from xentcli.backends.cpu.row_tiles import (
    COMPARE_UP_TO,
    pick,
    pick_weight,
    store_class,
    store_class_of_each_row,
    store_tile,
)
from xentcli.backends.cpu.simd import LANES, absolute, constant, equal, less, select


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


@inline_jit
def tile_exponentials(xs, setup, peak, exps):
    """Store the exponentials; the largest z of each row, and the sum of its other exponentials."""
    _, classes, scalars = setup
    max_z = scaled_logit(as_float64(peak), scalars)
    one, zero = constant(max_z, 1.0), constant(max_z, 0.0)
    sums = zero, zero, zero
    for c in range(classes):
        z = scaled_logit(as_float64(load(xs, c * LANES)), scalars)
        e = exponential(z, max_z, scalars, is_float64(xs))
        store(exps, c * LANES, e)
        sums = add_exponential(sums, e, one)
    ones, high, low = sums
    return max_z, (ones - 1.0) + (high + low)


@inline_jit
def mass_sums(xs, qs, weight, classes, max_z, scalars, uniform):
    """Σ a_c·d_c, and Σ a_c with its error."""
    zero = constant(max_z, 0.0)
    sum_high, sum_low, gap_high, gap_low = zero, zero, zero, zero
    for c in range(classes):
        a = mass_of_class(qs, weight, c, scalars, uniform)
        gap, _ = scaled_gap(
            max_z, scaled_logit(as_float64(load(xs, c * LANES)), scalars), divisor(scalars)
        )
        gap_high, gap_low = add(gap_high, gap_low, mass_times_gap(a, gap))
        sum_high, sum_low = add(sum_high, sum_low, a)
    finite = less(gap_high, constant(max_z, math.inf))
    return select(finite, gap_high + gap_low, gap_high), sum_high, sum_low


@inline_jit
def first_maxima(exps, classes):
    """The first class of each row whose exponential is 1."""
    argmax = constant(load(exps, 0), 0.0)
    for k in range(classes):
        c = classes - 1 - k
        argmax = select(
            equal(load(exps, c * LANES), constant(argmax, 1.0)), constant(argmax, float(c)), argmax
        )
    return argmax


@inline_jit
def losses_and_factors(xs, qs, exps, y, setup, max_and_others):
    """Losses, log-sum-exps, and what the gradients need beside the exponentials."""
    weight, classes, scalars = setup
    max_z, others = max_and_others
    uniform = scalars.label_smoothing / classes
    zero = constant(max_z, 0.0)
    argmax, hot, of_max, rest, distance = zero, zero, zero, zero, zero
    max_is_target = less(zero, zero)
    if qs is not None or uniform > 0.0:
        argmax = first_maxima(exps, classes)
        of_max = picked_mass(qs, setup, argmax, uniform)
        distance, high, low = mass_sums(xs, qs, weight, classes, max_z, scalars, uniform)
        rest = (high - of_max) + low
    if qs is None:
        hot = pick_weight(weight, y, classes) * (1.0 - scalars.label_smoothing)
        gap, error = scaled_gap(
            max_z, scaled_logit(pick(xs, y, classes), scalars), divisor(scalars)
        )
        distance = distance + (mass_times_gap(hot, gap) + mass_times_gap(hot, error))
        max_is_target = equal(pick(exps, y, classes), constant(max_z, 1.0))
        if uniform > 0.0:
            max_is_target = equal(argmax, y)
    masses = Masses(hot, of_max, rest, max_is_target)
    loss, lse, row = finish_row(divide(max_z, divisor(scalars)), others, masses, distance, scalars)
    return loss, lse, (row, masses, argmax)


@inline_jit
def special_entries(xs, qs, exps, y, setup, factors, per_mass):
    """The gradient entries of the largest logit and of the target of each row."""
    row, masses, argmax, _, _ = factors
    _, classes, scalars = setup
    uniform = scalars.label_smoothing / classes
    of_max, of_target = constant(argmax, 0.0), constant(argmax, 0.0)
    if qs is not None or uniform > 0.0:
        of_max = gradient_entry(
            pick(exps, argmax, classes), masses.of_max, equal(of_max, of_max), row
        )
        of_max = of_max * (per_mass * slope(pick(xs, argmax, classes), scalars))
    if qs is None:
        a = masses.hot
        if uniform > 0.0:
            a = picked_mass(None, setup, y, uniform) + a
        of_target = gradient_entry(pick(exps, y, classes), a, masses.max_is_target, row)
        of_target = of_target * (per_mass * slope(pick(xs, y, classes), scalars))
    return of_max, of_target


@inline_jit
def write_gradients(xs, qs, exps, y, setup, factors, out):
    """The gradients of 16 rows; those of ignored rows are 0."""
    row, _, argmax, scale, not_ignored = factors
    weight, classes, scalars = setup
    uniform = scalars.label_smoothing / classes
    per_mass, zero = divide(scale, scalars.temperature), constant(scale, 0.0)
    per_e = row.b / (row.others + 1.0) * per_mass
    of_max, of_target = special_entries(xs, qs, exps, y, setup, factors, per_mass)
    of_max, of_target = select(not_ignored, of_max, zero), select(not_ignored, of_target, zero)
    for c in range(classes):
        g = load(exps, c * LANES) * per_e
        if qs is not None or uniform > 0.0:
            g = g - mass_of_class(qs, weight, c, scalars, uniform) * per_mass
        if scalars.softcap < math.inf:
            g = g * slope(as_float64(load(xs, c * LANES)), scalars)
        g = select(not_ignored, g, zero)
        if classes <= COMPARE_UP_TO:
            here = constant(y, float(c))
            if qs is not None or uniform > 0.0:
                g = select(equal(argmax, here), of_max, g)
            if qs is None:
                g = select(equal(y, here), of_target, g)
        store_class(out, c, g)
    store_tile(out, classes)
    if classes > COMPARE_UP_TO:
        if qs is not None or uniform > 0.0:
            store_class_of_each_row(out, argmax, of_max)
        if qs is None:
            store_class_of_each_row(out, y, of_target)


@inline_jit
def softmax_tile(xs, classes, peak, scalars, log, exps, out):
    """Probabilities of 16 rows, or their logarithms −d_c − log s."""
    max_z, others = tile_exponentials(xs, (None, classes, scalars), peak, exps)
    limit = max_z / divisor(scalars)
    finite = less(absolute(limit), constant(limit, math.inf))
    log_s = log1p(others)
    for c in range(classes):
        value = load(exps, c * LANES) / (others + 1.0)
        if log:
            z = scaled_logit(as_float64(load(xs, c * LANES)), scalars)
            gap, error = scaled_gap(max_z, z, divisor(scalars))
            value = 0.0 - (gap + (error + log_s))
        store_class(out, c, select(finite, value, constant(value, math.nan)))
    store_tile(out, classes)
