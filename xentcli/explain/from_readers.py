"""The derivation of one row of files, without reading all logits into memory."""

from __future__ import annotations

from xentcli.arrays.dtypes import Array, reals
from xentcli.arrays.layout import Layout
from xentcli.engine.problem import Extras, build
from xentcli.errors import OptionError, plural
from xentcli.explain import Derivation, derive
from xentcli.files.reader import Reader, read_strided
from xentcli.options import LossOptions


def derive_from_readers(
    logits: Reader, targets: Reader, options: LossOptions, extras: Extras, row: int
) -> Derivation:
    """Read only this row's logits, but all class indices: the mean depends on them."""
    problem = build(logits.shape, targets, options, extras)
    rows = problem.layout.rows
    if not 0 <= row < rows:
        hint = f"rows are numbered from 0 to {rows - 1}" if rows else None
        raise OptionError("row", f"{row} is out of range for {plural(rows, 'row')}", hint)
    x = _row(logits, problem.layout, row, "logits")
    q = _row(targets, problem.layout, row, "targets") if problem.probs else None
    return derive(problem, options, row, x, q)


def _row(reader: Reader, layout: Layout, row: int, where: str) -> Array:
    """The row's C numbers as float64, for any class axis."""
    _, classes, inner = layout.box
    outer, place = divmod(row, inner)
    numbers = read_strided(reader, outer * classes * inner + place, classes, inner)
    return reals(numbers, where)
