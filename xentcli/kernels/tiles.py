"""Short rows: 16 rows at a time, one in each lane, with any target and any option, in float64.

A row's fixed cost is 100 to 200 ns, which is 50 times the arithmetic of a row of two classes;
here 16 rows share it. The logits of 16 rows are gathered class by class, wherever the classes
lie in memory: side by side, or an image apart.

Numbers go from vector to vector, or through memory as whole vectors. 16 stores of one number
with a load of all 16 behind them let the processor wait until the last store is done: so a tile
of two classes took 540 ns, against 250 ns with gathers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.kernels.arithmetic import add, add_others, below, compiled, log1p
from xentcli.kernels.formulas import (
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
from xentcli.kernels.kinds import as_stored, doubles, filled, wide
from xentcli.kernels.memory import gather, load, moved, scatter, store
from xentcli.kernels.simd import (
    LANES,
    absolute,
    constant,
    equal,
    floor,
    lane_numbers,
    lanes_below,
    less,
    maximum,
    select,
    smaller,
)
from xentcli.kernels.sweeps import split
from xentcli.kernels.turning import classes_to_rows, rows_to_classes


class Lanes(NamedTuple):
    """Where 16 rows of a box are: the first, all, how many count, and what lies side by side."""

    first: Any
    offsets: Any
    count: Any
    rows_beside: Any  # one class of the 16 rows
    classes_beside: Any  # the classes of each row, which then can be turned


class Out(NamedTuple):
    """Where 16 rows of results go, and a tile for those that are turned."""

    box: Any
    lanes: Any
    tile: Any


@compiled
def lanes_of(box, row, end, nothing):
    """The lanes of up to 16 rows from `row` on."""
    count = min(LANES, end - row)
    o, i = split(box, row)
    lane = smaller(lane_numbers(nothing), constant(nothing, float(count - 1)))
    rows, classes, inner = box.shape
    over = floor((lane + (float(i) + 0.5)) / float(inner))  # how many outer ones further
    first = o * box.outer + i * box.beside
    inside = (lane - over * float(inner)) * float(box.beside)
    offsets = over * float(box.outer) + inside + float(first)
    rows_beside = box.beside == 1 and count == LANES and i + LANES <= inner
    classes_beside = box.step == 1 and count == LANES and inner == 1
    if classes < LANES:  # then 16 elements from a row's begin on must be there
        classes_beside &= box.outer == classes and row + 2 * LANES <= rows
    return Lanes(first, offsets, count, rows_beside, classes_beside)


@compiled
def take(box, lanes, c):
    """Class c of 16 rows."""
    if lanes.rows_beside:
        return load(box.data, lanes.first + c * box.step)
    return gather(box.data, lanes.offsets + float(c * box.step))


@compiled
def give(out, c, value):
    """Write class c of 16 rows; −0.0, which may come of rounding, becomes 0.0."""
    box, lanes, tile = out
    rounded = as_stored(box.data, value) + filled(box.data, 0.0)
    if lanes.classes_beside:
        store(tile, c * LANES, rounded)
    elif lanes.rows_beside:
        store(box.data, lanes.first + c * box.step, rounded)
    else:
        places = lanes.offsets + float(c * box.step)
        scatter(box.data, places, lanes_below(lanes.count), rounded)


@compiled
def turn_back(out, classes):
    """Write what `give` left in the tile."""
    box, lanes, tile = out
    if lanes.classes_beside:
        classes_to_rows(tile, classes, moved(box.data, lanes.first), box.outer)


@compiled
def give_at(out, which, value):
    """Write one class of each row."""
    box, lanes, _ = out
    rounded = as_stored(box.data, value) + filled(box.data, 0.0)
    places = lanes.offsets + which * float(box.step)
    scatter(box.data, places, lanes_below(lanes.count), rounded)


@compiled
def picked(tile, which):
    """One class of each row, from a tile."""
    return wide(gather(tile, which * float(LANES) + lane_numbers(which)))


@compiled
def mass_of(qs, weight, c, scalars, even):
    """a of class c in each lane, without what an index target adds."""
    w = filled(weight, weight[c])
    if qs is None:
        return mass(w, None, scalars, even)
    return mass(w, load(qs, c * LANES), scalars, even)


@compiled
def mass_picked(qs, weight, which, scalars, even):
    """The same for one class of each lane."""
    w = gather(weight, which)
    if qs is None:
        return mass(w, None, scalars, even)
    return mass(w, picked(qs, which), scalars, even)


@compiled
def fill_tile(box, lanes, classes, tile):
    """Copy 16 rows to where each class is a whole vector; the largest of each row."""
    peak = filled(tile, -math.inf)
    if lanes.classes_beside:
        rows_to_classes(moved(box.data, lanes.first), box.outer, classes, tile)
        for c in range(classes):
            peak = maximum(peak, load(tile, c * LANES))
        return peak
    for c in range(classes):
        x = as_stored(tile, take(box, lanes, c))
        store(tile, c * LANES, x)
        peak = maximum(peak, x)
    return peak


@compiled
def exponentials(xs, classes, peak, scalars, z):
    """Fill z; the largest score, and the sum of the others."""
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
def summarised(xs, qs, z, y, call, peak):
    """Losses, log-sum-exps, and what the gradients need."""
    weight, classes, scalars = call
    top, others = exponentials(xs, classes, peak, scalars, z)
    even = scalars.label_smoothing / classes
    nothing = constant(top, 0.0)
    at, hot, of_top, rest, distance = nothing, nothing, nothing, nothing, nothing
    top_is_target = less(nothing, nothing)
    if qs is not None or even > 0.0:
        at = places_of_one(z, classes)
        of_top = mass_picked(qs, weight, at, scalars, even)
        distance, high, low = spread(xs, qs, weight, classes, top, scalars, even)
        rest = (high - of_top) + low
    if qs is None:
        hot = gather(weight, y) * (1.0 - scalars.label_smoothing)
        gap, error = below(top, scored(picked(xs, y), scalars), divisor(scalars))
        distance = distance + (weighed(hot, gap) + weighed(hot, error))
        top_is_target = equal(picked(z, y), constant(top, 1.0))
        if even > 0.0:
            top_is_target = equal(at, y)
    masses = Masses(hot, of_top, rest, top_is_target)
    loss, lse, row = concluded(divided(top, divisor(scalars)), others, masses, distance, scalars)
    return loss, lse, (row, masses, at)


@compiled
def write(xs, qs, z, y, call, done, out):
    """The gradients of 16 rows; those of ignored rows are 0."""
    row, masses, at, scale, present = done
    weight, classes, scalars = call
    even = scalars.label_smoothing / classes
    per_mass, nothing = divided(scale, scalars.temperature), constant(scale, 0.0)
    per_e = row.b / (row.others + 1.0) * per_mass
    for c in range(classes):
        g = load(z, c * LANES) * per_e
        if qs is not None or even > 0.0:
            g = g - mass_of(qs, weight, c, scalars, even) * per_mass
        if scalars.softcap < math.inf:
            g = g * slope(wide(load(xs, c * LANES)), scalars)
        give(out, c, select(present, g, nothing))
    turn_back(out, classes)
    if qs is not None or even > 0.0:
        g = entry(picked(z, at), masses.of_top, equal(nothing, nothing), row)
        g = g * (per_mass * slope(picked(xs, at), scalars))
        give_at(out, at, select(present, g, nothing))
    if qs is None:
        a = mass_picked(None, weight, y, scalars, even) + masses.hot
        g = entry(picked(z, y), a, masses.top_is_target, row)
        g = g * (per_mass * slope(picked(xs, y), scalars))
        give_at(out, y, select(present, g, nothing))


@compiled
def softmax_tile(xs, classes, peak, scalars, log, z, out):
    """Probabilities of 16 rows, or their logarithms −d_c − log s."""
    top, others = exponentials(xs, classes, peak, scalars, z)
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
