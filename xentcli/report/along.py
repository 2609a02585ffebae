"""The loss along the file, and a sample of rows to draw."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.backends.fields import Field
from xentcli.records import dataclass
from xentcli.report.divergence import BaseField
from xentcli.report.scores import Scores

SEGMENTS = 60
POINTS = 2000


@dataclass(frozen=True)
class Segment:
    """The mean nll of the rows from `first` to `last`, of which `n` count; None without any."""

    first: int
    last: int
    n: int
    nll: float | None


class LossAlong:
    """Sums of the loss over consecutive parts of all rows, about equally long."""

    def __init__(self, rows: int) -> None:
        self._rows, self._segments = rows, min(SEGMENTS, rows)
        self._counts = np.zeros(self._segments, np.int64)
        self._sums, self._weights = GroupedSums(self._segments), GroupedSums(self._segments)
        self._weighted = False

    def add(self, scores: Scores) -> None:
        """Take the next rows, in order."""
        v, nll = scores.weights, scores[Field.NLL]
        bounds = np.searchsorted(scores.rows, [self._first(k) for k in range(self._segments + 1)])
        counts = np.diff(bounds)
        self._counts += counts
        index = np.flatnonzero(counts)
        starts = bounds[index]
        if v is not None:
            self._weighted = True
            self._weights.add_runs(index, starts, v)
        self._sums.add_runs(index, starts, nll if v is None else nll * v)

    def _first(self, k: int) -> int:
        """The first row of a part."""
        return -(-self._rows * k // self._segments)

    def merge(self, other: LossAlong) -> None:
        """Take the rows of another part of the same whole."""
        self._counts += other._counts
        self._weighted |= other._weighted
        self._sums.merge(other._sums)
        self._weights.merge(other._weights)

    def segments(self) -> tuple[Segment, ...]:
        """All parts, in order."""
        total = self._weights.values() if self._weighted else self._counts
        with np.errstate(all="ignore"):
            means = self._sums.values() / total
        return tuple(
            Segment(
                self._first(k),
                self._first(k + 1) - 1,
                int(self._counts[k]),
                float(means[k]) if self._counts[k] else None,
            )
            for k in range(self._segments)
        )


class RowSample:
    """The loss of the base and of the model for every so-many-th row, for a picture."""

    def __init__(self, rows: int) -> None:
        self._step = max(1, -(-rows // POINTS))
        self._points: list[Array] = []

    def add(self, scores: Scores) -> None:
        """Take the next rows."""
        assert scores.base is not None
        chosen = scores.rows % self._step == 0
        pairs = np.stack([scores.base[BaseField.NLL], scores[Field.NLL]])[:, chosen]
        self._points.append(pairs[:, np.isfinite(pairs).all(axis=0)])

    def merge(self, other: RowSample) -> None:
        """Take the rows of another part of the same whole."""
        self._points += other._points

    def points(self) -> tuple[tuple[float, float], ...]:
        """(loss of the base, loss of the model) of the rows that were chosen."""
        pairs = np.concatenate([np.empty((2, 0)), *self._points], axis=1)
        return tuple((float(x), float(y)) for x, y in pairs.T)
