"""Shapes of text inputs: the row count of a piped table, and targets in one line or column."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xentcli.files.reader import Reader


def set_row_count(logits: Reader, targets: Reader, class_axis: int | None) -> None:
    """Take the unknown row count of a piped table from the other array.

    Not if axis 0 is the class axis: the other array may have any length then.
    """
    from xentcli.files.opening import is_table

    if not (is_table(logits) or is_table(targets)):
        return  # other files need none of the modules for text
    from xentcli.files.interpreted import underlying
    from xentcli.files.text.table import TableReader

    logits, targets = underlying(logits), underlying(targets)
    for one, other in ((logits, targets), (targets, logits)):
        if isinstance(one, TableReader) and one.rows is None:
            if isinstance(other, TableReader) and other.rows is None:
                other.count()
            if class_axis in (0, -2):
                one.count()
                continue
            a_line = is_table(other) and other.shape[0] == 1
            one.assume(prod(other.shape) if a_line else prod(other.shape[:1]))


def line_as_targets(targets: Reader, logits_shape: tuple[int, ...]) -> Reader:
    """Text always has two axes: a single row or column is taken as class indices."""
    from xentcli.files.opening import is_table
    from xentcli.files.reader import InMemoryReader

    known = [logits_shape, *(_without(logits_shape, axis) for axis in range(len(logits_shape)))]
    if is_table(targets) and 1 in targets.shape and targets.shape not in known:
        line = InMemoryReader(targets.whole().reshape(-1), targets.name, targets.format)
        line.remarks = targets.remarks
        return line
    return targets


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
