"""The rows that a calibration is fitted to, read once a pass, and sums over them at one β."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np

from xentcli import backends
from xentcli.arrays.dtypes import Array
from xentcli.arrays.grouped_sums import GroupedSums
from xentcli.arrays.sums import RunningSum
from xentcli.backends import Scalars, StatisticsBackend
from xentcli.backends.fields import Field
from xentcli.engine.cross_entropy import Run
from xentcli.engine.problem import Problem
from xentcli.engine.rows import RowPiece, RowSource, walk
from xentcli.options import LossOptions
from xentcli.records import dataclass
from xentcli.report.bins import BinTotals, borders
from xentcli.report.means import Mean, RowWeights
from xentcli.report.scores import Scores, scores_of
from xentcli.report.temperature import Ends, Slope

ROUNDING = 2.0**-52
FLAT = 2.0**200  # a temperature at which every class has the same probability

Opener = Callable[[], AbstractContextManager[RowSource]]  # of the logits, for one more pass


@dataclass(frozen=True)
class Rows:
    """How to go over the rows once more: the problem, the logits, groups and folds."""

    problem: Problem
    opener: Opener
    run: Run
    group: Array | None = None
    groups: int = 0
    folds: int = 1

    def pieces(self) -> Iterator[RowPiece]:
        """All rows, in order."""
        with self.opener() as source:
            for piece in walk(self.problem, source):
                yield piece
                if self.run.progress:
                    self.run.progress(piece.rows.stop, self.problem.layout.rows)

    def backend(self) -> StatisticsBackend:
        """What computes the quantities of each row."""
        shape = self.problem.layout.rows, self.problem.layout.classes
        return backends.for_statistics(self.run.backend, shape, self.run.threads, self.run.notify)

    def scores(self, piece: RowPiece, backend: StatisticsBackend, temperature: float) -> Scores:
        """The quantities of a piece's rows at a temperature."""
        how = Scalars.of(LossOptions(temperature=temperature))
        return scores_of(piece, backend, how, self.group)

    def fold(self, scores: Scores) -> Array:
        """The fold of each row: that of its group, or by its number."""
        return np.asarray((scores.rows if scores.group is None else scores.group) % self.folds)


class EndTotals:
    """Sums of what decides whether there is a best temperature: see `Ends`."""

    def __init__(self) -> None:
        self._total = RunningSum()
        self._sums = [RunningSum() for _ in range(3)]

    def add(self, flat: Scores, plain: Scores) -> None:
        """Take the same rows at T = `FLAT`, that is at β → 0, and at T = 1."""
        v = plain.weights
        slope = (flat[Field.TARGET_GAP] - flat[Field.MEAN_GAP]) * FLAT
        parts = slope, plain[Field.TARGET_GAP], flat[Field.GAP_VARIANCE] * FLAT * FLAT
        self._total.add(np.ones(len(plain)) if v is None else v)
        for total, part in zip(self._sums, parts, strict=True):
            total.add(part if v is None else part * v)

    def ends(self) -> Ends | None:
        """The means over all rows; None over no rows."""
        total = self._total.value()
        return Ends(*(part.value() / total for part in self._sums)) if total else None


class Evaluation:
    """Sums over rows at one β, each row at that of its fit."""

    def __init__(self, groups: int, bins: int) -> None:
        self.weights, self.nll, self.accuracy = RowWeights(groups), Mean(groups), Mean(groups)
        self.bins = BinTotals(borders(bins))
        self._sums = {name: RunningSum() for name in ("slope", "square", "curvature", "size")}
        self._by_group = GroupedSums(groups)

    def add(self, scores: Scores, beta: float) -> None:
        """Take the next rows, whose gaps are those of β·z."""
        v, group, share = scores.weights, scores.group, scores.share(1)
        self.weights.add(len(scores), v, group)
        self.nll.add(scores[Field.NLL], v, group)
        self.accuracy.add(share, v, group)
        self.bins.add(scores[Field.CONFIDENCE], share, v)
        target, mean = scores[Field.TARGET_GAP], scores[Field.MEAN_GAP]
        v = np.ones(len(scores)) if v is None else v
        slope = (target - mean) / beta * v
        self._sums["slope"].add(slope)
        self._sums["square"].add(slope * slope)
        self._sums["curvature"].add(scores[Field.GAP_VARIANCE] / beta**2 * v)
        self._sums["size"].add((target + mean) / beta * np.abs(v))
        if group is not None:
            self._by_group.add(group, slope)

    @property
    def slope(self) -> Slope:
        """f′ and f″, and the rounding error of f′."""
        total = float(self.weights.total) or math.nan
        means = {name: sums.value() / total for name, sums in self._sums.items()}
        return Slope(means["slope"], means["curvature"], ROUNDING * means["size"])

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
