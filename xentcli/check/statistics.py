"""Errors of any number of entries in constant memory: largest, percentiles, places, the worst.

All of these have `merge`: the statistics of two parts of the rows become those of both, with the
bits that one walk over all of them gives.
"""

from __future__ import annotations

from dataclasses import field, fields
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.oracles.rows import FloatRows, OracleResult
from xentcli.check.oracles.ulp import Errors
from xentcli.records import dataclass

STEPS = 8  # bins for each power of two: a percentile is at most 9 % too large
LOWEST, HIGHEST = -1100, 2200  # powers of two
BEYOND = 1024  # the first power of two that no float64 holds
SHARES = {"50%": 0.5, "99%": 0.99, "99.9%": 0.999}
WORST = 5
CONFIDENT = 2.0**-8  # 1 − p of a nearly certain class


class ErrorHistogram:
    """The largest of many numbers ≥ 0, and bounds that most of them stay below.

    >>> histogram = ErrorHistogram()
    >>> histogram.add(np.array([0.0, 1.0, 1.0, 8.0]))
    >>> histogram.largest, histogram.below(0.5)
    (8.0, 1.0)
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._bins = np.zeros((HIGHEST - LOWEST) * STEPS + 2, np.int64)

    def add(self, values: Array) -> None:
        """Count the next numbers; infinity is one."""
        if not values.size:
            return
        self.largest = max(self.largest, float(values.max()))
        with np.errstate(divide="ignore"):
            places = np.ceil(np.log2(values) * STEPS) - LOWEST * STEPS
        places = np.clip(places, 0, len(self._bins) - 1).astype(np.int64)
        self._bins += np.bincount(places.reshape(-1), minlength=len(self._bins))

    def merge(self, other: ErrorHistogram) -> None:
        """Take the numbers of another histogram."""
        self.largest = max(self.largest, other.largest)
        self._bins += other._bins

    def below(self, share: float) -> float:
        """The upper edge of the bin that this share of the numbers ends in."""
        total = np.cumsum(self._bins)
        if not total[-1]:
            return 0.0
        place = int(np.searchsorted(total, share * total[-1]))
        if place == 0:
            return 0.0
        power = place / STEPS + LOWEST
        return self.largest if power >= BEYOND else min(self.largest, 2.0**power)

    def facts(self) -> dict[str, float]:
        """The largest number and the percentiles, by name."""
        return {"max": self.largest, **{name: self.below(p) for name, p in SHARES.items()}}


class Misses(NamedTuple):
    """Which entries do not pass, and which are not exact."""

    off: Array
    inexact: Array


@dataclass
class EntryGroup:
    """Entries with something in common: how many, are off, are not exact, the largest error."""

    entries: int = 0
    off: int = 0
    inexact: int = 0
    max_ulp: float = 0.0

    def add(self, mask: Array, ulp: Array, misses: Misses) -> None:
        """The next entries."""
        self.entries += int(np.count_nonzero(mask))
        self.off += int(np.count_nonzero(misses.off & mask))
        self.inexact += int(np.count_nonzero(misses.inexact & mask))
        self.max_ulp = max(self.max_ulp, float(ulp[mask].max(initial=0.0)))

    def merge(self, other: EntryGroup) -> None:
        """Take the entries of another group of the same name."""
        self.entries += other.entries
        self.off += other.off
        self.inexact += other.inexact
        self.max_ulp = max(self.max_ulp, other.max_ulp)


class WorstEntry(NamedTuple):
    """One of the entries with the largest errors."""

    ulp: float
    row: int
    column: int
    candidate: float
    exact: float


@dataclass
class NonfiniteCounts:
    """NaN and infinities where there should be none, and where they are missing."""

    nan_extra: int = 0
    nan_missing: int = 0
    inf_extra: int = 0
    inf_missing: int = 0

    def add(self, candidate: Array, exact: Array, found: Errors) -> None:
        """The next entries."""
        if np.isfinite(candidate).all() and np.isfinite(exact).all():
            return
        nan, wanted = np.isnan(candidate), np.isnan(exact)
        self.nan_extra += int(np.count_nonzero(nan & ~wanted))
        self.nan_missing += int(np.count_nonzero(wanted & ~nan))
        wrong = (found.absolute > 0) & ~nan & ~wanted
        self.inf_extra += int(np.count_nonzero(np.isinf(candidate) & wrong))
        self.inf_missing += int(np.count_nonzero(np.isinf(exact) & wrong))

    def merge(self, other: NonfiniteCounts) -> None:
        """Take the counts of other entries."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass
