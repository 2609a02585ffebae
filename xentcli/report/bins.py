"""Calibration: rows in bins of confidence, and how far each bin's accuracy is from it.

    ECE  = Σ_b (W_b/W)·|acc_b − conf_b|          W_b = Σ v of the bin, W of all
    MCE  = max_b |acc_b − conf_b|
    ℓ2   = √ max(0, Σ_b (W_b/W)·((acc_b − conf_b)² − acc_b·(1 − acc_b)/(n_b − 1)))

ECE and MCE as in Guo, Pleiss, Sun, Weinberger (2017); the debiased ℓ2 error of Kumar, Liang, Ma
(2019), in which a bin of one row adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.records import dataclass
from xentcli.report.statistic import Statistic, wilson


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is above `low` and at most `high`, `n` of them.

    `weight` is their share of all rows, by their weights; `interval` is the 95 % interval of
    `accuracy` (Wilson).
    """

    low: float
    high: float
    n: int
    weight: float
    confidence: float
    accuracy: float
    interval: tuple[float, float] | None
    effective: float  # as many rows of equal weight

    @property
    def gap(self) -> float:
        """accuracy − confidence: negative where the model is too sure of itself."""
        return self.accuracy - self.confidence

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if name != "effective"}


def borders(bins: int) -> Array:
    """The doubles k/M from 0 to 1; `linspace` is one bit off for M = 10 and 20, among others.

    >>> borders(10)[3] == 3 / 10, np.linspace(0, 1, 11)[3] == 3 / 10
    (np.True_, np.False_)
    """
    return np.arange(bins + 1) / bins


class BinTotals:
    """Sums over the rows of each bin; the bins are between borders, each closed above."""

    def __init__(self, edges: Array) -> None:
        self.edges, bins = edges, len(edges) - 1
        self._counts = np.zeros(bins, np.int64)
        self._broken = 0  # rows without a confidence
        self._sums = {name: GroupedSums(bins) for name in ("v", "v²", "confidence", "accuracy")}

    def add(self, confidence: Array, correct: Array, weights: Array | None) -> None:
        """Take the next rows: their confidence, share of correct, and v or None for ones."""
        bins = len(self._counts)
        index = _bin_of(confidence, self.edges)
        known = index < bins
        if not known.all():
            self._broken += int(np.count_nonzero(~known))
            index, confidence, correct = index[known], confidence[known], correct[known]
            weights = None if weights is None else weights[known]
        self._counts += np.bincount(index, minlength=bins)
        if weights is not None:
            self._sums["v"].add(index, weights)
            self._sums["v²"].add(index, weights * weights)
            confidence, correct = confidence * weights, correct * weights
        self._sums["confidence"].add(index, confidence)
        self._sums["accuracy"].add(index, correct)
        self._weighted = weights is not None

    _weighted = False

    def merge(self, other: BinTotals) -> None:
        """Take the rows of another with the same borders."""
        self._counts += other._counts
        self._broken += other._broken
        self._weighted |= other._weighted
        for name, sums in self._sums.items():
            sums.merge(other._sums[name])

    def bins(self) -> tuple[Bin, ...]:
        """The bins that have rows; none where a row has no confidence."""
        sums = {name: each.values() for name, each in self._sums.items()}
        if not self._weighted:
            sums["v"] = sums["v²"] = self._counts.astype(np.float64)
        total = math.fsum(sums["v"])
        if self._broken or not total:
            return ()
        return tuple(
            self._bin(
                int(number), {name: float(each[number]) for name, each in sums.items()}, total
            )
            for number in np.flatnonzero((self._counts > 0) & (sums["v"] != 0))
        )

    def _bin(self, number: int, sums: dict[str, float], total: float) -> Bin:
        weight, effective = sums["v"], sums["v"] ** 2 / sums["v²"]
        accuracy = sums["accuracy"] / weight
        return Bin(
            float(self.edges[number]),
            float(self.edges[number + 1]),
            int(self._counts[number]),
            weight / total,
            sums["confidence"] / weight,
            accuracy,
            wilson(accuracy, effective),
            effective,
        )


def _bin_of(confidence: Array, edges: Array) -> Array:
    """The first bin whose upper border is not below it; as many as there are bins without one."""
    bins = len(edges) - 1
    with np.errstate(invalid="ignore"):  # NaN
        index = (np.ceil(confidence * bins) - 1).astype(np.int64)  # of equally wide bins, mostly
    np.clip(index, 0, bins - 1, out=index)
    if ((edges[index] < confidence) & (confidence <= edges[index + 1])).all():
        return np.asarray(index)
    return np.asarray(np.searchsorted(edges[1:], confidence, side="left"))


def mass_edges(confidence: Array, bins: int) -> Array:
    """Borders of bins with about equally many rows each; rows of equal confidence stay together.

    A border that would cut through equal confidences moves up to their end, so there may be fewer
    bins. The array is sorted.

    >>> mass_edges(np.array([0.4, 0.1, 0.4, 0.4, 0.9]), 3).tolist()
    [0.0, 0.4, 0.9]
    """
    confidence.sort()
    n = len(confidence)
    cuts = {
        confidence[min(n, round(n * k / bins)) - 1] for k in range(1, bins + 1) if n * k >= bins
    }
    return np.array([0.0, *sorted(cuts)])


def calibration(bins: Iterable[Bin], n: int) -> dict[str, Statistic]:
    """The three calibration errors of some bins; none without bins."""
    bins = tuple(bins)
    if not bins:
        return {}
    worst = max(bins, key=lambda item: abs(item.gap))
    squares = math.fsum(item.weight * _debiased(item) for item in bins)
    ece = math.fsum(item.weight * abs(item.gap) for item in bins)
    words = f"{len(bins)} bins with rows"
    root = math.sqrt(max(0.0, squares))
    return {
        "ece": Statistic(ece, None, None, n, f"Σ (W_b/W)·|acc_b − conf_b|, {words}"),
        "mce": Statistic(
            abs(worst.gap), None, None, worst.n, f"max |acc_b − conf_b|, {words}; n is its bin's"
        ),
        "ece_l2_debiased": Statistic(
            root,
            None,
            None,
            n,
            f"√Σ (W_b/W)·((acc_b − conf_b)² − acc_b·(1 − acc_b)/(n_b − 1)), {words}",
        ),
    }


def _debiased(item: Bin) -> float:
    """The squared gap without what the sampling error of the accuracy adds to it."""
    if item.effective <= 1:
        return 0.0
    noise = item.accuracy * (1 - item.accuracy) / (item.effective - 1)
    return item.gap * item.gap - noise
