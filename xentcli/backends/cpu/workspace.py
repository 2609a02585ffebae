"""Where the parts of a kernel's work space are, in bytes from its start.

Kernels allocate nothing: each thread passes memory that begins at a cache line. The functions are
plain Python: the caller learns from them how much memory a kernel needs, and the kernels, which
compile them, where each part is. An element is given 8 bytes, whatever its dtype, and each part
whole cache lines.
"""

from __future__ import annotations

from functools import lru_cache

LINE = 64  # bytes of a cache line
LANES = 16  # as in `simd`
# Up to this many classes 16 rows are computed at a time: at 64 both ways take the same time.
SHORT = 64
BLOCK = 256  # vectors of 16 numbers in a block of tiles: 16 KiB of float32
GAP_BLOCK = 1024  # classes whose gaps are computed before their exponentials
GAP_BYTES = (GAP_BLOCK + 64) * 8  # and those that empty a pipeline
CHUNK = 1 << 16  # logits that are copied at a time where the classes of a row are not contiguous


def long_row_offsets(classes: int, rows: int, copied: int) -> tuple[int, int, int, int, int]:
    """Of a second row of exponentials, of indices of rows, and of copies of logits, of
    probabilities and of gradients, for `copied` rows. A first row of exponentials is at 0, a third
    row of numbers as far behind the second, and then blocks of gaps and of their errors."""
    second = (classes // 8 + 25) * LINE
    indices = 3 * second + 2 * GAP_BYTES
    logits = indices + (rows // 8 + 1) * LINE
    copy = classes * copied // 8 * LINE
    return second, indices, logits, logits + copy, logits + 2 * copy


def short_row_offsets(classes: int) -> tuple[int, int, int]:
    """Of exponentials, of probabilities, and of gradients, for tiles of 16 rows. Two tiles of
    logits are at 0, and for each there are three tiles from the exponentials on."""
    tile = max(classes, LANES) * LANES * 8
    return 2 * tile, 8 * tile, 9 * tile


KEPT = 6  # vectors that are kept of a tile from one pass to the next


def tiles_per_block(classes: int, inner: int) -> int:
    """How many tiles of short rows are computed together, in float32: more where the numbers of
    each class are far apart in memory, and are read a line for each tile."""
    return min(max((BLOCK if inner == 1 else 2 * BLOCK) // max(classes, LANES), 1), 16)


def result_offset(classes: int) -> int:
    """Of the results of a tile that is computed again, behind its exponentials."""
    return max(classes, LANES) * LANES * 8


def block_offsets(classes: int, tiles: int) -> tuple[int, int, int, int, int]:
    """Of what is kept of each tile of a block, of a tile that is computed again, of losses, of
    log-sum-exps, and of the gradients. The logits are at 0."""
    tile, numbers = max(classes, LANES) * LINE, (tiles + 2) * 2 * LINE
    again = tiles * (tile + KEPT * LINE)
    losses = again + 2 * tile + 4 * LINE
    return tiles * tile, again, losses, losses + numbers, losses + 2 * numbers


def rows_per_chunk(classes: int) -> int:
    """How many rows are copied at a time: a multiple of 16, about 256 KiB of float32."""
    return max(LANES, CHUNK // classes // LANES * LANES)


def copy_offset(classes: int, rows: int) -> int:
    """Of a second copy of logits, where there are no other parts."""
    return (classes * rows // 8 + 1) * LINE


def space_for_copies(classes: int, inner: int) -> int:
    """The bytes for two copies of logits alone, where the classes of a row are not contiguous."""
    return LINE + (2 * copy_offset(classes, rows_per_chunk(classes)) if inner > 1 else 0)


@lru_cache(maxsize=256)  # a training loop asks for the same in every step
def space_for(classes: int, rows: int, inner: int) -> int:
    """The bytes that a kernel needs for this many rows."""
    if classes <= SHORT:
        tiles, tile = tiles_per_block(classes, inner), max(classes, LANES) * LINE
        gradients = block_offsets(classes, tiles)[4] + (2 * tiles * tile + 2 * LINE)
        return max(gradients, short_row_offsets(classes)[2] + 2 * tile)
    return space_for_long_rows(classes, rows, inner)


def space_for_long_rows(classes: int, rows: int, inner: int) -> int:
    """The bytes for this many rows, one at a time."""
    copied = rows_per_chunk(classes) if inner > 1 else 0
    gradients = long_row_offsets(classes, copied or rows, copied)[4]
    return gradients + classes * copied * 8


def stored_step(slots: int) -> int:
    """The bytes for a number of each class that a teacher stores of a row."""
    return (slots // 8 + 3) * LINE


def space_for_top(classes: int, rows: int, inner: int, slots: int) -> int:
    """The bytes for this many rows of which so many classes are stored."""
    return space_for_long_rows(classes, rows, inner) + 3 * stored_step(slots)
