"""Matrices turned round, 16 × 16 at a time: lines become columns, in registers.

A gather or a scatter of 16 numbers for each class takes longer, also where they lie in the
cache: 64 classes 26 ms in place of 12.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xentcli.backends.cpu.arithmetic import compiled
from xentcli.backends.cpu.half_types import held, narrowed, widened
from xentcli.backends.cpu.load_store import moved, place_of
from xentcli.backends.cpu.simd import F64, I32, I64, LANES, intrinsic, llvm


def _exchanged(builder: Any, rows: list[Any], block: int) -> None:
    """One step of a transposition: blocks beside the diagonal change places."""
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
    """16 elements of one array as another one holds them."""
    if source.dtype == target.dtype:
        return line
    value = widened(builder, source.dtype, line)
    if held(source) != held(target):
        change = builder.fptrunc if held(source) == F64 else builder.fpext
        value = change(value, llvm(held(target)))
    return narrowed(builder, target.dtype, value)


@intrinsic
def transpose(typing: Any, source: Any, its_step: Any, target: Any, step: Any) -> Any:
    """Copy 16 lines of 16, so that lines become columns; they are written one after the other.

    100 classes on axis 1, 2²⁴ logits: 29 ms so, in the order of `turn`, 41 to 60 ms in others,
    70 ms one by one.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lines = []
        for i in range(LANES):
            at = place_of(builder, source, [values[0], builder.mul(values[1], I64(i))])
            lines.append(builder.load(at, align=source.dtype.bitwidth // 8))
        for block in (8, 4, 2, 1):
            _exchanged(builder, lines, block)
        for i, line in enumerate(lines):
            at = place_of(builder, target, [values[2], builder.mul(values[3], I64(i))])
            converted = _converted(builder, source, target, line)
            builder.store(converted, at, align=target.dtype.bitwidth // 8)

    return types.void(source, types.intp, target, types.intp), generate


@compiled
def rows_to_classes(rows, step, classes, tile):
    """16 rows, whose first elements are `step` apart, so that each class is a whole vector.

    Of fewer than 16 classes the elements after a row's end are read too, and left behind those
    of the last class; of more, the last 16 once more where they are no whole tile.
    """
    for c in range(0, classes, LANES):
        begin = max(min(c, classes - LANES), 0)
        transpose(moved(rows, begin), step, moved(tile, begin * LANES), LANES)


@compiled
def classes_to_rows(tile, classes, rows, step):
    """The other way round. What is written after the end of a row of fewer than 16 classes
    belongs to the next row, which is written later."""
    for c in range(0, classes, LANES):
        begin = max(min(c, classes - LANES), 0)
        transpose(moved(tile, begin * LANES), LANES, moved(rows, begin), step)


@compiled
def turn(source, steps, target, its_steps, shape):
    """Copy a matrix whose elements are neighbours along the second axis to where they are so
    along the first, 16 × 16 at a time."""
    lines, columns = shape
    square = steps[1] == 1 and its_steps[0] == 1
    whole = (lines // LANES * LANES, columns // LANES * LANES) if square else (0, 0)
    across = its_steps[1] > steps[0]  # what is farther apart comes first
    for a in range(0, whole[1] if across else whole[0], LANES):
        for b in range(0, whole[0] if across else whole[1], LANES):
            i, j = (b, a) if across else (a, b)
            here = moved(source, i * steps[0] + j)
            transpose(here, steps[0], moved(target, i + j * its_steps[1]), its_steps[1])
    for i in range(lines):
        for j in range(whole[1] if i < whole[0] else 0, columns):
            target[i * its_steps[0] + j * its_steps[1]] = source[i * steps[0] + j * steps[1]]
