"""The result of a cross-entropy, and the totals over rows that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import RunningSum
from xentcli.backends.cpu.threads import equal_parts, run
from xentcli.engine.logits_check import LogitsCheck
from xentcli.engine.notes import NonfiniteRows, Note, ProbabilityCheck
from xentcli.engine.reduction import ReductionPlan

if TYPE_CHECKING:
    from xentcli.engine.teacher.mass import Captured


@dataclass(frozen=True)
class CrossEntropy:
    """The result of `cross_entropy`.

    `loss` is a float for mean and sum, else a float64 array with one per row. `grad` has the
    shape of the logits, or is None. `lse` is the log-sum-exp of each row, float64, NaN where the
    row is ignored. `backend` is the one that ran; `notes` are about what may surprise. Where the
    results were handed on piece by piece, as by the command line, the arrays are None. Where the
    logits are on a device, the arrays are there too. `captured` is how much of a top-K teacher's
    probability the stored classes have.
    """

    loss: Any
    grad: Any
    lse: Any
    backend: str
    rows: int
    ignored: int
    notes: tuple[Note, ...] = ()
    captured: Captured | None = None

    def __init__(  # noqa: PLR0913 (that of a frozen dataclass takes three times as long)
        self,
        loss: Any,
        grad: Any,
        lse: Any,
        backend: str,
        rows: int,
        ignored: int,
        notes: tuple[Note, ...] = (),
        captured: Captured | None = None,
    ) -> None:
        fields = {"loss": loss, "grad": grad, "lse": lse, "backend": backend, "rows": rows}
        fields |= {"ignored": ignored, "notes": notes, "captured": captured}
        object.__setattr__(self, "__dict__", fields)


class RowArrays(NamedTuple):
    """Losses, gradient and log-sum-exps of all rows; None for what was not kept."""

    losses: Any = None
    grad: Any = None
    lse: Any = None


LEAST_PART = 1 << 18  # losses for a thread, which take it 0.5 ms


class LossTotals:
    """The sum of the losses, and the notes on losses and probabilities.

    >>> import numpy as np
    >>> totals, others = LossTotals(), LossTotals()
    >>> totals.add_losses(np.array([1.0, 2.0])), others.add_losses(np.array([0.5, np.inf]))
    (None, None)
    >>> totals.merge(others)
    >>> totals.sum.value(), totals.nonfinite.notes()[0].text
    (inf, 'the loss of 1 of 4 rows is not finite; first: row 3 is inf')
    """

    def __init__(self, softcap: float | None = None) -> None:
        self.sum = RunningSum()
        self.nonfinite = NonfiniteRows("loss")
        self.probabilities = ProbabilityCheck()
        self.logits = LogitsCheck(softcap)

    def add_losses(self, losses: Array, threads: int = 1) -> None:
        """The next rows' losses as `ReductionPlan.weigh` gives them, float64 (n,).

        The sum is exact: it does not depend on how many threads add up parts of it.
        """
        if self.sum.add_few(losses):
            self.nonfinite.rows += len(losses)
            return
        parts = equal_parts(len(losses), min(threads, len(losses) // LEAST_PART))
        if len(parts) > 1:
            totals = {begin: LossTotals() for begin, _ in parts}
            run(lambda a, b: totals[a].add_losses(losses[a:b]), parts, threads)
            for each in totals.values():
                self.merge(each)
            return
        self.sum.add(losses)
        self.nonfinite.add(losses)

    def merge(self, other: LossTotals) -> None:
        """Take the totals of the rows that follow."""
        self.sum.merge(other.sum)
        self.nonfinite.merge(other.nonfinite)
        self.probabilities.merge(other.probabilities)
        self.logits.merge(other.logits)

    def renumber(self, place: Callable[[int], int]) -> None:
        """Let the rows that notes name have their numbers in a larger whole."""
        self.nonfinite.renumber(place)
        self.probabilities.renumber(place)

    def result(self, plan: ReductionPlan, backend: str, arrays: RowArrays) -> CrossEntropy:
        """The result over all rows; `backend` is the name of the one that ran."""
        notes = [*self.probabilities.notes(), *self.nonfinite.notes()]
        loss: Any = arrays.losses
        if not plan.terms.per_row:
            loss = plan.reduce(self.sum)
            notes += plan.notes(loss, all_finite=not notes)
        notes += self.logits.notes()
        counts = plan.totals.rows, plan.totals.ignored
        return CrossEntropy(loss, arrays.grad, arrays.lse, backend, *counts, tuple(notes))
