"""What is done with a whole row of numbers: read or write to its end, one place, largest, sum."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from xentcli.backends.cpu.arithmetic import add, compiled
from xentcli.backends.cpu.half_types import as_stored, filled, size_of
from xentcli.backends.cpu.load_store import (
    address,
    load,
    load_one,
    load_some,
    moved,
    pointer,
    store,
    store_one,
    store_some,
)
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    first,
    lane_numbers,
    lanes_below,
    maximum,
    rotated,
    select,
    splat,
)


@compiled
def get(array, classes, c, other):
    """16 numbers from place c on; `other` beyond the end."""
    if c + LANES <= classes:
        return load(array, c)
    inside = lanes_below(classes - c)
    return select(inside, load_some(array, c, inside), filled(array, other))


@compiled
def put(array, classes, c, value):
    """Write 16 numbers, or those up to the end."""
    if c + LANES <= classes:
        store(array, c, value)
    else:
        store_some(array, c, lanes_below(classes - c), value)


@compiled
def one(array, c):
    """The number at a place, as float64."""
    return np.float64(first(load_one(array, c)))


@compiled
def put_one(array, c, value):
    """Write a float64 to a place; −0.0, which may come of rounding, becomes 0.0."""
    rounded = as_stored(array, splat(value)) + filled(array, 0.0)
    store_one(array, c, rounded)


@compiled
def placed(array, values, lane, number):
    """16 numbers for an array, of which one, if there is such a lane, is another number."""
    rounded = as_stored(array, splat(number)) + filled(array, 0.0)
    return select(equal(lane_numbers(values), constant(values, float(lane))), rounded, values)


@compiled
def across(a):
    """The largest of 16 numbers, as float64; NaN if there is one."""
    a = maximum(a, rotated(a, 8))
    a = maximum(a, rotated(a, 4))
    a = maximum(a, rotated(a, 2))
    return np.float64(first(maximum(a, rotated(a, 1))))


@compiled
def largest(x, classes):
    """The largest number of a row; NaN if there is one."""
    a = filled(x, -math.inf)
    b, c, d = a, a, a  # four chains: a maximum waits several cycles for the one before
    body = classes - classes % (4 * LANES)
    for i in range(0, body, 4 * LANES):
        a = maximum(a, load(x, i))
        b = maximum(b, load(x, i + LANES))
        c = maximum(c, load(x, i + 2 * LANES))
        d = maximum(d, load(x, i + 3 * LANES))
    for i in range(body, classes, LANES):
        a = maximum(a, get(x, classes, i, -math.inf))
    return across(maximum(maximum(a, b), maximum(c, d)))


@compiled
def total(high, low):
    """The sum of 16 sums with their errors."""
    high, low = add(high, low + rotated(low, 8), rotated(high, 8))
    high, low = add(high, low + rotated(low, 4), rotated(high, 4))
    high, low = add(high, low + rotated(low, 2), rotated(high, 2))
    high, low = add(high, low + rotated(low, 1), rotated(high, 1))
    return first(high), first(low)


@compiled
def others_of(sums):
    """The sum of all exponentials but the largest, from what `add_others` gave in 16 lanes."""
    ones, _ = total(sums[0], constant(sums[0], 0.0))
    high, low = total(sums[1], sums[2])
    return (ones - 1.0) + (high + low)


@compiled
def place_of_one(z, classes):
    """The first class whose e is 1."""
    for c in range(classes):
        if z[c] == 1.0:
            return c
    return 0


@compiled
def fill(array, classes, value):
    """The same number in the whole row."""
    for c in range(0, classes, LANES):
        put(array, classes, c, filled(array, value))


@compiled
def row_of(array, i):
    """Where row i of an array (n, C, 1) begins."""
    return pointer(array, i * (array.strides[0] // array.itemsize))


class Box(NamedTuple):
    """Where the rows of an array (outer, C, inner) are, in elements."""

    data: Any
    outer: Any
    step: Any  # from a class to the next
    beside: Any
    shape: Any


@compiled
def box_of(array):
    """The geometry of an array."""
    size = array.itemsize
    outer, step, beside = array.strides
    return Box(pointer(array, 0), outer // size, step // size, beside // size, array.shape)


@compiled
def split(box, row):
    """The place (o, i) of a row among the outer and the inner ones."""
    return row // box.shape[2], row % box.shape[2]


@compiled
def place(box, o, i):
    """Where row (o, i) begins."""
    return moved(box.data, o * box.outer + i * box.beside)


@compiled
def to_line(place):
    """How many elements there are up to where a vector may be streamed: fewer than 16."""
    return (-address(place) % min(64, LANES * size_of(place))) // size_of(place)


@compiled
def lined_up(buffer):
    """Where a buffer's first whole line begins."""
    start = pointer(buffer, 0)
    return moved(start, (-address(start) % 64) // size_of(start))


@compiled
def skip(targets, results, grad):
    """What rows get that are ignored: loss 0, log-sum-exp NaN, gradient 0."""
    for i in range(len(targets)):
        if targets[i] < 0:
            results[0, i], results[1, i] = 0.0, math.nan
            if grad is not None:
                fill(row_of(grad, i), grad.shape[1], 0.0)
