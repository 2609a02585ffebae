"""Transposing matrices in registers, 16 × 16 at a time.

A gather or a scatter of 16 numbers for each class takes longer, even from the cache: 26 ms
instead of 12 for 64 classes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.half_types import narrowed, vector_type, widened
from xentcli.backends.cpu.load_store import advance, vector_pointer
from xentcli.backends.cpu.simd import F64, I32, I64, LANES, intrinsic, llvm_type


def _exchange_blocks(builder: Any, rows: list[Any], block: int) -> None:
    """One step of a transposition: swap the blocks beside the diagonal."""
    lanes = range(LANES)
    upper = [lane if not lane & block else LANES + lane - block for lane in lanes]
    lower = [LANES + lane if lane & block else lane + block for lane in lanes]
    for i in lanes:
        if not i & block:
            a, b = rows[i], rows[i + block]
            for row, order in ((i, upper), (i + block, lower)):
                mask = ir.Constant(ir.VectorType(I32, LANES), order)
                rows[row] = builder.shuffle_vector(a, b, mask)


def _converted(builder: Any, source: Any, target: Any, line: Any) -> Any:
    """16 elements of one array, converted to the dtype of another."""
    if source.dtype == target.dtype:
        return line
    value = widened(builder, source.dtype, line)
    if vector_type(source) != vector_type(target):
        change = builder.fptrunc if vector_type(source) == F64 else builder.fpext
        value = change(value, llvm_type(vector_type(target)))
    return narrowed(builder, target.dtype, value)


@intrinsic
def transpose(typing: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """Copy a 16 × 16 block transposed; the target is written row after row.

    100 classes on axis 1, 2²⁴ logits: 29 ms in the order of `copy_transposed`, 41 to 60 ms in
    other orders, 70 ms element by element.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lines = []
        for i in range(LANES):
            at = vector_pointer(builder, source, [values[0], builder.mul(values[1], I64(i))])
            lines.append(builder.load(at, align=source.dtype.bitwidth // 8))
        for block in (8, 4, 2, 1):
            _exchange_blocks(builder, lines, block)
        for i, line in enumerate(lines):
            at = vector_pointer(builder, target, [values[2], builder.mul(values[3], I64(i))])
            converted = _converted(builder, source, target, line)
            builder.store(converted, at, align=target.dtype.bitwidth // 8)

    return types.void(source, types.intp, target, types.intp), generate


def _shuffled(builder: Any, lines: list[Any], order: list[int]) -> Any:
    return builder.shuffle_vector(*lines, ir.Constant(ir.VectorType(I32, LANES), order))


@intrinsic
def pairs_to_classes(typing: Any, source: Any, target: Any) -> Any:
    """Copy 16 rows of two classes so that each class is one vector."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lines = []
        for i in (0, 1):
            at = vector_pointer(builder, source, [values[0], I64(LANES * i)])
            lines.append(builder.load(at, align=source.dtype.bitwidth // 8))
        for i in (0, 1):
            line = _shuffled(builder, lines, [2 * lane + i for lane in range(LANES)])
            at = vector_pointer(builder, target, [values[1], I64(LANES * i)])
            converted = _converted(builder, source, target, line)
            builder.store(converted, at, align=target.dtype.bitwidth // 8)

    return types.void(source, target), generate


@intrinsic
def classes_to_pairs(typing: Any, source: Any, target: Any) -> Any:
    """The inverse, for one dtype."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lines = []
        for i in (0, 1):
            at = vector_pointer(builder, source, [values[0], I64(LANES * i)])
            lines.append(builder.load(at, align=source.dtype.bitwidth // 8))
        for i in (0, 1):
            order = [lane // 2 + LANES // 2 * i + LANES * (lane % 2) for lane in range(LANES)]
            at = vector_pointer(builder, target, [values[1], I64(LANES * i)])
            builder.store(_shuffled(builder, lines, order), at, align=target.dtype.bitwidth // 8)

    return (types.void(source, target), generate) if source == target else None


@inline_jit
def rows_to_classes(rows, step, classes, tile):
    """Load 16 rows, whose first elements are `step` apart, so that each class is one vector.

    With fewer than 16 classes the elements after a row's end are read too, and stored after those
    of the last class. With more, the last 16 classes overlap the tile before where needed.
    """
    for c in range(0, classes, LANES):
        begin = max(min(c, classes - LANES), 0)
        transpose(advance(rows, begin), step, advance(tile, begin * LANES), LANES)


@inline_jit
def classes_to_rows(tile, classes, rows, step):
    """The inverse. With fewer than 16 classes this writes beyond the end of each row, into the
    next row, which is written later."""
    for c in range(0, classes, LANES):
        begin = max(min(c, classes - LANES), 0)
        transpose(advance(tile, begin * LANES), LANES, advance(rows, begin), step)


@inline_jit
def copy_transposed(source, steps, target, target_steps, shape):
    """Copy a matrix that is contiguous along its second axis to one that is contiguous along
    the first, 16 × 16 at a time."""
    lines, columns = shape
    square = steps[1] == 1 and target_steps[0] == 1
    whole = (lines // LANES * LANES, columns // LANES * LANES) if square else (0, 0)
    column_major = target_steps[1] > steps[0]  # the axis with the larger stride comes first
    for a in range(0, whole[1] if column_major else whole[0], LANES):
        for b in range(0, whole[0] if column_major else whole[1], LANES):
            i, j = (b, a) if column_major else (a, b)
            here = advance(source, i * steps[0] + j)
            transpose(here, steps[0], advance(target, i + j * target_steps[1]), target_steps[1])
    for i in range(lines):
        for j in range(whole[1] if i < whole[0] else 0, columns):
            target[i * target_steps[0] + j * target_steps[1]] = source[i * steps[0] + j * steps[1]]
