"""What is done with a whole row of numbers: read or write to its end, largest, sum."""

from __future__ import annotations

import math

import numpy as np

from xentcli.kernels.arithmetic import add, compiled
from xentcli.kernels.memory import load, load_some, store, store_some
from xentcli.kernels.simd import LANES, filled, first, lanes_below, maximum, rotated


@compiled
def get(array, classes, c, other):
    """16 numbers from place c on; `other` beyond the end."""
    if c + LANES <= classes:
        return load(array, c)
    return load_some(array, c, lanes_below(classes - c), filled(array, other))


@compiled
def put(array, classes, c, value):
    """Write 16 numbers, or those up to the end."""
    if c + LANES <= classes:
        store(array, c, value)
    else:
        store_some(array, c, lanes_below(classes - c), value)


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
    a = maximum(maximum(a, b), maximum(c, d))
    a = maximum(a, rotated(a, 8))
    a = maximum(a, rotated(a, 4))
    a = maximum(a, rotated(a, 2))
    return np.float64(first(maximum(a, rotated(a, 1))))


@compiled
def total(high, low):
    """The sum of 16 sums with their errors."""
    high, low = add(high, low + rotated(low, 8), rotated(high, 8))
    high, low = add(high, low + rotated(low, 4), rotated(high, 4))
    high, low = add(high, low + rotated(low, 2), rotated(high, 2))
    high, low = add(high, low + rotated(low, 1), rotated(high, 1))
    return first(high), first(low)


@compiled
def place_of_one(z, classes):
    """The first class whose e is 1."""
    for c in range(classes):
        if z[c] == 1.0:
            return c
    return 0


@compiled
def fill(grad, classes, value):
    """The same number in the whole row."""
    for c in range(0, classes, LANES):
        put(grad, classes, c, filled(grad, value))
