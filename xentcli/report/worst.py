"""The rows with the largest loss."""

from __future__ import annotations

import numpy as np

from xentcli.backends.fields import Field
from xentcli.records import dataclass
from xentcli.report.scores import Scores


@dataclass(frozen=True)
class WorstRow:
    """A row: target and prediction with their probabilities, and the target's lowest rank.

    Target, its probability and its rank are None for probability targets.
    """

    row: int
    nll: float
    target: int | None
    prediction: int
    p_target: float | None
    p_prediction: float
    rank: int | None


class WorstRows:
    """Keeps the rows with the largest loss; of equal ones those that come first.

    Rows whose loss is NaN are not among them: the report counts and names these.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[Scores] = []

    def add(self, scores: Scores) -> None:
        """Take the next rows."""
        losses = scores[Field.NLL]
        if self._kept:
            known = self._kept[-1][Field.NLL]
            if len(known) == self._count and not (losses > known[-1]).any():
                return  # in order: an equal loss comes later
        self._kept.append(scores.chosen(~np.isnan(losses)))
        everything = Scores.joined(self._kept)
        order = np.lexsort((everything.rows, -everything[Field.NLL]))[: self._count]
        self._kept = [everything.chosen(order)]

    def merge(self, other: WorstRows) -> None:
        """Take the rows of another, which follow."""
        for scores in other._kept:
            self.add(scores)

    def results(self) -> tuple[WorstRow, ...]:
        """The rows, the largest loss first."""
        return tuple(_row(scores, i) for scores in self._kept for i in range(len(scores)))


def _row(scores: Scores, i: int) -> WorstRow:
    target = None if scores.targets is None else int(scores.targets[i])
    return WorstRow(
        int(scores.rows[i]),
        float(scores[Field.NLL][i]),
        target,
        int(scores[Field.PREDICTION][i]),
        None if target is None else float(scores[Field.P_TARGET][i]),
        float(scores[Field.CONFIDENCE][i]),
        None if target is None else int(scores[Field.ABOVE][i]),
    )
