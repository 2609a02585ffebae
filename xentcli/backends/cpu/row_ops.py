"""Operations on one row: padded loads and stores, single elements, maximum, sum, addresses."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from xentcli.backends.cpu.arithmetic import JIT_OPTIONS, add, any_lane, inline_jit
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, itemsize
from xentcli.backends.cpu.load_store import (
    address,
    advance,
    load,
    load_element,
    load_masked,
    pointer,
    prefetch,
    store,
    store_element,
    store_masked,
)
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    first_lane,
    lane_indices,
    lanes_below,
    maximum,
    rotate,
    select,
    select_max,
    splat,
)

INLINE_OPTIONS: Any = {**JIT_OPTIONS, "forceinline": True}


@inline_jit
def load_padded(array, classes, c, other):
    """16 elements from index c on; `other` beyond the end of the row."""
    if c + LANES <= classes:
        return load(array, c)
    inside = lanes_below(classes - c)
    return select(inside, load_masked(array, c, inside), constant_for(array, other))


@inline_jit
def store_padded(array, classes, c, value):
    """Write 16 elements, or those up to the end of the row."""
    if c + LANES <= classes:
        store(array, c, value)
    else:
        store_masked(array, c, lanes_below(classes - c), value)


@inline_jit
def element(array, c):
    """One element as float64."""
    return np.float64(first_lane(load_element(array, c)))


@inline_jit
def store_float(array, c, value):
    """Write a float64 to one element; −0.0, which rounding may give, becomes 0.0."""
    rounded = cast_for(array, splat(value)) + constant_for(array, 0.0)
    store_element(array, c, rounded)


@inline_jit
def with_lane(array, values, lane, number):
    """16 elements for an array, with a number in one lane, if there is such a lane."""
    rounded = cast_for(array, splat(number)) + constant_for(array, 0.0)
    return select(equal(lane_indices(values), constant(values, float(lane))), rounded, values)


@inline_jit
def prefetch_line(x, c):
    """Prefetch 16 numbers, which are two lines of memory in float64."""
    prefetch(x, c)
    if itemsize(x) == 8:
        prefetch(x, c + LANES // 2)


@inline_jit
def max_across(a):
    """The largest of 16 numbers as float64; NaN if any is NaN."""
    a = maximum(a, rotate(a, 8))
    a = maximum(a, rotate(a, 4))
    a = maximum(a, rotate(a, 2))
    return np.float64(first_lane(maximum(a, rotate(a, 1))))


@inline_jit
def row_max(x, classes):
    """The largest number of a row; NaN if any is NaN."""
    a = constant_for(x, -math.inf)
    b, c, d = a, a, a  # four chains: a maximum takes several cycles
    body = classes - classes % (4 * LANES)
    for i in range(0, body, 4 * LANES):
        a = maximum(a, load(x, i))
        b = maximum(b, load(x, i + LANES))
        c = maximum(c, load(x, i + 2 * LANES))
        d = maximum(d, load(x, i + 3 * LANES))
    for i in range(body, classes, LANES):
        a = maximum(a, load_padded(x, classes, i, -math.inf))
    return max_across(maximum(maximum(a, b), maximum(c, d)))


@inline_jit
def sum_across(high, low):
    """The sum of 16 sums that carry their errors, and its error."""
    high, low = add(high, low + rotate(low, 8), rotate(high, 8))
    high, low = add(high, low + rotate(low, 4), rotate(high, 4))
    high, low = add(high, low + rotate(low, 2), rotate(high, 2))
    high, low = add(high, low + rotate(low, 1), rotate(high, 1))
    return first_lane(high), first_lane(low)


@inline_jit
def sums_across(sums):
    """The sum of the largest exponentials, and that of all others with its error, from the 16
    lanes of `add_exponential`."""
    ones, _ = sum_across(sums[0], constant(sums[0], 0.0))
    high, low = sum_across(sums[1], sums[2])
    return ones, high, low


@inline_jit
def total_across(a):
    """The sum of 16 numbers in float64, without its rounding errors: for float32 or counts."""
    a = as_float64(a)
    a = a + rotate(a, 8)
    a = a + rotate(a, 4)
    a = a + rotate(a, 2)
    return first_lane(a + rotate(a, 1))


@inline_jit
def largest_lane(a):
    """The largest of 16 numbers as float64, of which none is NaN."""
    a = select_max(a, rotate(a, 8))
    a = select_max(a, rotate(a, 4))
    a = select_max(a, rotate(a, 2))
    return np.float64(first_lane(select_max(a, rotate(a, 1))))


@inline_jit
def index_of(x, classes, value):
    """The first class whose number in a row is this one; 0 if there is none."""
    wanted = constant_for(x, value)
    for c in range(0, classes, LANES):
        if any_lane(equal(load_padded(x, classes, c, math.nan), wanted)):
            while element(x, c) != value:
                c += 1
            return c
    return 0


@inline_jit
def multiply(array, classes, factor):
    """Multiply 16 numbers at a time, from the first to those of the last class."""
    for c in range(0, classes, LANES):
        store(array, c, load(array, c) * constant_for(array, factor))


@inline_jit
def fill(array, classes, value):
    """Set a whole row to one number."""
    for c in range(0, classes, LANES):
        store_padded(array, classes, c, constant_for(array, value))


class PerRow(NamedTuple):
    """What each row has besides its classes, as pointers to float64."""

    scale: Any
    scale_step: Any  # 0: one scale for all rows
    losses: Any
    lses: Any


@inline_jit
def row_pointer(rows, i):
    """A pointer to row i of a box whose inner axis has length 1."""
    return advance(rows.data, i * rows.outer_stride)


def row_or_none(rows: Any, i: Any) -> Any:
    """A pointer to row i, or None where there are no such rows."""
    raise NotImplementedError  # compiled code takes `_row_or_none`


@overload(row_or_none, jit_options=INLINE_OPTIONS)
def _row_or_none(rows, i):
    if isinstance(rows, types.NoneType):
        return lambda rows, i: None
    return lambda rows, i: row_pointer(rows, i)


@inline_jit
def per_row_from(per_row, first):
    """The same from a row on."""
    scale, step, losses, lses = per_row
    return PerRow(advance(scale, first * step), step, advance(losses, first), advance(lses, first))


class BoxView(NamedTuple):
    """An array (outer, C, inner): its pointer, its strides in elements, its shape."""

    data: Any
    outer_stride: Any
    class_stride: Any
    inner_stride: Any
    shape: Any


@inline_jit
def view_of(array):
    """An array as pointer, strides and shape."""
    size = array.itemsize
    outer, step, inner = array.strides
    return BoxView(pointer(array, 0), outer // size, step // size, inner // size, array.shape)


@inline_jit
def outer_and_inner(box, row):
    """The indices (o, i) of a row along the outer and the inner axis."""
    return row // box.shape[2], row % box.shape[2]


@inline_jit
def row_start(box, o, i):
    """A pointer to row (o, i)."""
    return advance(box.data, o * box.outer_stride + i * box.inner_stride)


@inline_jit
def elements_to_boundary(ptr):
    """How many elements, fewer than 16, lie before the next address for a streaming store."""
    return (-address(ptr) % min(64, LANES * itemsize(ptr))) // itemsize(ptr)


@inline_jit
def write_ignored_rows(count, classes, targets, per_row, grad):
    """Results of ignored rows: loss 0, log-sum-exp NaN, gradient 0."""
    for i in range(count):
        if targets[i] < 0:
            per_row.losses[i], per_row.lses[i] = 0.0, math.nan
            if grad is not None:
                fill(row_pointer(grad, i), classes, 0.0)


@inline_jit
def find_rows_not_ignored(count, targets, rows):
    """Write the indices of the rows that are not ignored; how many there are."""
    n = 0
    for i in range(count):
        if targets[i] >= 0:
            rows[n] = i
            n += 1
    return n
