"""The report of a problem: the walk over all rows, then everything that follows from the sums."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from xentcli import backends
from xentcli.arrays.dtypes import Array, as_array
from xentcli.arrays.layout import Layout, Shape
from xentcli.backends import Scalars
from xentcli.engine.cross_entropy import Run
from xentcli.engine.notes import Note, ProbabilityCheck
from xentcli.engine.pipeline import Pipeline
from xentcli.engine.problem import Problem
from xentcli.engine.rows import SLAB, RowPiece, RowSource, walk
from xentcli.errors import DtypeError, ShapeError
from xentcli.records import dataclass
from xentcli.report.divergence import with_base
from xentcli.report.finish import finish
from xentcli.report.options import ReportOptions, ScoreOptions
from xentcli.report.result import Report
from xentcli.report.scores import Scores, scores_of
from xentcli.report.totals import RowsInfo, Totals


@dataclass(frozen=True)
class Groups:
    """The group of each row, as a number from 0, and what each group is called."""

    index: Array
    labels: Array

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.labels)

    @classmethod
    def of(cls, values: Any, problem: Problem) -> Groups | None:
        """From any labels, one per row; None from None."""
        if values is None:
            return None
        array = as_array(values, "group")
        if array.size != problem.layout.rows:
            what = f"{array.size} labels given, {problem.layout.rows} needed: one per row"
            raise ShapeError("group", what)
        if array.dtype.kind not in "iufbUS":
            raise DtypeError("group", f"dtype {array.dtype} is not supported", "use integers")
        labels, index = np.unique(array.reshape(-1), return_inverse=True)
        return cls(index.reshape(-1), labels)


class ReportCalculation:
    """The report of a problem, piece by piece, with the sums in `totals`."""

    def __init__(
        self,
        problem: Problem,
        options: tuple[ScoreOptions, ReportOptions],
        run: Run,
        groups: Groups | None = None,
        *,
        base: bool = False,
    ) -> None:
        scoring, what = options
        self.problem, self.run, self.groups = problem, run, groups
        self.scalars = Scalars.of(scoring.loss())
        name = "numpy" if problem.probs else run.backend  # no kernel takes probabilities
        shape = problem.layout.rows, problem.layout.classes
        self.backend = backends.for_statistics(name, shape, run.threads, run.notify)
        self.probabilities = ProbabilityCheck()
        info = RowsInfo(
            rows=problem.layout.rows,
            classes=problem.layout.classes,
            groups=groups.count if groups else 0,
            probabilities=problem.probs,
            weighted=problem.sample_weight is not None,
            base=base,
        )
        self.totals, self.done = Totals(info, what), 0

    def scores(self, piece: RowPiece) -> Scores:
        """The quantities of a piece's rows."""
        if piece.probs is not None:
            self.probabilities.add(piece.probs)
        group = self.groups.index if self.groups else None
        scores = scores_of(piece, self.backend, self.scalars, group)
        if piece.second is not None:
            scores = with_base(scores, piece, self.backend, self.scalars)
        self.done += piece.layout.rows
        if self.run.progress:
            self.run.progress(self.done, self.problem.layout.rows)
        return scores

    def merge(self, other: ReportCalculation) -> None:
        """Take the rows of another, which follow in the same whole."""
        self.totals.merge(other.totals)
        self.probabilities.merge(other.probabilities)
        self.done += other.done

    def result(self, notes: tuple[Note, ...] = ()) -> Report:
        """The report over all rows."""
        notes = (*notes, *self.probabilities.notes())
        return finish(self.totals, self.problem.ignored, self.backend.name, notes)


def require_base(shape: Shape, layout: Layout) -> None:
    """An error unless the base's logits have the model's shape, or the same rows and classes.

    Logits (B, T, C) and (B·T, C) hold the same rows in the same order.
    """
    classes_last = layout.box[2] == 1 and shape[-1:] == (layout.classes,)
    if shape != layout.shape and not (classes_last and prod(shape) == prod(layout.shape)):
        raise ShapeError("base", f"shape {shape} does not fit logits of shape {layout.shape}")


def compute(calculation: ReportCalculation, source: RowSource, take: Any = None) -> Report:
    """Walk over all rows; reading, computing and adding overlap where there are several pieces.

    `take` gets the scores of every piece too, in order.
    """
    try:
        return _computed(calculation, source, take)
    finally:
        calculation.totals.kept.close()


def _computed(calculation: ReportCalculation, source: RowSource, take: Any) -> Report:
    pieces = walk(calculation.problem, source)

    def add(scores: Scores) -> None:
        calculation.totals.add(scores)
        if take:
            take(scores)

    if prod(calculation.problem.layout.shape) > SLAB:
        Pipeline[RowPiece, Scores]().run(pieces, calculation.scores, add)
    else:
        for piece in pieces:
            add(calculation.scores(piece))
    calculation.totals.flush()
    masses = calculation.totals.masses
    truncated = {"logits": source.logits, "base": source.second}
    notes = [
        masses[name].note(name)
        for name, reader in truncated.items()
        if reader and reader.format == "kld"
    ]
    return calculation.result(tuple(note for note in notes if note))
