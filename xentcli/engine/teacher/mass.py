"""How much of a teacher's probability the stored classes capture, and notes on what is odd."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import HALVES, Array
from xentcli.arrays.sums import RunningSum, exact_sum
from xentcli.engine.notes import Note
from xentcli.errors import plural

LOOKED_AT = 64  # rows of a teacher of all classes: a pass over all of them would take as long again


class Captured(NamedTuple):
    """The captured mass Q of the rows that are not ignored: its mean, the smallest, and its row."""

    mean: float
    least: float
    row: int


class MassTotals:
    """The captured mass of all rows, and rows whose probabilities cannot be a distribution's.

    >>> totals = MassTotals(np.dtype(np.float32), whole=False)
    >>> totals.add(np.array([0.5, 1.0, 0.75]), np.array([True, False, True]))
    >>> totals.captured()
    Captured(mean=0.625, least=0.5, row=0)
    """

    def __init__(self, dtype: np.dtype[np.generic], *, whole: bool) -> None:
        self._tolerance, self._whole = 1e-2 if dtype in HALVES else 1e-3, whole
        self._sum, self.rows, self._counted = RunningSum(), 0, 0
        self._least = (np.inf, 0)  # and its row
        self._wrong, self._worst = 0, (0.0, 0, "")  # its error, its row, and what is wrong with it
        self._negative = False

    def add(self, mass: Array, present: Array, smallest: Array | None = None) -> None:
        """The sums of the next rows' probabilities, float64 (n,), which rows count, and the
        smallest probability of each row."""
        counted = np.flatnonzero(present)
        q = mass[counted]
        least = np.zeros(len(q)) if smallest is None else smallest[counted]
        self._sum.add(q)
        self._counted += len(q)
        if len(q):
            at = int(np.argmin(np.where(np.isnan(q), np.inf, q)))
            self._least = min(self._least, (float(q[at]), self.rows + int(counted[at])))
            error = np.abs(q - 1) if self._whole else q - 1
            error = np.where(least < 0, np.fmax(error, 1 - least), error)
            at = int(np.argmax(np.where(np.isnan(error), 0.0, error)))
            self._wrong += int(np.count_nonzero(error > self._tolerance))
            self._negative |= bool(np.any(least < 0))
            what = f"has {least[at]:.6g}" if least[at] < 0 else f"sums to {q[at]:.6g}"
            found = float(error[at]), -self.rows - int(counted[at]), what
            self._worst = max(self._worst, found)
        self.rows += len(mass)

    def add_dense(self, q: Array, present: Array) -> None:
        """The same from probabilities of all classes (n, C), of which the first are looked at."""
        left = max(0, LOOKED_AT - self.rows)
        self.add(exact_sum(q[:left]), present[:left], q[:left].min(axis=-1, initial=np.inf))
        self.rows += len(q) - min(left, len(q))

    def merge(self, other: MassTotals) -> None:
        """Take what was found in the rows that follow."""
        self._sum.merge(other._sum)
        self._counted += other._counted
        self._wrong += other._wrong
        least, row = other._least
        self._least = min(self._least, (least, self.rows + row))
        error, minus_row, what = other._worst
        self._worst = max(self._worst, (error, minus_row - self.rows, what))
        self._negative |= other._negative
        self.rows += other.rows

    def captured(self) -> Captured | None:
        """The mean and the smallest mass; None where no row counts."""
        if not self._counted:
            return None
        least, row = self._least
        least = least if np.isfinite(least) else np.nan  # no row has a mass
        return Captured(self._sum.value() / self._counted, least, row)

    def notes(self) -> list[Note]:
        """What was found."""
        if not self._wrong:
            return []
        _, minus_row, what = self._worst
        rows = plural(self._counted, "row") + (" looked at" if self._whole else "")
        than = "do not sum to 1" if self._whole else "sum to more than 1"
        than = f"are negative or {than}" if self._negative else than
        text = f"the probabilities of {self._wrong} of {rows} {than}"
        return [Note("teacher", f"{text}; the worst: row {-minus_row} {what}", True)]
