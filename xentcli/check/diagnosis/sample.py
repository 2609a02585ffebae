"""Rows that are kept for the diagnosis: a bounded number, from everywhere.

Small problems are kept whole. Of others: groups of neighbours, evenly spaced, because a mistake
may be one of rows; the first rows that are off; and those that are off most.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Layout
from xentcli.check.oracles.rows import FloatRows
from xentcli.check.oracles.teacher_rows import StoredClasses
from xentcli.records import dataclass

ENTRIES = 1 << 18  # 2 MiB for each array of float64
GROUP = 4
WORST = 8


class SampledRows(NamedTuple):
    """Rows, the gradient given for them, the exact one, the size of its terms, and what is off."""

    rows: FloatRows
    candidate: Array
    exact: Array
    size: Array
    off: Array

    def some(self, which: Array) -> SampledRows:
        """The rows of a mask, or of a list of places."""
        rows, *arrays = self
        return SampledRows(rows.some(which), *(array[which] for array in arrays))


@dataclass
class _WorstRow:
    ulp: float
    sampled: SampledRows


class Sample:
    """Takes all rows one after the other, and keeps some."""

    def __init__(self, layout: Layout, only: Array | None = None) -> None:
        rows, classes = layout.rows, layout.classes
        room = max(GROUP, ENTRIES // max(1, classes))
        self.layout = layout
        self.whole = rows <= room and only is None
        self._sparse = only is not None  # `only` these rows are compared at all
        self._wanted = np.arange(rows) if self.whole else _groups(rows, room)
        if only is not None:
            self._wanted = only[:room]
        self._room = max(GROUP, room // GROUP)
        self._parts: list[SampledRows] = []
        self._worst: list[_WorstRow] = []
        self._columns: list[Array] = []

    def add(self, sampled: SampledRows, ulp: Array) -> None:
        """The next rows, and how far off each entry is."""
        wanted = np.isin(sampled.rows.numbers, self._wanted)
        if not self.whole:
            self._add_off(sampled, ulp, wanted)
            if self.layout.rows == self.layout.classes and not self._sparse:
                self._columns.append(sampled.candidate[:, self._wanted])
        if wanted.any():
            self._parts.append(sampled.some(np.flatnonzero(wanted)))

    def _add_off(self, sampled: SampledRows, ulp: Array, wanted: Array) -> None:
        """The first rows that are off, as long as there is room, and the worst ones."""
        off = np.flatnonzero(sampled.off.any(axis=1) & ~wanted)
        taken, rest = off[: self._room], off[self._room :]
        wanted[taken] = True
        self._room -= len(taken)
        order = np.argsort(-ulp[rest].max(axis=1, initial=0.0), kind="stable")
        for row in rest[order[:WORST]]:
            largest = float(ulp[row].max())
            if len(self._worst) < WORST or largest > self._worst[-1].ulp:
                self._worst.append(_WorstRow(largest, sampled.some(np.array([row]))))
                self._worst.sort(key=lambda worst: -worst.ulp)
                del self._worst[WORST:]

    def all(self) -> SampledRows | None:
        """What was kept, in order."""
        parts = [*self._parts, *(worst.sampled for worst in self._worst)]
        if not parts:
            return None
        joined = SampledRows(
            _joined([part.rows for part in parts]),
            *(np.concatenate(arrays) for arrays in zip(*(part[1:] for part in parts), strict=True)),
        )
        return joined.some(np.argsort(joined.rows.numbers, kind="stable"))

    def transposed(self, numbers: Array) -> Array | None:
        """Of a square gradient the columns with the same numbers as the given rows."""
        square = self.layout.rows == self.layout.classes and len(self.layout.shape) == 2
        if not square or self._sparse:
            return None
        everything = self.all()
        if self.whole and everything is not None:
            return np.asarray(everything.candidate[:, numbers].T)
        columns = np.full((len(numbers), self.layout.rows), np.nan)
        places = np.searchsorted(self._wanted, numbers)
        places = np.minimum(places, len(self._wanted) - 1)
        here = self._wanted[places] == numbers
        columns[here] = np.concatenate(self._columns)[:, places[here]].T
        return columns


def _groups(rows: int, room: int) -> Array:
    """The numbers of neighbours, in evenly spaced groups."""
    starts = np.linspace(0, rows - GROUP, room // GROUP).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(GROUP))


def _joined(parts: list[FloatRows]) -> FloatRows:
    names = ("x", "q", "sample_weight", "upstream", "numbers")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    targets = [part.target for part in parts if part.target is not None]
    teachers = [part.teacher for part in parts if part.teacher is not None]
    teacher = StoredClasses(*map(np.concatenate, zip(*teachers, strict=True))) if teachers else None
    target = np.concatenate(targets) if targets else None
    return replace(parts[0], target=target, teacher=teacher, **arrays)
