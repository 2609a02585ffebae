"""Where 16 rows lie, one in each lane: reading and writing them, and one class of each.

Where the classes of a row lie side by side, a tile is turned round on its way in and out; where
a class of 16 rows does, as in images, it is a vector already; else it is gathered.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import compiled
from xentcli.backends.cpu.half_types import as_stored, filled, size_of, wide
from xentcli.backends.cpu.load_store import gather, load, moved, prefetch, scatter, store
from xentcli.backends.cpu.row_ops import split
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    floor,
    lane_numbers,
    lanes_below,
    maximum,
    select,
    smaller,
)
from xentcli.backends.cpu.transpose import classes_to_rows, rows_to_classes

# Up to so many classes one of them is picked by comparing with each, above by a gather.
FEW = 16
AHEAD = 2048  # bytes, as in the pipeline


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
    """The lanes of up to 16 rows from `row` on; the rows before `end` are the caller's."""
    count = min(LANES, end - row)
    o, i = split(box, row)
    lane = smaller(lane_numbers(nothing), constant(nothing, float(count - 1)))
    _, classes, inner = box.shape
    first = o * box.outer + i * box.beside
    if inner == 1:
        offsets = lane * float(box.outer) + float(first)
    else:
        over = floor((lane + (float(i) + 0.5)) / float(inner))  # how many outer ones further
        inside = (lane - over * float(inner)) * float(box.beside)
        offsets = over * float(box.outer) + inside + float(first)
    rows_beside = box.beside == 1 and count == LANES and i + LANES <= inner
    classes_beside = box.step == 1 and count == LANES and inner == 1
    if classes < LANES:  # then 16 elements from a row's begin on are read and written
        classes_beside &= box.outer == classes and row + 2 * LANES <= end
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
def picked(tile, which, classes):
    """One class of each row, from a tile."""
    if classes > FEW:
        return wide(gather(tile, which * float(LANES) + lane_numbers(which)))
    value = wide(load(tile, 0))
    for c in range(1, classes):
        here = equal(which, constant(which, float(c)))
        value = select(here, wide(load(tile, c * LANES)), value)
    return value


@compiled
def weight_of(weight, which, classes):
    """The weight of one class of each row."""
    if classes > FEW:
        return gather(weight, which)
    value = filled(weight, weight[0])
    for c in range(1, classes):
        here = equal(which, constant(which, float(c)))
        value = select(here, filled(weight, weight[c]), value)
    return value


@compiled
def fill_tile(box, lanes, classes, tile):
    """Copy 16 rows to where each class is a whole vector; the largest of each row, or NaN."""
    peak = filled(tile, -math.inf)
    if lanes.classes_beside:
        rows_to_classes(moved(box.data, lanes.first), box.outer, classes, tile)
        for c in range(classes):
            prefetch(box.data, lanes.first + c * LANES + AHEAD // size_of(box.data))
            peak = maximum(peak, load(tile, c * LANES))
        return peak
    for c in range(classes):
        x = as_stored(tile, take(box, lanes, c))
        store(tile, c * LANES, x)
        peak = maximum(peak, x)
    return peak
