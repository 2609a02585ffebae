"""Short rows: 16 rows at a time, one in each lane, with any target and any option, in float64.

A row's fixed cost is 100 to 200 ns, which is 50 times the arithmetic of a row of two classes;
here 16 rows share it. How they come into a tile, and out of it, is in `lanes`: turned round in
registers 64 classes take 12 ms where 16 gathers and scatters of one class each took 26.

Numbers go from vector to vector, or through memory as whole vectors. 16 stores of one number
with a load of all 16 behind them let the processor wait until the last store is done: so a tile
of two classes took 540 ns, and so rows are not put together in memory either.
"""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import add, add_others, below, compiled, log1p
from xentcli.backends.cpu.formulas import (
    Masses,
    concluded,
    divided,
    divisor,
    entry,
    exponential,
    mass,
    scored,
    slope,
    weighed,
)
from xentcli.backends.cpu.half_types import doubles, filled, wide
from xentcli.backends.cpu.load_store import load, store
from xentcli.backends.cpu.row_tiles import FEW, give, give_at, picked, turn_back, weight_of
from xentcli.backends.cpu.simd import LANES, absolute, constant, equal, less, select


@compiled
def mass_of(qs, weight, c, scalars, even):
    """a of class c in each lane, without what an index target adds."""
    w = filled(weight, weight[c])
    if qs is None:
        return mass(w, None, scalars, even)
    return mass(w, load(qs, c * LANES), scalars, even)


@compiled
def mass_picked(qs, call, which, even):
    """The same for one class of each lane."""
    weight, classes, scalars = call
    w = weight_of(weight, which, classes)
    if qs is None:
        return mass(w, None, scalars, even)
    return mass(w, picked(qs, which, classes), scalars, even)


@compiled
def exponentials(xs, call, peak, z):
    """Fill z; the largest score, and the sum of the others."""
    _, classes, scalars = call
    top = scored(wide(peak), scalars)
    one, nothing = constant(top, 1.0), constant(top, 0.0)
    sums = nothing, nothing, nothing
    for c in range(classes):
        score = scored(wide(load(xs, c * LANES)), scalars)
        e = exponential(score, top, scalars, doubles(xs))
        store(z, c * LANES, e)
        sums = add_others(sums, e, one)
    ones, high, low = sums
    return top, (ones - 1.0) + (high + low)


@compiled
def spread(xs, qs, weight, classes, top, scalars, even):
    """Σ a_c·d_c, and Σ a_c with its error."""
    nothing = constant(top, 0.0)
    sum_high, sum_low, far_high, far_low = nothing, nothing, nothing, nothing
    for c in range(classes):
        a = mass_of(qs, weight, c, scalars, even)
        gap, _ = below(top, scored(wide(load(xs, c * LANES)), scalars), divisor(scalars))
        far_high, far_low = add(far_high, far_low, weighed(a, gap))
        sum_high, sum_low = add(sum_high, sum_low, a)
    finite = less(far_high, constant(top, math.inf))
    return select(finite, far_high + far_low, far_high), sum_high, sum_low


@compiled
def places_of_one(z, classes):
    """The first class of each row whose e is 1."""
    at = constant(load(z, 0), 0.0)
    for k in range(classes):
        c = classes - 1 - k
        at = select(equal(load(z, c * LANES), constant(at, 1.0)), constant(at, float(c)), at)
    return at


@compiled
def summarised(xs, qs, z, y, call, known):
    """Losses, log-sum-exps, and what the gradients need."""
    weight, classes, scalars = call
    top, others = known
    even = scalars.label_smoothing / classes
    nothing = constant(top, 0.0)
    at, hot, of_top, rest, distance = nothing, nothing, nothing, nothing, nothing
    top_is_target = less(nothing, nothing)
    if qs is not None or even > 0.0:
        at = places_of_one(z, classes)
        of_top = mass_picked(qs, call, at, even)
        distance, high, low = spread(xs, qs, weight, classes, top, scalars, even)
        rest = (high - of_top) + low
    if qs is None:
        hot = weight_of(weight, y, classes) * (1.0 - scalars.label_smoothing)
        gap, error = below(top, scored(picked(xs, y, classes), scalars), divisor(scalars))
        distance = distance + (weighed(hot, gap) + weighed(hot, error))
        top_is_target = equal(picked(z, y, classes), constant(top, 1.0))
        if even > 0.0:
            top_is_target = equal(at, y)
    masses = Masses(hot, of_top, rest, top_is_target)
    loss, lse, row = concluded(divided(top, divisor(scalars)), others, masses, distance, scalars)
    return loss, lse, (row, masses, at)


@compiled
def single_entries(xs, qs, z, y, call, done, per_mass):
    """The gradients of the largest logit and of the target of each row."""
    row, masses, at, _, _ = done
    _, classes, scalars = call
    even = scalars.label_smoothing / classes
    of_top, of_target = constant(at, 0.0), constant(at, 0.0)
    if qs is not None or even > 0.0:
        of_top = entry(picked(z, at, classes), masses.of_top, equal(of_top, of_top), row)
        of_top = of_top * (per_mass * slope(picked(xs, at, classes), scalars))
    if qs is None:
        a = masses.hot
        if even > 0.0:
            a = mass_picked(None, call, y, even) + a
        of_target = entry(picked(z, y, classes), a, masses.top_is_target, row)
        of_target = of_target * (per_mass * slope(picked(xs, y, classes), scalars))
    return of_top, of_target


@compiled
def write(xs, qs, z, y, call, done, out):
    """The gradients of 16 rows; those of ignored rows are 0."""
    row, _, at, scale, present = done
    weight, classes, scalars = call
    even = scalars.label_smoothing / classes
    per_mass, nothing = divided(scale, scalars.temperature), constant(scale, 0.0)
    per_e = row.b / (row.others + 1.0) * per_mass
    of_top, of_target = single_entries(xs, qs, z, y, call, done, per_mass)
    of_top, of_target = select(present, of_top, nothing), select(present, of_target, nothing)
    for c in range(classes):
        g = load(z, c * LANES) * per_e
        if qs is not None or even > 0.0:
            g = g - mass_of(qs, weight, c, scalars, even) * per_mass
        if scalars.softcap < math.inf:
            g = g * slope(wide(load(xs, c * LANES)), scalars)
        g = select(present, g, nothing)
        if classes <= FEW:
            here = constant(y, float(c))
            if qs is not None or even > 0.0:
                g = select(equal(at, here), of_top, g)
            if qs is None:
                g = select(equal(y, here), of_target, g)
        give(out, c, g)
    turn_back(out, classes)
    if classes > FEW:
        if qs is not None or even > 0.0:
            give_at(out, at, of_top)
        if qs is None:
            give_at(out, y, of_target)


@compiled
def softmax_tile(xs, classes, peak, scalars, log, z, out):
    """Probabilities of 16 rows, or their logarithms −d_c − log s."""
    top, others = exponentials(xs, (None, classes, scalars), peak, z)
    limit = top / divisor(scalars)
    finite = less(absolute(limit), constant(limit, math.inf))
    log_s = log1p(others)
    for c in range(classes):
        value = load(z, c * LANES) / (others + 1.0)
        if log:
            score = scored(wide(load(xs, c * LANES)), scalars)
            gap, error = below(top, score, divisor(scalars))
            value = 0.0 - (gap + (error + log_s))
        give(out, c, select(finite, value, constant(value, math.nan)))
    turn_back(out, classes)
