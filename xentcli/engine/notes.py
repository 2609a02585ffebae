"""Notes on results that are correct but may surprise."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import HALVES, NAMES, Array, widen
from xentcli.arrays.sums import extremes
from xentcli.backends.cpu.threads import equal_parts, run
from xentcli.errors import Setting, StrictError, Words, plural, worded

LEAST_PART = 1 << 19  # numbers for a thread, which take it 0.1 ms
PLAIN_SUM = 4096  # up to so many classes a plain sum in float32 is precise enough


class Note(NamedTuple):
    """One sentence about an argument, and whether `--strict` makes it an error."""

    where: str
    words: Words
    strict: bool

    @property
    def text(self) -> str:
        """The sentence for Python callers."""
        return worded(self.words)


class ProbabilityCheck:
    """Looks for probabilities that are negative or do not sum to 1; keeps the worst row.

    >>> check = ProbabilityCheck()
    >>> check.add(np.array([[0.5, 0.5], [0.75, 0.75]]))
    >>> check.notes()[0].text
    '1 of 2 rows is not a probability distribution; the worst: row 1 sums to 1.5'
    """

    rows = wrong = 0
    worst = 0.0, 0, ""  # its error, its number, and what is wrong with it
    numbered = False  # whether rows have their numbers in a larger whole

    def add(self, q: Array, threads: int = 1) -> None:
        """Check the next rows, (n, C) or a box (outer, C, inner). float32 is precise enough.

        First all of them at once, which settles most blocks: the minimum of each row took 90 ms
        for 2²⁴ entries of 64 classes, the minimum of all takes 2.
        """
        q = q[..., None] if q.ndim == 2 else q
        tolerance = tolerance_of(q.dtype)
        values = widen(q, NAMES["f32"]) if q.dtype in HALVES else q
        if not all_right(values, tolerance, threads):
            self._find(values.transpose(0, 2, 1).reshape(-1, q.shape[1]), tolerance)
        self.rows += q.shape[0] * q.shape[2]

    def _find(self, rows: Array, tolerance: float) -> None:
        """Find the wrong rows (n, C), by sums whose bits do not depend on how the rows are cut."""
        self.add_rows(_sums(np.ascontiguousarray(rows)), rows.min(axis=1), tolerance)

    def add_rows(self, sums: Array, smallest: Array, tolerance: float) -> None:
        """Check rows by their sums and smallest entries."""
        error = np.maximum(np.abs(sums - 1), np.where(smallest < 0, 1 - smallest, 0.0))
        error[np.isnan(error)] = np.inf
        wrong = error > tolerance
        if not wrong.any():
            return
        self.wrong += int(np.count_nonzero(wrong))
        row = int(np.argmax(error))
        if error[row] > max(self.worst[0], tolerance):
            what = (
                f"has the entry {smallest[row]:.6g}"
                if smallest[row] < 0
                else f"sums to {sums[row]:.6g}"
            )
            self.worst = (float(error[row]), self.rows + row, what)

    def renumber(self, place: Callable[[int], int]) -> None:
        """Let rows have their numbers in a larger whole, whose parts need not be in order."""
        error, row, what = self.worst
        self.worst, self.numbered = (error, place(row) if self.wrong else 0, what), True

    def merge(self, other: ProbabilityCheck) -> None:
        """Take what was found in the rows that follow, or in any that are renumbered."""
        error, row, what = other.worst
        row += 0 if other.numbered else self.rows
        if (error, -row) > (self.worst[0], -self.worst[1]):
            self.worst = (error, row, what)
        self.rows += other.rows
        self.wrong += other.wrong

    def notes(self) -> list[Note]:
        """What was found."""
        if not self.wrong:
            return []
        _, row, what = self.worst
        verb = "is" if self.wrong == 1 else "are"
        text = (
            f"{self.wrong} of {plural(self.rows, 'row')} {verb} not a probability "
            f"distribution; the worst: row {row} {what}"
        )
        return [Note("targets", text, strict=True)]


@lru_cache(maxsize=64)
def tolerance_of(dtype: np.dtype[Any]) -> float:
    """How far from 1 sums may be: probabilities of four digits, or of 16 bits, pass."""
    return 1e-2 if dtype in HALVES else 1e-3


def all_right(box: Array, tolerance: float, threads: int = 1) -> bool:
    """Whether all rows of a box are clearly right; false if there is a NaN.

    These sums are off by less than a quarter of the tolerance. What is not clear is checked
    again by rows, so that the result does not depend on how the rows are cut.
    """
    if threads == 1:  # as for every small job
        return _are_right(box, tolerance)
    parts = equal_parts(len(box), min(threads, box.size // LEAST_PART))
    found: list[bool] = []
    run(lambda a, b: found.append(_are_right(box[a:b], tolerance)), parts, threads)
    return all(found)


def _are_right(box: Array, tolerance: float) -> bool:
    sums = _sums(box)
    if not sums.size:
        return True
    least, most = 1 - 0.75 * tolerance, 1 + 0.75 * tolerance
    return bool(box.min() >= 0 and sums.min() >= least and sums.max() <= most)


def _sums(values: Array) -> Array:
    """The sums over axis 1: of few classes by `einsum`, which is three times as fast, and whose
    plain sum is off by less than C·2⁻²⁴; of many in pairs."""
    if values.shape[1] > PLAIN_SUM:
        return np.asarray(values.sum(axis=1))
    return np.asarray(np.einsum("oc...->o...", values))


class NonfiniteRows:
    """Counts the rows whose value is NaN or infinite; keeps the first.

    >>> rows = NonfiniteRows("loss")
    >>> rows.add(np.array([1.0])), rows.add(np.array([2.0, np.inf]))
    (None, None)
    >>> rows.notes()[0].text
    'the loss of 1 of 3 rows is not finite; first: row 2 is inf'
    """

    rows = count = 0
    first = 0, 0.0
    numbered = False  # whether rows have their numbers in a larger whole

    def __init__(self, what: str) -> None:
        self.what = what

    def add(self, values: Array) -> None:
        """The next rows' values."""
        start, self.rows = self.rows, self.rows + values.size
        if all(map(isfinite, extremes(values))):
            return
        bad = ~np.isfinite(values)
        if not self.count and bad.any():
            row = int(np.argmax(bad))
            self.first = start + row, float(values[row])
        self.count += int(np.count_nonzero(bad))

    def renumber(self, place: Callable[[int], int]) -> None:
        """Let rows have their numbers in a larger whole, whose parts need not be in order."""
        row, value = self.first
        self.first, self.numbered = (place(row) if self.count else 0, value), True

    def merge(self, other: NonfiniteRows) -> None:
        """Take what was found in the rows that follow, or in any that are renumbered."""
        theirs = other.first[0] + (0 if other.numbered else self.rows), other.first[1]
        if other.count and (not self.count or theirs[0] < self.first[0]):
            self.first = theirs
        self.rows += other.rows
        self.count += other.count

    def notes(self) -> list[Note]:
        """What was found."""
        if not self.count:
            return []
        row, value = self.first
        text = (
            f"the {self.what} of {self.count} of {plural(self.rows, 'row')} is not finite; "
            f"first: row {row} is {value:g}"
        )
        return [Note("logits", text, strict=True)]


