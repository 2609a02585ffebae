"""What a teacher stores of some rows, by class, as oracles and hypotheses expect it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.engine.rows import RowPiece, float_rows
from xentcli.engine.teacher.top_k import class_columns, slots_of

if TYPE_CHECKING:
    from xentcli.engine.teacher.task import TeacherTask


class StoredClasses(NamedTuple):
    """The teacher's numbers as they are stored, float64 (n, C), and which classes have one.

    There are more classes than those of the student where the teacher has more. `rest` is (n,), as
    stored, or NaN without one.
    """

    values: Array
    stored: Array
    rest: Array

    @property
    def likeliest(self) -> Array:
        """The class of the largest number of each row."""
        return np.asarray(np.argmax(np.where(self.stored, self.values, -np.inf), axis=1))

    def some(self, which: Array) -> StoredClasses:
        """The rows of a mask, or of a list of places."""
        return StoredClasses(*(array[which] for array in self))


def stored_classes(piece: RowPiece, task: TeacherTask) -> StoredClasses:
    """What is stored of a piece's rows; an error for slots that cannot be."""
    values, rows = float_rows(piece.beside[0], "teacher"), piece.layout.rows
    classes = piece.layout.classes if task.top else max(piece.layout.classes, task.columns)
    wide, stored = np.zeros((rows, classes)), np.zeros((rows, classes), bool)
    if task.top:
        present = np.full(rows, True) if piece.targets is None else piece.targets >= 0
        slots = slots_of(task, values, class_columns(piece.beside[1]), present, piece.start)
        row, slot = np.nonzero(~slots.empty)
        wide[row, slots.classes[row, slot]] = slots.values[row, slot]
        stored[row, slots.classes[row, slot]] = True
    else:
        wide[:, : task.columns], stored[:, : task.columns] = values, True
    rest = np.full(rows, np.nan)
    if task.has_rest:
        rest = float_rows(piece.beside[2], "teacher_rest")[:, 0]
    return StoredClasses(wide, stored, rest)


def padded(x: Array, classes: int) -> Array:
    """Logits with −∞ for the classes that the teacher alone has."""
    missing = classes - x.shape[1]
    return np.pad(x, ((0, 0), (0, missing)), constant_values=-np.inf) if missing else x
