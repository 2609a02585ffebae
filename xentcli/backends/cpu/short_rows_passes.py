"""The passes over short rows in float32: blocks of tiles, each of 16 rows.

    1. the tiles are loaded, a vector per class
    2. exponentials and their sums
    3. losses, log-sum-exps, and the factors of the gradients: one long dependency chain
    4. the gradients, which are put together to lines of memory

Each pass goes over all tiles of a block before the next one begins. So the chains of several tiles
are computed at once; one tile after the other takes twice as long with two classes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import any_lane, inline_jit, jit
from xentcli.backends.cpu.formulas import mass_times_gap
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for
from xentcli.backends.cpu.load_store import (
    advance,
    float64_at,
    load,
    load_int64,
    load_masked,
    pointer_at,
    pointer_or_none,
    prefetch,
    store,
)
from xentcli.backends.cpu.row_tiles import pick_weight
from xentcli.backends.cpu.short_rows import tile_size
from xentcli.backends.cpu.short_rows_fast import (
    TileSums,
    factor_out_of_range,
    gradient_factor,
    log_of_total,
    pair_sums,
    result_offset,
    sums_out_of_range,
    target_entries,
    tile_again,
    tile_sums,
    two_words,
    write_entries,
)
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    lanes_below,
    less,
    select,
    select_max,
)
from xentcli.backends.cpu.tile_blocks import (
    block_from,
    first_element,
    is_contiguous,
    lines_from,
    load_block,
    next_block,
    rows_to_boundary,
    write_block,
    write_end,
    write_numbers,
)

PREFETCH_TARGETS = 256  # rows ahead
STREAM_RESULTS = 1 << 19  # rows: from here on losses and log-sum-exps are written past the caches
KEPT = workspace.KEPT

block_offsets = inline_jit(workspace.block_offsets)
tiles_per_block = inline_jit(workspace.tiles_per_block)


class Place(NamedTuple):
    """A tile: its first row, the end of all rows, and memory for what is kept of it."""

    row: Any
    end: Any
    kept: Any


@inline_jit
def place_of(block, k, kept):
    """Tile k of a block."""
    return Place(block.row + k * LANES, block.end, advance(kept, k * KEPT * LANES))


@inline_jit
def tile_of(tiles, at):
    """A tile of gradients, or None."""
    tile = tiles
    if tiles is not None:
        tile = advance(tiles, at)
    return tile


@inline_jit
def keep_sums(kept, sums):
    """Keep the sums of a tile for pass 3."""
    store(kept, 0, sums.ones)
    store(kept, LANES, sums.others)
    store(kept, 2 * LANES, sums.low)
    store(kept, 3 * LANES, sums.e_y)
    store(kept, 4 * LANES, sums.peak)
    store(kept, 5 * LANES, sums.x_y)


@inline_jit
def kept_sums(kept):
    """The sums again."""
    ones, others, low = load(kept, 0), load(kept, LANES), load(kept, 2 * LANES)
    e_y, peak, x_y = load(kept, 3 * LANES), load(kept, 4 * LANES), load(kept, 5 * LANES)
    return TileSums(ones, others, low, e_y, peak, x_y)


@inline_jit
def targets_of(targets, place):
    """The targets of 16 rows as float64."""
    return load_int64(targets, place.row, lanes_below(place.end - place.row))


@inline_jit
def scales_of(per_row, place, index):
    """The scales of 16 rows, 0 for those that are ignored."""
    u, zero = constant_for(per_row.scale, per_row.scale[0]), constant(index, 0.0)
    if per_row.scale_step:
        u = load_masked(per_row.scale, place.row, lanes_below(place.end - place.row))
    return select(less(index, zero), zero, u)


@inline_jit
def is_uniform(weight, classes):
    """Whether all classes have one weight."""
    same = True
    for c in range(1, classes):
        same &= weight[c] == weight[0]
    return same


@inline_jit
def sum_tile(xs, classes, place, targets, ahead, step):
    """Pass 2 of a tile."""
    prefetch(targets, place.row + PREFETCH_TARGETS)
    prefetch(targets, place.row + PREFETCH_TARGETS + LANES // 2)
    y = cast_for(xs, targets_of(targets, place))
    if classes == 2:
        keep_sums(place.kept, pair_sums(xs, y, ahead, step))
    else:
        keep_sums(place.kept, tile_sums(xs, classes, y, ahead, step))


@inline_jit
def finish_tile(logits, place, targets, weights, per_row, to, again, g):
    """Pass 3 of a tile; `to` are where losses and log-sum-exps go.

    Gradients of rows that float32 is not enough for are in the tile `g` afterwards.
    """
    classes, index, sums = logits.shape[1], targets_of(targets, place), kept_sums(place.kept)
    zero, (weight, hot, uniform) = constant(index, 0.0), weights
    if not uniform:
        hot = pick_weight(weight, select_max(index, zero), classes)
    total, log = log_of_total(sums)
    largest = as_float64(sums.peak)
    loss = hot * log + mass_times_gap(hot, largest - as_float64(sums.x_y)) + zero
    lse, far = largest + log, sums_out_of_range(sums, classes)
    scale = scales_of(per_row, place, index)
    factor = two_words(scale * hot, place.kept)
    far_factor = far
    if g is not None:
        words = gradient_factor(total, factor)
        far_factor = select(far, far, factor_out_of_range(words[0], factor[0]))
        none, one = constant(sums.peak, 0.0), constant(sums.peak, 1.0)
        store(place.kept, 0, words[0])
        store(place.kept, LANES, words[1])
        store(place.kept, 2 * LANES, target_entries(sums, words, place.kept))
        store(place.kept, 3 * LANES, cast_for(place.kept, index))
        store(place.kept, 4 * LANES, select(far_factor, one, none))
    if any_lane(far_factor):
        tile_again(logits, place.row, place.end, index, hot, scale, again, g)
        results = float64_at(again, result_offset(classes))
        loss, lse = select(far, load(results, 0), loss), select(far, load(results, LANES), lse)
    ignored = less(index, zero)
    store(to[0], 0, select(ignored, zero, loss) + zero)
    store(to[1], 0, select(ignored, constant(lse, math.nan), lse))


@inline_jit
def write_tile(classes, kept, exps, g, before):
    """Pass 4 of a tile: its gradient as a tile; `before` is memory for what was there before."""
    factor, of_target = (load(kept, 0), load(kept, LANES)), load(kept, 2 * LANES)
    y, far = load(kept, 3 * LANES), load(kept, 4 * LANES)
    far = less(constant(far, 0.0), far)
    any_far = any_lane(far)
    if any_far:
        for c in range(0, classes * LANES, LANES):
            store(before, c, load(g, c))
    write_entries(exps, classes, y, factor, of_target, g)
    if any_far:
        for c in range(0, classes * LANES, LANES):
            store(g, c, select(far, load(before, c), load(g, c)))


@inline_jit
def sum_block(logits, block, targets, kept, space):
    """Pass 2."""
    ahead, step, apart = next_block(logits, block)
    for k in range(block.tiles):
        place, xs = place_of(block, k, kept), advance(space, k * block.size)
        sum_tile(xs, logits.shape[1], place, targets, advance(ahead, k * apart), step)


@inline_jit
def finish_block(logits, block, targets, weights, per_row, to, kept, again, g):
    """Pass 3."""
    losses, lses = to
    for k in range(block.tiles):
        to = advance(losses, (k + 1) * LANES), advance(lses, (k + 1) * LANES)
        place, tile = place_of(block, k, kept), tile_of(g, k * block.size)
        finish_tile(logits, place, targets, weights, per_row, to, again, tile)


@inline_jit
def gradient_block(classes, block, kept, space, again, g):
    """Pass 4, except for writing to the box."""
    for k in range(block.tiles):
        xs, tile = advance(space, k * block.size), advance(g, k * block.size)
        write_tile(classes, place_of(block, k, kept).kept, xs, tile, pointer_at(again, 0, tile))


@jit
def fast_short_boxes(span, logits, targets, probs, weight, scalars, per_row, grad, space):
    """The rows `span` of a box; at least two classes, and `probs` is None.

    With `grad` in place of `logits`, no row is overwritten before it has been read.
    """
    begin, end, streaming = span
    classes = logits.shape[1]
    size, most = tile_size(classes), tiles_per_block(classes, logits.shape[2])
    at = block_offsets(classes, most)
    kept, again = pointer_at(space, at[0], space), pointer_at(space, at[1], space)
    losses, lses = float64_at(space, at[2]), float64_at(space, at[3])
    weights = weight, constant_for(weight, weight[0]), is_uniform(weight, classes)
    g = pointer_or_none(grad, space, at[4])
    middle = begin
    if grad is not None:  # noqa: SIM102 (as below)
        if streaming:
            middle += rows_to_boundary(grad, begin, end)
    for start, stop in ((begin, middle), (middle, end)):
        many = stop - start >= STREAM_RESULTS
        loss_lines = lines_from(advance(per_row.losses, start), losses, many)
        lse_lines = lines_from(advance(per_row.lses, start), lses, many)
        if grad is not None:
            lines = lines_from(first_element(grad, start), advance(g, most * size), streaming)
        row = start
        while row < stop:
            block = block_from(logits, row, stop, most, size)
            load_block(logits, block, space)
            sum_block(logits, block, targets, kept, space)
            finish_block(logits, block, targets, weights, per_row, (losses, lses), kept, again, g)
            write_numbers(per_row.losses, block, loss_lines, row == start)
            write_numbers(per_row.lses, block, lse_lines, row == start)
            if grad is not None:
                gradient_block(classes, block, kept, space, again, g)
                write_block(grad, block, g, lines, row == start)
            row += block.tiles * LANES
        whole = (stop - start) // LANES
        write_end(advance(per_row.losses, start + whole * LANES), whole, loss_lines)
        write_end(advance(per_row.lses, start + whole * LANES), whole, lse_lines)
        if grad is not None:  # noqa: SIM102 (Numba prunes a whole block, not half a condition)
            if is_contiguous(grad):
                write_end(first_element(grad, start + whole * LANES), whole, lines)
