"""The rows that a calibration is fitted to, block by block, and sums over them at one β."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.arrays.sums import RunningSum
from xentcli.engine.problem import Problem
from xentcli.engine.rows import RowPiece, RowSource, float_rows, walk
from xentcli.engine.targets import IGNORED
from xentcli.report.bins import BinTotals, borders
from xentcli.report.means import Mean, RowWeights
from xentcli.report.temperature import ROUNDING, RowsAtBeta, Slope, differences

BLOCK = 1 << 16  # logits at a time: the temporaries of a block fit into the cache

Opener = Callable[[], AbstractContextManager[RowSource]]  # of the logits, for one more pass


@dataclass(frozen=True)
class LabelledRows:
    """Some rows that count: `u` (n, C) are the differences to the target's logit."""

    rows: Array
    u: Array
    weights: Array | None
    group: Array | None
    fold: Array

    def chosen(self, which: Array) -> LabelledRows:
        """Some of the rows."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays: dict[str, Any] = {n: None if a is None else a[which] for n, a in given.items()}
        return LabelledRows(**arrays)

    @property
    def share(self) -> Array:
        """1 where the target has the largest logit, a share of it where it is tied."""
        ties = np.count_nonzero(self.u == 0, axis=-1)
        return np.where((self.u > 0).any(axis=-1), 0.0, 1.0 / ties)


@dataclass(frozen=True)
class Rows:
    """How to go over the rows once more: the problem, the logits, groups and folds."""

    problem: Problem
    opener: Opener
    group: Array | None = None
    groups: int = 0
    folds: int = 1
    progress: Callable[[int, int], None] | None = None

    def blocks(self) -> Iterator[LabelledRows]:
        """All rows that are not ignored, in order."""
        with self.opener() as source:
            for piece in walk(self.problem, source):
                for part in piece.split(BLOCK):
                    yield self._block(part)
                if self.progress:
                    self.progress(piece.start + piece.layout.rows, self.problem.layout.rows)

    def _block(self, part: RowPiece) -> LabelledRows:
        targets, problem = part.targets, part.problem
        assert targets is not None
        rows = np.arange(part.rows.start, part.rows.stop)
        group = None if self.group is None else self.group[rows]
        fold = (rows if group is None else group) % self.folds
        u = differences(float_rows(part.logits), np.maximum(targets, 0))
        found = LabelledRows(rows, u, problem.sample_weight, group, fold)
        return found.chosen(targets != IGNORED) if problem.ignored else found


class Evaluation:
    """Sums over rows at one β, each row at that of its fit."""

    def __init__(self, groups: int, bins: int) -> None:
        self.weights, self.nll, self.accuracy = RowWeights(groups), Mean(groups), Mean(groups)
        self.bins = BinTotals(borders(bins))
        self._sums = {name: RunningSum() for name in ("slope", "square", "curvature", "size")}
        self._by_group = GroupedSums(groups)

    def add(self, rows: LabelledRows, at: RowsAtBeta) -> None:
        """Take the next rows."""
        v, group, share = rows.weights, rows.group, rows.share
        self.weights.add(len(rows.rows), v, group)
        self.nll.add(at.nll, v, group)
        self.accuracy.add(share, v, group)
        self.bins.add(at.confidence, share, v)
        slope, curvature, size = (
            part if v is None else part * v for part in (at.slope, at.curvature, at.size)
        )
        self._sums["slope"].add(slope)
        self._sums["square"].add(slope * slope)
        self._sums["curvature"].add(curvature)
        self._sums["size"].add(np.abs(size))
        if group is not None:
            self._by_group.add(group, slope)

    @property
    def slope(self) -> Slope:
        """f′ and f″, and the rounding error of f′."""
        total = float(self.weights.total) or math.nan
        means = {name: sums.value() / total for name, sums in self._sums.items()}
        return Slope(means["slope"], means["curvature"], 2 * ROUNDING * means["size"])

    def sandwich(self) -> float | None:
        """se(β) = √(Σ g²) / Σ f″ of the rows; of G groups √(G/(G−1)·Σ_g (Σ_{i∈g} g)²) / Σ f″."""
        squares, curvature = self._sums["square"].value(), self._sums["curvature"].value()
        if self.weights.groups:
            present = self.weights.by_group()[1]
            count = int(np.count_nonzero(present))
            if count < 2:
                return None
            by_group = self._by_group.values()[present]
            squares = count / (count - 1) * math.fsum(by_group * by_group)
        return math.sqrt(squares) / curvature if curvature > 0 else None


def same_fold(rows: LabelledRows, fold: int | None) -> LabelledRows:
    """The rows that a fit uses: all, or those outside of a fold."""
    return rows if fold is None else rows.chosen(rows.fold != fold)


def with_opener(rows: Rows, opener: Opener) -> Rows:
    """The same rows, read from somewhere else."""
    return replace(rows, opener=opener)
