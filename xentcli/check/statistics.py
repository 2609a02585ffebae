"""Errors of any number of entries in constant memory: largest, percentiles, places, the worst."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.oracles.rows import Exact, Rows
from xentcli.check.oracles.ulp import Errors

STEPS = 8  # bins for each power of two: a percentile is at most 9 % too large
LOWEST, HIGHEST = -1100, 2200  # powers of two
SHARES = {"50%": 0.5, "99%": 0.99, "99.9%": 0.999}
WORST = 5
CONFIDENT = 2.0**-8  # 1 − p of a nearly certain class


class Spread:
    """The largest of many numbers ≥ 0, and below what most of them are.

    >>> spread = Spread()
    >>> spread.add(np.array([0.0, 1.0, 1.0, 8.0]))
    >>> spread.largest, spread.below(0.5)
    (8.0, 1.0)
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._bins = np.zeros((HIGHEST - LOWEST) * STEPS + 2, np.int64)

    def add(self, values: Array) -> None:
        """The next numbers; infinity is one."""
        if not values.size:
            return
        self.largest = max(self.largest, float(values.max()))
        with np.errstate(divide="ignore"):
            places = np.ceil(np.log2(values) * STEPS) - LOWEST * STEPS
        places = np.clip(places, 0, len(self._bins) - 1).astype(np.int64)
        self._bins += np.bincount(places.reshape(-1), minlength=len(self._bins))

    def below(self, share: float) -> float:
        """The upper edge of the bin that this share of the numbers ends in."""
        total = np.cumsum(self._bins)
        if not total[-1]:
            return 0.0
        place = int(np.searchsorted(total, share * total[-1]))
        if place == 0:
            return 0.0
        if place == len(self._bins) - 1:
            return self.largest
        return min(self.largest, float(2.0 ** (place / STEPS + LOWEST)))

    def facts(self) -> dict[str, float]:
        """All of it."""
        return {"max": self.largest, **{name: self.below(p) for name, p in SHARES.items()}}


@dataclass
class Place:
    """Entries of one sort: how many, how many are off, and the largest error."""

    entries: int = 0
    off: int = 0
    max_ulp: float = 0.0

    def add(self, mask: Array, ulp: Array, off: Array) -> None:
        """The next entries."""
        self.entries += int(np.count_nonzero(mask))
        self.off += int(np.count_nonzero(off & mask))
        self.max_ulp = max(self.max_ulp, float(ulp[mask].max(initial=0.0)))


class Bad(NamedTuple):
    """One entry that stands out."""

    ulp: float
    row: int
    column: int
    theirs: float
    exact: float


@dataclass
class Odd:
    """Numbers that are none: NaN and infinity where they should not be, and where they miss."""

    nan_extra: int = 0
    nan_missing: int = 0
    inf_extra: int = 0
    inf_missing: int = 0


@dataclass
class Statistics:
    """Everything that is counted while rows go by."""

    classes: int
    entries: int = 0
    off: int = 0
    rows_off: int = 0
    blind: float = 0.0  # how far off the oracle may be itself, in ULP
    spreads: dict[str, Spread] = field(
        default_factory=lambda: {name: Spread() for name in ("ulp", "relative", "absolute")}
    )
    places: dict[str, Place] = field(default_factory=dict)
    odd: Odd = field(default_factory=Odd)
    worst: list[Bad] = field(default_factory=list)
    off_rows: list[int] = field(default_factory=list)  # the first and the last
    off_columns: list[int] = field(default_factory=list)

    @property
    def tail(self) -> int:
        """How many columns count as the last ones."""
        return min(16, max(1, self.classes // 8))

    def add(self, rows: Rows, theirs: Array, exact: Exact, found: Errors, off: Array) -> None:
        """The next rows."""
        self.entries += off.size
        with np.errstate(over="ignore"):
            self.blind = max(self.blind, float((exact.doubt / found.unit).max(initial=0.0)))
        for name, spread in self.spreads.items():
            spread.add(getattr(found, name))
        for name, mask in self._masks(rows, exact).items():
            self.places.setdefault(name, Place()).add(mask, found.ulp, off)
        self._count_odd(theirs, exact.grad.high, found)
        if off.any():
            self._count_off(rows.numbers, off)
        self._keep_worst(rows.numbers, theirs, exact.grad.high, found)

    def _masks(self, rows: Rows, exact: Exact) -> dict[str, Array]:
        shape = rows.x.shape
        present = rows.present[:, None]
        at = np.argmax(rows.q, axis=1) if rows.target is None else rows.target
        target = (np.arange(shape[1]) == at[:, None]) & present
        confident = (exact.uncertain < CONFIDENT)[:, None] & present
        last = np.arange(shape[1]) >= shape[1] - self.tail
        return {
            "target entries": target,
            "other entries": ~target & present,
            "ignored rows": np.broadcast_to(~present, shape),
            "confident rows": np.broadcast_to(confident, shape),
            "less certain rows": np.broadcast_to(~confident & present, shape),
            "last columns": np.broadcast_to(last, shape),
        }

    def _count_odd(self, theirs: Array, exact: Array, found: Errors) -> None:
        if np.isfinite(theirs).all() and np.isfinite(exact).all():
            return
        nan, wanted = np.isnan(theirs), np.isnan(exact)
        self.odd.nan_extra += int(np.count_nonzero(nan & ~wanted))
        self.odd.nan_missing += int(np.count_nonzero(wanted & ~nan))
        wrong = (found.absolute > 0) & ~nan & ~wanted
        self.odd.inf_extra += int(np.count_nonzero(np.isinf(theirs) & wrong))
        self.odd.inf_missing += int(np.count_nonzero(np.isinf(exact) & wrong))

    def _count_off(self, numbers: Array, off: Array) -> None:
        self.off += int(np.count_nonzero(off))
        rows, columns = off.any(axis=1), off.any(axis=0)
        self.rows_off += int(np.count_nonzero(rows))
        found = (self.off_rows, numbers[rows]), (self.off_columns, np.flatnonzero(columns))
        for kept, new in found:
            ends = [*kept, int(new.min()), int(new.max())]
            kept[:] = [min(ends), max(ends)]

    def _keep_worst(self, numbers: Array, theirs: Array, exact: Array, found: Errors) -> None:
        ulp = found.ulp.reshape(-1)
        count = min(WORST, ulp.size)
        least = self.worst[-1].ulp if len(self.worst) == WORST else 0.0
        if not count or ulp.max() <= least:
            return
        for flat in np.argpartition(-ulp, count - 1)[:count].tolist():
            row, column = divmod(flat, theirs.shape[1])
            bad = (int(numbers[row]), column, float(theirs[row, column]), float(exact[row, column]))
            self.worst.append(Bad(float(ulp[flat]), *bad))
        self.worst.sort(key=lambda bad: (-bad.ulp, bad.row, bad.column))
        self.worst[:] = [bad for bad in self.worst if bad.ulp > 0][:WORST]
