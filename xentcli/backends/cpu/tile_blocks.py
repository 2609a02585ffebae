"""Blocks of tiles, each of 16 consecutive rows, one row per lane: from a box and to a box.

Where the classes of a row are contiguous, tiles are transposed. On their way out they are put
together to whole lines of memory, which can be written past the caches. Where a class of many rows
is contiguous, as in images, it is copied for all tiles of the block. What is left, as at the end
of a range of rows, is gathered and scattered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, itemsize
from xentcli.backends.cpu.load_store import (
    address,
    advance,
    gather,
    load,
    scatter,
    store,
    store_masked,
    stream_store,
)
from xentcli.backends.cpu.row_ops import elements_to_boundary, outer_and_inner
from xentcli.backends.cpu.row_tiles import tile_rows
from xentcli.backends.cpu.simd import LANES, lanes_below
from xentcli.backends.cpu.transpose import (
    classes_to_pairs,
    classes_to_rows,
    pairs_to_classes,
    rows_to_classes,
)

FEW_ROWS = 256  # of an image: it does not pay to begin at a line


class Block(NamedTuple):
    """Consecutive rows, and the tiles that they are in, `size` elements apart."""

    row: Any
    tiles: Any
    end: Any  # of the rows that may be read and written
    size: Any


@inline_jit
def is_rows(box):
    """Whether the classes of each row are contiguous, and with few classes the rows too."""
    _, classes, inner = box.shape
    whole = classes >= LANES or box.outer_stride == classes
    return inner == 1 and box.class_stride == 1 and whole


@inline_jit
def is_contiguous(box):
    """Whether the classes of all rows follow each other."""
    _, classes, inner = box.shape
    return inner == 1 and box.class_stride == 1 and box.outer_stride == classes


@inline_jit
def full_tiles(block, more):
    """How many tiles have 16 rows of their own and `more` rows behind them."""
    return min(max((block.end - block.row - more) // LANES, 0), block.tiles)


@inline_jit
def block_from(box, row, end, most, size):
    """The next rows, as many as fit into `most` tiles; of an image no more than its own rows,
    unless that is less than a tile."""
    tiles = min(most, (end - row + LANES - 1) // LANES)
    if box.shape[2] > 1:
        tiles = min(tiles, max((box.shape[2] - row % box.shape[2]) // LANES, 1))
    return Block(row, tiles, end, size)


@inline_jit
def rows_to_boundary(box, row, end):
    """How many rows of an image lie before the first class that begins a line of memory."""
    if box.shape[2] < FEW_ROWS:
        return 0
    return min(elements_to_boundary(first_element(box, row)), end - row)


@inline_jit
def full_tiles_of_plane(box, block):
    """How many tiles are contiguous along the inner axis, for each class."""
    _, i = outer_and_inner(box, block.row)
    if box.inner_stride != 1:
        return 0
    return min((box.shape[2] - i) // LANES, full_tiles(block, 0))


@inline_jit
def first_element(box, row):
    """A pointer to a row."""
    if box.shape[2] == 1:
        return advance(box.data, row * box.outer_stride)
    o, i = outer_and_inner(box, row)
    return advance(box.data, o * box.outer_stride + i * box.inner_stride)


@inline_jit
def load_block(box, block, tiles):
    """Copy rows to tiles, one vector per class."""
    classes, begin, done = box.shape[1], first_element(box, block.row), 0
    if is_rows(box):
        done = full_tiles(block, LANES if 2 < classes < LANES else 0)
        for k in range(done):
            rows = advance(begin, k * LANES * box.outer_stride)
            tile = advance(tiles, k * block.size)
            if classes == 2:
                pairs_to_classes(rows, tile)
            else:
                rows_to_classes(rows, box.outer_stride, classes, tile)
    elif box.shape[2] > 1:
        done = full_tiles_of_plane(box, block)
        for c in range(classes):
            plane, line = advance(begin, c * box.class_stride), advance(tiles, c * LANES)
            for k in range(done):
                store(line, k * block.size, cast_for(tiles, load(plane, k * LANES)))
    for k in range(done, block.tiles):
        rows = tile_rows(box, block.row + k * LANES, block.end, zero_of(box.data))
        for c in range(classes):
            line = gather(box.data, rows.offsets + float(c * box.class_stride))
            store(tiles, k * block.size + c * LANES, cast_for(tiles, line))


@inline_jit
def next_block(box, block):
    """Where to prefetch the rows after a block: a pointer, and how far apart what is for the
    classes of a tile and what is for the tiles is."""
    begin, rows = first_element(box, block.row), block.tiles * LANES
    if is_rows(box):
        apart = LANES * box.outer_stride
        return advance(begin, rows * box.outer_stride), apart // box.shape[1], apart
    return advance(begin, rows * box.inner_stride), box.class_stride, LANES * box.inner_stride


@inline_jit
def zero_of(array):
    """0 in 16 lanes, as float64."""
    return as_float64(constant_for(array, 0.0))


class Lines(NamedTuple):
    """Memory where rows are put together to whole lines.

    It begins with a line for the end of the rows before, which is written with these.
    """

    memory: Any
    head: Any  # how many elements of the first row end a line
    streaming: Any


@inline_jit
def lines_from(begin, memory, streaming):
    """For what is written from an address on."""
    head = elements_to_boundary(begin)
    return Lines(memory, head if head else LANES, streaming)


@inline_jit
def write_block(box, block, tiles, lines, first):
    """Copy tiles of the box's dtype to rows."""
    classes, begin, done = box.shape[1], first_element(box, block.row), 0
    if is_contiguous(box):
        done = full_tiles(block, 0)
        here = advance(lines.memory, LANES)
        for k in range(done):
            tile = advance(tiles, k * block.size)
            if classes == 2:
                classes_to_pairs(tile, advance(here, k * LANES * classes))
            else:
                classes_to_rows(tile, classes, advance(here, k * LANES * classes), classes)
        write_lines(begin, done * classes, lines, first)
    elif box.shape[2] > 1:
        done = full_tiles_of_plane(box, block)
        aligned = (address(begin) | (box.class_stride * itemsize(begin))) % 64 == 0
        for c in range(classes):
            plane, line = advance(begin, c * box.class_stride), advance(tiles, c * LANES)
            for k in range(done):
                if aligned and lines.streaming:
                    stream_store(plane, k * LANES, load(line, k * block.size))
                else:
                    store(plane, k * LANES, load(line, k * block.size))
    for k in range(done, block.tiles):
        rows = tile_rows(box, block.row + k * LANES, block.end, zero_of(box.data))
        for c in range(classes):
            offsets, line = rows.offsets + float(c * box.class_stride), k * block.size + c * LANES
            scatter(box.data, offsets, lanes_below(rows.count), load(tiles, line))


@inline_jit
def write_lines(begin, count, lines, first):
    """Write the whole lines that end in these rows, and keep what is behind them."""
    memory, head, streaming = lines
    if count == 0:
        return
    if first:
        store_masked(begin, 0, lanes_below(head), load(memory, LANES))
    for k in range(1 if first else 0, count):
        line, at = load(memory, head + k * LANES), head + (k - 1) * LANES
        if streaming:
            stream_store(begin, at, line)
        else:
            store(begin, at, line)
    store(memory, 0, load(memory, count * LANES))


@inline_jit
def write_numbers(to, block, lines, first):
    """Write a number for each row of a block, from one vector per tile."""
    done = full_tiles(block, 0)
    write_lines(advance(to, block.row), done, lines, first)
    rest = block.end - block.row - done * LANES if done < block.tiles else 0
    last = load(lines.memory, (1 + done) * LANES)
    store_masked(to, block.row + done * LANES, lanes_below(rest), last)


@inline_jit
def write_end(end, count, lines):
    """Write what is kept of `count` vectors before `end`."""
    rest = LANES - lines.head if count else 0
    store_masked(end, 0 - rest, lanes_below(rest), load(lines.memory, lines.head))
