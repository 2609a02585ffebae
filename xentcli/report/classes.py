"""Rows by their target class, and the pairs of classes that are taken for each other."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.backends.fields import Field
from xentcli.records import dataclass
from xentcli.report.scores import Scores

PENDING = 1 << 16  # wrong rows whose pairs are counted at a time


@dataclass(frozen=True)
class ClassResult:
    """The rows of one target class: how many, and means over them."""

    index: int
    n: int
    accuracy: float
    nll: float
    confidence: float


@dataclass(frozen=True)
class Confusion:
    """How many rows of the class `target` are predicted as `prediction`."""

    target: int
    prediction: int
    n: int
    share: float  # of the rows of that class


class ClassTotals:
    """Sums over the rows of each target class."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros(classes, np.int64)
        self._weighted = False
        self._sums = {name: GroupedSums(classes) for name in ("v", "accuracy", "nll", "confidence")}

    def add(self, scores: Scores) -> None:
        """Take the next rows."""
        index, v = scores.targets, scores.weights
        assert index is not None
        np.add.at(self._counts, index, 1)
        columns = {
            "accuracy": scores.share(1),
            "nll": scores[Field.NLL],
            "confidence": scores[Field.CONFIDENCE],
        }
        if v is not None:
            self._weighted = True
            self._sums["v"].add(index, v)
        for name, column in columns.items():
            self._sums[name].add(index, column if v is None else column * v)

    def merge(self, other: ClassTotals) -> None:
        """Take the rows of another."""
        self._counts += other._counts
        self._weighted |= other._weighted
        for name, sums in self._sums.items():
            sums.merge(other._sums[name])

    @property
    def counts(self) -> Array:
        """The number of rows of each class."""
        return self._counts

    def results(self) -> tuple[ClassResult, ...]:
        """The classes that have rows."""
        sums = {name: each.values() for name, each in self._sums.items()}
        weights = sums["v"] if self._weighted else self._counts
        with np.errstate(all="ignore"):
            means = {name: sums[name] / weights for name in ("accuracy", "nll", "confidence")}
        return tuple(
            ClassResult(
                int(c),
                int(self._counts[c]),
                **{name: float(values[c]) for name, values in means.items()},
            )
            for c in np.flatnonzero(self._counts)
        )


class PairCounts:
    """Counts of wrong rows by target and prediction; only pairs that occur take memory."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._pairs, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._waiting: list[tuple[Array, Array]] = []
        self._rows = 0

    def add(self, scores: Scores) -> None:
        """Take the next rows."""
        predictions = scores[Field.PREDICTION]
        wrong = (predictions != scores.targets) & ~np.isnan(predictions)
        assert scores.targets is not None
        pairs = scores.targets[wrong] * self._classes + predictions[wrong].astype(np.int64)
        self._take(pairs, np.ones(len(pairs), np.int64))

    def merge(self, other: PairCounts) -> None:
        """Take the rows of another."""
        other._count()
        self._take(other._pairs, other._counts)

    def _take(self, pairs: Array, counts: Array) -> None:
        self._waiting.append((pairs, counts))
        self._rows += len(pairs)
        if self._rows > PENDING + len(self._pairs):
            self._count()

    def _count(self) -> None:
        known = [(self._pairs, self._counts), *self._waiting]
        pairs, counts = (np.concatenate(parts) for parts in zip(*known, strict=True))
        self._pairs, place = np.unique(pairs, return_inverse=True)
        self._counts = np.zeros(len(self._pairs), np.int64)
        np.add.at(self._counts, place, counts)
        self._waiting, self._rows = [], 0

    def most(self, count: int, of_class: Array) -> tuple[Confusion, ...]:
        """The most frequent pairs; `of_class` is the number of rows of each class."""
        self._count()
        order = np.lexsort((self._pairs, -self._counts))[:count]
        return tuple(
            Confusion(target, prediction, n, n / int(of_class[target]))
            for target, prediction, n in (
                (*divmod(int(self._pairs[i]), self._classes), int(self._counts[i])) for i in order
            )
        )
