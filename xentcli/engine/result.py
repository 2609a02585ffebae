"""What the rows of a problem give together, wherever each of them was computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xentcli.arrays.sums import RunningSum
from xentcli.backends import Scalars
from xentcli.engine.notes import NonfiniteRows, Note, ProbabilityCheck
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import plan
from xentcli.options import LossOptions


@dataclass(frozen=True)
class CrossEntropy:
    """The result of `cross_entropy`.

    `loss` is a float for mean and sum, else a float64 array with one per row. `grad` has the
    shape of the logits, or is None. `lse` is the log-sum-exp of each row, float64, NaN where the
    row is ignored. `backend` is the one that ran; `notes` say what may surprise. Where the
    results were handed on piece by piece, as by the command line, the arrays are None. Where the
    logits are on a device, the arrays are there too.
    """

    loss: Any
    grad: Any
    lse: Any
    backend: str
    rows: int
    ignored: int
    notes: tuple[Note, ...] = ()


class Outcome:
    """What all rows share, and the sums over them; `backend` is the name of what computes them."""

    def __init__(self, problem: Problem, options: LossOptions, backend: str) -> None:
        self.problem, self.name = problem, backend
        self.reduction = plan(problem, options)
        self.per_row = options.reduction == "none"
        self.scalars = Scalars.of(options, self.reduction.z_loss)
        self.total, self.check = RunningSum(), ProbabilityCheck()
        self.nonfinite = NonfiniteRows("loss")

    def result(self, losses: Any = None, lse: Any = None, grad: Any = None) -> CrossEntropy:
        """What all rows together gave; the arrays where somebody kept them."""
        notes, total = self.check.notes(), self.total.value()
        notes += self.nonfinite.notes()
        loss: Any = losses
        if not self.per_row:
            loss = self.reduction.reduce(total)
            notes += self.reduction.notes(loss, all_finite=not notes)
        return CrossEntropy(
            loss=loss,
            grad=grad,
            lse=lse,
            backend=self.name,
            rows=self.problem.layout.rows,
            ignored=self.problem.ignored,
            notes=tuple(notes),
        )
