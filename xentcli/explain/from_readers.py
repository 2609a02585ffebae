"""The derivation of one row of files, without reading all logits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xentcli.arrays.dtypes import Array, reals
from xentcli.arrays.layout import Layout
from xentcli.engine.problem import Extras, build
from xentcli.engine.teacher.arrays import require_use_of
from xentcli.engine.teacher.task import task_of
from xentcli.errors import OptionError, plural
from xentcli.explain import Derivation, derive
from xentcli.explain.taught import TaughtRow, derive_taught
from xentcli.files.reader import Reader, read_strided
from xentcli.options import LossOptions, TeacherOptions


def derive_taught_from_readers(
    readers: tuple[Reader, Reader | None, Sequence[Reader]],
    options: LossOptions,
    soft: TeacherOptions,
    extras: Extras,
    row: int,
) -> TaughtRow:
    """The same against a teacher, whose arrays come after logits and targets."""
    logits, targets, teacher = readers
    problem = build(logits.shape, targets, options, extras)
    require_use_of(targets, problem, soft)
    rest = len(teacher) > 2
    task = task_of(problem.layout, teacher, options, soft, extras, has_rest=rest)
    _require_row(row, problem.layout.rows)
    x = _row(logits, problem.layout, row, "logits")
    probs = None
    if targets is not None and problem.probs:
        probs = _row(targets, problem.layout, row, "targets")
    beside = [_row(reader, _like(problem.layout, reader), row, "teacher") for reader in teacher]
    return derive_taught(problem, task, options, row, (x, probs), beside)


def _like(layout: Layout, reader: Reader) -> Layout:
    """The layout of an array with other numbers per row."""
    outer, _, inner = layout.box
    return Layout((outer, prod(reader.shape) // max(1, outer * inner), inner), 1)


def _require_row(row: int, rows: int) -> None:
    if not 0 <= row < rows:
        hint = f"rows are numbered from 0 to {rows - 1}" if rows else None
        raise OptionError("row", f"{row} is out of range for {plural(rows, 'row')}", hint)


def derive_from_readers(
    logits: Reader, targets: Reader, options: LossOptions, extras: Extras, row: int
) -> Derivation:
    """Read only this row's logits, but all class indices: the mean depends on them."""
    problem = build(logits.shape, targets, options, extras)
    _require_row(row, problem.layout.rows)
    x = _row(logits, problem.layout, row, "logits")
    q = _row(targets, problem.layout, row, "targets") if problem.probs else None
    return derive(problem, options, row, x, q)


def _row(reader: Reader, layout: Layout, row: int, where: str) -> Array:
    """The row's C numbers as float64, for any class axis."""
    _, classes, inner = layout.box
    outer, place = divmod(row, inner)
    numbers = read_strided(reader, outer * classes * inner + place, classes, inner)
    return reals(numbers, where)
