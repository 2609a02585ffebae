"""Means over rows with their standard errors, from sums that are exact.

    x̄   = Σ v·x / Σ v
    se² = n/(n−1)·Σ v²(x−x̄)² / (Σ v)²                       of independent rows
    se² = G/(G−1)·Σ_g (Σ_{i∈g} v(x−x̄))² / (Σ v)²            of G groups, rows of one may depend

Σ v²(x−x̄)² is Σ v²x² − 2x̄·Σ v²x + x̄²·Σ v², which cancels; here nothing is lost, because the
squares come with their rounding errors, their sums are exact, and the difference is one of
fractions. Rows that are all equal have an error of exactly 0.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product
from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.arrays.moments import MOST, PER_CALL, moments
from xentcli.arrays.sums import RunningSum


class MeanValue(NamedTuple):
    """A mean and its standard error; None where that is not defined."""

    value: float
    se: float | None


class RowWeights:
    """n, Σ v, Σ v², and Σ v of each group: what all means of the same rows share.

    `groups` is the number of groups, 0 for rows that are independent.
    """

    def __init__(self, groups: int = 0) -> None:
        self.groups, self.count, self.weighted = groups, 0, False
        self._sum, self._squares = RunningSum(), RunningSum()
        self._by_group, self._counts = GroupedSums(groups), GroupedSums(groups)

    def add(self, rows: int, weights: Array | None, group: Array | None) -> None:
        """Take the next rows: their number, their v or None for ones, and their groups."""
        self.count += rows
        if weights is not None:
            self.weighted = True
            self._sum.add(weights)
            self._squares.add_sums(*two_product(weights, weights))
        if group is not None:
            ones = np.ones(rows)
            self._by_group.add(group, ones if weights is None else weights)
            self._counts.add(group, ones)

    def merge(self, other: RowWeights) -> None:
        """Take the rows of another."""
        self.count += other.count
        self.weighted |= other.weighted
        self._sum.merge(other._sum)
        self._squares.merge(other._squares)
        self._by_group.merge(other._by_group)
        self._counts.merge(other._counts)

    @property
    def total(self) -> Fraction:
        """Σ v."""
        return self._sum.exact() if self.weighted else Fraction(self.count)

    @property
    def squares(self) -> Fraction:
        """Σ v²."""
        return self._squares.exact() if self.weighted else Fraction(self.count)

    @property
    def effective(self) -> float:
        """(Σ v)² / Σ v²: as many rows of equal weight would give the same error (Kish)."""
        return float(self.total**2 / self.squares) if self.squares else 0.0

    def by_group(self) -> tuple[Array, Array]:
        """Σ v of each group, and which groups have rows."""
        return self._by_group.values(), self._counts.values() > 0


class Mean:
    """The mean of one quantity.

    >>> weights, mean = RowWeights(), Mean()
    >>> weights.add(3, None, None), mean.add(np.array([1.0, 2.0, 6.0]), None, None)
    (None, None)
    >>> mean.over(weights)
    MeanValue(value=3.0, se=1.5275252316519468)
    """

    def __init__(self, groups: int = 0) -> None:
        self.sum, self._squares, self._cross = RunningSum(), RunningSum(), RunningSum()
        self._by_group = GroupedSums(groups)
        self._room = np.empty((MOST + 1, PER_CALL))

    def add(self, x: Array, weights: Array | None, group: Array | None) -> None:
        """Take the quantity of the next rows, with their v and groups."""
        if not len(x):
            return
        with np.errstate(all="ignore"):
            if weights is None:
                for first in range(0, len(x), PER_CALL):
                    self._add_plain(x[first : first + PER_CALL])
            else:
                self._add_weighted(x, weights)
            if group is not None:
                self._by_group.add(group, x if weights is None else weights * x)

    def _add_plain(self, x: Array) -> None:
        """x and x² without rounding errors."""
        found = moments(x, self._room)
        if found is None:
            self.sum.add(x)
            self._squares.add_sums(*two_product(x, x))
        else:
            self.sum.add_multiple(found.total, found.exponent)
            self._squares.add_multiple(found.squares, 2 * found.exponent)

    def _add_weighted(self, x: Array, weights: Array) -> None:
        """v·x as a number and its rounding error, and all products of the two."""
        high, low = two_product(weights, x)
        low = np.where(np.isfinite(high), low, 0.0)
        self.sum.add(high)
        self.sum.add(low)
        for a, b in ((high, high), (2 * high, low), (low, low)):
            self._squares.add_sums(*two_product(a, b))
        for part in (high, low):
            self._cross.add_sums(*two_product(weights, part))

    def merge(self, other: Mean) -> None:
        """Take the rows of another."""
        self.sum.merge(other.sum)
        self._squares.merge(other._squares)
        self._cross.merge(other._cross)
        self._by_group.merge(other._by_group)

    def over(self, weights: RowWeights) -> MeanValue:
        """The mean and its error; NaN over no rows."""
        total = weights.total
        if not total or weights.count == 0:
            return MeanValue(math.nan, None)
        if not math.isfinite(self.sum.value()):
            return MeanValue(self.sum.value() * (1 if total > 0 else -1), None)
        mean = self.sum.exact() / total
        if weights.groups:
            return MeanValue(float(mean), self._clustered(float(mean), weights))
        if weights.count < 2 or not math.isfinite(self._squares.value()):
            return MeanValue(float(mean), None)
        cross = self._cross.exact() if weights.weighted else self.sum.exact()
        scatter = self._squares.exact() - 2 * mean * cross + mean**2 * weights.squares
        variance = Fraction(weights.count, weights.count - 1) * scatter / total**2
        return MeanValue(float(mean), root(variance))

    def _clustered(self, mean: float, weights: RowWeights) -> float | None:
        total, present = weights.by_group()
        count = int(np.count_nonzero(present))
        if count < 2:
            return None
        residuals = (self._by_group.values() - mean * total)[present]
        scatter = math.fsum(residuals * residuals)
        return math.sqrt(count / (count - 1) * scatter) / abs(float(weights.total))


def effective_rows(weights: RowWeights, share: MeanValue) -> float:
    """As how many independent rows of equal weight the rows count for a share: with groups by the
    error that it shows, p·(1 − p)/se², or by their number where that is not defined."""
    if not weights.groups:
        return weights.effective
    spread = share.value * (1 - share.value)
    if share.se and spread > 0:
        return spread / share.se**2
    return float(np.count_nonzero(weights.by_group()[1]))


def root(value: Fraction) -> float:
    """The square root of a fraction that is 0 or more but for rounding.

    >>> root(Fraction(1, 10**700)) > 0, root(Fraction(-1, 10**40))
    (False, 0.0)
    """
    return math.sqrt(max(0.0, float(value)))
