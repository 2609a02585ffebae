"""Tiles of 16 rows, one row per lane: loading and storing them, or one class of each row.

Where the classes of a row are contiguous, a tile is transposed on its way in and out. Where a
class of 16 rows is contiguous, as in images, it is a vector already. Otherwise it is gathered.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, itemsize
from xentcli.backends.cpu.load_store import advance, gather, load, prefetch, scatter, store
from xentcli.backends.cpu.row_ops import outer_and_inner
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    floor,
    fmin,
    lane_indices,
    lanes_below,
    maximum,
    select,
)
from xentcli.backends.cpu.transpose import classes_to_rows, rows_to_classes

# Up to this many classes one of them is selected by comparisons, above by a gather.
COMPARE_UP_TO = 16
PREFETCH_BYTES = 2048


class TileRows(NamedTuple):
    """Where 16 rows of a box are, in elements."""

    first: Any  # offset of the first row
    offsets: Any  # offset of each row
    count: Any  # how many of the 16 are rows
    rows_contiguous: Any  # whether one class of the 16 rows is
    classes_contiguous: Any  # whether the classes of each row are, so that a tile is transposed


class TileOutput(NamedTuple):
    """Where 16 rows of results go, and a tile for those that are transposed."""

    box: Any
    rows: Any
    tile: Any


@inline_jit
def tile_rows(box, row, end, nothing):
    """Up to 16 rows from `row` on; rows from `end` on are not the caller's."""
    count = min(LANES, end - row)
    o, i = outer_and_inner(box, row)
    lane = fmin(lane_indices(nothing), constant(nothing, float(count - 1)))
    _, classes, inner = box.shape
    first = o * box.outer_stride + i * box.inner_stride
    if inner == 1:
        offsets = lane * float(box.outer_stride) + float(first)
    else:
        steps = floor((lane + (float(i) + 0.5)) / float(inner))  # along the outer axis
        inside = (lane - steps * float(inner)) * float(box.inner_stride)
        offsets = steps * float(box.outer_stride) + inside + float(first)
    rows_contiguous = box.inner_stride == 1 and count == LANES and i + LANES <= inner
    classes_contiguous = box.class_stride == 1 and count == LANES and inner == 1
    if classes < LANES:  # then 16 elements from the start of each row are read and written
        classes_contiguous &= box.outer_stride == classes and row + 2 * LANES <= end
    return TileRows(first, offsets, count, rows_contiguous, classes_contiguous)


@inline_jit
def load_class(box, rows, c):
    """Class c of 16 rows."""
    if rows.rows_contiguous:
        return load(box.data, rows.first + c * box.class_stride)
    return gather(box.data, rows.offsets + float(c * box.class_stride))


@inline_jit
def store_class(out, c, value):
    """Write class c of 16 rows; −0.0, which rounding may give, becomes 0.0."""
    box, rows, tile = out
    rounded = cast_for(box.data, value) + constant_for(box.data, 0.0)
    if rows.classes_contiguous:
        store(tile, c * LANES, rounded)
    elif rows.rows_contiguous:
        store(box.data, rows.first + c * box.class_stride, rounded)
    else:
        offsets = rows.offsets + float(c * box.class_stride)
        scatter(box.data, offsets, lanes_below(rows.count), rounded)


@inline_jit
def store_tile(out, classes):
    """Write the tile that `store_class` has filled, if it is to be transposed."""
    box, rows, tile = out
    if rows.classes_contiguous:
        classes_to_rows(tile, classes, advance(box.data, rows.first), box.outer_stride)


@inline_jit
def store_class_of_each_row(out, which, value):
    """Write one class of each row."""
    box, rows, _ = out
    rounded = cast_for(box.data, value) + constant_for(box.data, 0.0)
    offsets = rows.offsets + which * float(box.class_stride)
    scatter(box.data, offsets, lanes_below(rows.count), rounded)


@inline_jit
def pick(tile, which, classes):
    """One class of each row, from a tile."""
    if classes > COMPARE_UP_TO:
        return as_float64(gather(tile, which * float(LANES) + lane_indices(which)))
    value = as_float64(load(tile, 0))
    for c in range(1, classes):
        here = equal(which, constant(which, float(c)))
        value = select(here, as_float64(load(tile, c * LANES)), value)
    return value


@inline_jit
def pick_weight(weight, which, classes):
    """The weight of one class of each row."""
    if classes > COMPARE_UP_TO:
        return gather(weight, which)
    value = constant_for(weight, weight[0])
    for c in range(1, classes):
        here = equal(which, constant(which, float(c)))
        value = select(here, constant_for(weight, weight[c]), value)
    return value


@inline_jit
def load_tile(box, rows, classes, tile):
    """Copy 16 rows to a tile, one vector per class; the largest of each row, or NaN."""
    peak = constant_for(tile, -math.inf)
    if rows.classes_contiguous:
        rows_to_classes(advance(box.data, rows.first), box.outer_stride, classes, tile)
        for c in range(classes):
            prefetch(box.data, rows.first + c * LANES + PREFETCH_BYTES // itemsize(box.data))
            peak = maximum(peak, load(tile, c * LANES))
        return peak
    for c in range(classes):
        x = cast_for(tile, load_class(box, rows, c))
        store(tile, c * LANES, x)
        peak = maximum(peak, x)
    return peak