class NonfiniteEntries:
    """Counts the numbers of an array that are NaN or infinite; keeps the first.

    >>> entries = NonfiniteEntries((2, 2))
    >>> entries.add(np.array([1.0, 2.0])), entries.add(np.array([3.0, np.nan]))
    (None, None)
    >>> entries.require_none()
    Traceback (most recent call last):
    xentcli.errors.StrictError: logits: 1 result is not finite; first: [1, 1] (without strict \
it is written anyway)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.done, self.count, self.first = shape, 0, 0, 0

    def add(self, values: Array) -> None:
        """The next numbers, flat."""
        known = widen(values, NAMES["f32"]) if values.dtype in HALVES else values
        bad = np.flatnonzero(~np.isfinite(known))
        if len(bad) and not self.count:
            self.first = self.done + int(bad[0])
        self.count += len(bad)
        self.done += len(values)

    def merge(self, other: NonfiniteEntries) -> None:
        """Take what was found in the numbers that follow, of the same array."""
        if not self.count:
            self.first = self.done + other.first
        self.count += other.count
        self.done += other.done

    def require_none(self) -> None:
        """Raise `StrictError` if there was one."""
        if self.count:
            place = ", ".join(str(int(i)) for i in np.unravel_index(self.first, self.shape))
            verb = "is" if self.count == 1 else "are"
            text = f"{plural(self.count, 'result')} {verb} not finite; first: [{place}]"
            hint = "without ", Setting("strict"), " it is written anyway"
            raise StrictError("logits", text, hint)