class ErrorStatistics:
    """Everything that is counted over the rows. Rows are numbered in the whole problem."""

    classes: int
    entries: int = 0
    off: int = 0
    inexact: int = 0
    unresolved: int = 0  # what the oracle knows less exactly than an exact gradient has to be
    rows_off: int = 0
    oracle_ulp: float = 0.0  # how far off the oracle may be itself
    spreads: dict[str, ErrorHistogram] = field(
        default_factory=lambda: {name: ErrorHistogram() for name in ("ulp", "relative", "absolute")}
    )
    places: dict[str, EntryGroup] = field(default_factory=dict)
    nonfinite: NonfiniteCounts = field(default_factory=NonfiniteCounts)
    worst: list[WorstEntry] = field(default_factory=list)
    off_rows: list[int] = field(default_factory=list)  # the first and the last
    off_columns: list[int] = field(default_factory=list)

    @property
    def tail(self) -> int:
        """How many columns count as the last ones."""
        return min(16, max(1, self.classes // 8))

    def add(
        self, rows: FloatRows, candidate: Array, exact: OracleResult, found: Errors, misses: Misses
    ) -> None:
        """The next rows: what was given for them, what is right, and which entries are off."""
        off = misses.off
        self.entries += off.size
        self.inexact += int(np.count_nonzero(misses.inexact))
        with np.errstate(over="ignore"):
            largest = float((exact.error_bound / found.unit).max(initial=0.0))
        self.oracle_ulp = max(self.oracle_ulp, largest)
        for name, histogram in self.spreads.items():
            histogram.add(getattr(found, name))
        for name, mask in self._masks(rows, exact).items():
            self.places.setdefault(name, EntryGroup()).add(mask, found.ulp, misses)
        self.nonfinite.add(candidate, exact.grad.high, found)
        if off.any():
            self._count_off(rows.numbers, off)
        self._keep_worst(rows.numbers, candidate, exact.grad.high, found)

    def merge(self, other: ErrorStatistics) -> None:
        """Take the statistics of other rows of the same problem."""
        self.entries += other.entries
        self.off += other.off
        self.inexact += other.inexact
        self.unresolved += other.unresolved
        self.rows_off += other.rows_off
        self.oracle_ulp = max(self.oracle_ulp, other.oracle_ulp)
        for name, histogram in other.spreads.items():
            self.spreads[name].merge(histogram)
        for name, group in other.places.items():
            self.places.setdefault(name, EntryGroup()).merge(group)
        self.nonfinite.merge(other.nonfinite)
        self._sort_worst(other.worst)
        _widen(self.off_rows, other.off_rows)
        _widen(self.off_columns, other.off_columns)

    def _masks(self, rows: FloatRows, exact: OracleResult) -> dict[str, Array]:
        shape = rows.x.shape
        present = rows.present[:, None]
        target = (np.arange(shape[1]) == rows.likeliest[:, None]) & present
        confident = (exact.uncertainty < CONFIDENT)[:, None] & present
        last = np.arange(shape[1]) >= shape[1] - self.tail
        return {
            "target entries": target,
            "other entries": ~target & present,
            "ignored rows": np.broadcast_to(~present, shape),
            "confident rows": np.broadcast_to(confident, shape),
            "less certain rows": np.broadcast_to(~confident & present, shape),
            "last columns": np.broadcast_to(last, shape),
        }

    def _count_off(self, numbers: Array, off: Array) -> None:
        self.off += int(np.count_nonzero(off))
        rows, columns = off.any(axis=1), off.any(axis=0)
        self.rows_off += int(np.count_nonzero(rows))
        _widen(self.off_rows, numbers[rows][[0, -1]].tolist())
        _widen(self.off_columns, np.flatnonzero(columns)[[0, -1]].tolist())

    def _keep_worst(self, numbers: Array, candidate: Array, exact: Array, found: Errors) -> None:
        ulp = found.ulp.reshape(-1)
        least = self.worst[-1].ulp if len(self.worst) == WORST else 0.0
        if not ulp.size or ulp.max() <= least:
            return
        new = []
        for flat in _largest(ulp, WORST):
            row, column = divmod(flat, candidate.shape[1])
            pair = float(candidate[row, column]), float(exact[row, column])
            new.append(WorstEntry(float(ulp[flat]), int(numbers[row]), column, *pair))
        self._sort_worst(new)

    def _sort_worst(self, new: list[WorstEntry]) -> None:
        both = sorted([*self.worst, *new], key=lambda one: (-one.ulp, one.row, one.column))
        self.worst[:] = [one for one in both if one.ulp > 0][:WORST]


def _largest(values: Array, count: int) -> list[int]:
    """The places of the largest numbers; of equal ones the first, however the rows are cut."""
    count = min(count, values.size)
    limit = np.partition(values, values.size - count)[values.size - count]
    above = np.flatnonzero(values > limit)
    equal = np.flatnonzero(values == limit)[: count - above.size]
    found: list[int] = [*above.tolist(), *equal.tolist()]
    return found


def _widen(ends: list[int], new: list[int]) -> None:
    """Move the first and the last of some numbers, if there are any, to include others."""
    if new:
        ends[:] = [min([*ends, *new]), max([*ends, *new])]
