"""Reduction of the losses, and the factor that it puts on each row's gradient.

| reduction | index targets                 | probability targets |
|-----------|-------------------------------|---------------------|
| none      | L_i                           | L_i                 |
| sum       | Σ L_i                         | Σ L_i               |
| mean      | Σ L_i / D,  D = Σ v_i·w_{y_i} | Σ L_i / Σ v_i       |

over the rows that are not ignored. The z-loss is divided by Σ v_i in both cases. Kernels
only get one scale per row, and the z-loss multiplied by D / Σ v_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.engine.notes import Note
from xentcli.engine.problem import Problem
from xentcli.errors import DataError, Setting
from xentcli.options import LossOptions


@dataclass(frozen=True)
class ReductionPlan:
    """The denominator (1 for sum and none), and the z-loss coefficient that goes with it.

    `when_empty` is the mean over no rows, None where there are some; `per_row`: nothing is reduced.
    """

    problem: Problem
    denominator: float
    z_loss: float
    when_empty: float | None = None
    per_row: bool = False

    def of(self, problem: Problem) -> ReductionPlan:
        """The same denominators for some of the rows; `problem` is theirs."""
        return replace(self, problem=problem)

    def scale(self, rows: slice) -> Array:
        """The factors of the gradients of some rows: u_i·v_i / D.

        One number where it is the same for all rows.
        """
        upstream = self.problem.upstream
        if self.denominator == 0:
            return np.where(self.problem.row_weight(rows) == 0, 0.0, np.nan)
        scale = upstream.reshape(1) if upstream.ndim == 0 else upstream[rows]
        return self.weigh(scale / self.denominator, rows)

    def weigh(self, values: Array, rows: slice) -> Array:
        """One value for each of some rows, times the row's weight."""
        weight = self.problem.sample_weight
        return values if weight is None else values * weight[rows]

    def reduce(self, total: float) -> float:
        """The loss from the sum over rows of v_i·L_i."""
        if self.when_empty is not None:
            return self.when_empty
        return total / self.denominator if self.denominator else math.nan

    def notes(self, loss: float, *, all_finite: bool) -> list[Note]:
        """Why the reduced loss is not finite although the loss of each row is."""
        if self.when_empty is not None:
            mean = f"no row is left, so the mean is {self.when_empty:g} ("
            text = mean, Setting("empty_mean"), ")"
            return [Note("targets", text, strict=math.isnan(self.when_empty))]
        if self.denominator == 0:
            where = "weight" if self.problem.sample_weight is None else "sample_weight"
            return [Note(where, "the rows' weights sum to 0, so the mean is nan", strict=True)]
        if all_finite and not math.isfinite(loss):
            return [Note("logits", "the sum of the losses overflows float64", strict=True)]
        return []


def plan(problem: Problem, options: LossOptions) -> ReductionPlan:
    """Find the denominators; they depend on targets and weights, never on the logits."""
    if options.reduction != "mean":
        return ReductionPlan(problem, 1.0, options.z_loss, per_row=options.reduction == "none")
    if options.normalizer is not None:
        return ReductionPlan(problem, float(options.normalizer), options.z_loss)
    if problem.ignored == problem.layout.rows:
        return ReductionPlan(problem, 1.0, options.z_loss, _empty_mean(options))
    plain = float(problem.layout.rows - problem.ignored)  # the sum of as many ones
    if problem.sample_weight is not None:
        plain = problem.total_sample_weight()
    weighted = plain
    if not (problem.probs or problem.weight is None or (problem.weight == 1).all()):
        weighted = problem.total_row_weight()
    z_loss = options.z_loss * (weighted / plain) if options.z_loss and plain else 0.0
    return ReductionPlan(problem, weighted, z_loss)


def _empty_mean(options: LossOptions) -> float:
    if options.empty_mean == "error":
        raise DataError("targets", "no row is left, so the mean is undefined")
    return math.nan if options.empty_mean == "nan" else 0.0
