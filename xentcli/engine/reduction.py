"""Reduction of the losses, and the factor that it puts on each row's gradient.

| reduction | index targets                 | probability targets |
|-----------|-------------------------------|---------------------|
| none      | L_i                           | L_i                 |
| sum       | Σ L_i                         | Σ L_i               |
| mean      | Σ L_i / D,  D = Σ v_i·w_{y_i} | Σ L_i / Σ v_i       |

over the rows that are not ignored. The z-loss is divided by Σ v_i in both cases. Kernels
only get one scale per row, and the z-loss multiplied by D / Σ v_i.

Denominators are exact, and the scale and the reduced loss are rounded once. Weights far from 1 are
divided by powers of two first, which is exact, so that no product of them leaves the range.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import RunningSum, rounded
from xentcli.backends import Scalars
from xentcli.engine.notes import Note
from xentcli.engine.problem import Problem
from xentcli.engine.scales import SharedScale, over_power, quotient, shared_scale
from xentcli.errors import DataError, Setting
from xentcli.options import LossOptions

ZERO, UNIT = Fraction(0), Fraction(1)  # Python takes 1 µs to make one


class RowTotals(NamedTuple):
    """What a plan needs to know of all rows; it may be added up over parts of them.

    `sample_weight` is Σ v_i and `row_weight` Σ v_i·w_{y_i} over the rows that count, exactly, or 0
    where the reduction does not need them.
    """

    rows: int = 0
    ignored: int = 0
    sample_weight: Fraction = ZERO
    row_weight: Fraction = ZERO

    @classmethod
    def of(
        cls, problem: Problem, options: LossOptions, sample_weight_power: int | None = None
    ) -> RowTotals:
        """The totals of a problem; the power is that of a larger one that it is part of."""
        rows, ignored = problem.layout.rows, problem.ignored
        if options.reduction != "mean" or options.normalizer is not None:
            return cls(rows, ignored)
        power = problem.sample_weight_power if sample_weight_power is None else sample_weight_power
        plain = Fraction(rows - ignored)  # the sum of as many ones
        if problem.sample_weight is not None:
            plain = problem.total_sample_weight(power)
        weighted = plain
        if not (problem.probs or problem.weight is None or (problem.weight == 1).all()):
            weighted = problem.total_row_weight(power)
        return cls(rows, ignored, plain, weighted)

    def merged(self, other: RowTotals) -> RowTotals:
        """Those of both."""
        return RowTotals(
            self.rows + other.rows,
            self.ignored + other.ignored,
            self.sample_weight + other.sample_weight,
            self.row_weight + other.row_weight,
        )


class Terms(NamedTuple):
    """The denominator (1 for sum and none), and the z-loss coefficient that goes with it.

    Kernels get the class weights divided by 2^weight_power, and so is their z-loss; losses are
    added divided by 2^(weight_power + row_power). `when_empty` is the mean over no rows, None where
    there are some; `per_row`: nothing is reduced.
    """

    denominator: Fraction
    z_loss: float
    weight_power: int = 0
    row_power: int = 0
    when_empty: float | None = None
    per_row: bool = False

    @property
    def kernel_denominator(self) -> Fraction:
        """D in the units of the kernels' class weights."""
        return over_power(self.denominator, self.weight_power)


class ReductionPlan(NamedTuple):
    """How the losses of a problem are reduced.

    `totals` are those of all rows, of which the problem may be a part. `shared` is the factor of
    the gradients where it is the same for all rows; `scalars` are what kernels get.
    """

    problem: Problem
    totals: RowTotals
    terms: Terms
    shared: SharedScale | None
    scalars: Scalars

    def of(self, problem: Problem) -> ReductionPlan:
        """The same denominators for some of the rows; `problem` is theirs."""
        return self if problem is self.problem else self._replace(problem=problem)

    @property
    def plain(self) -> ReductionPlan:
        """The same for weights that are not divided by powers of two."""
        terms = self.terms._replace(weight_power=0, row_power=0)
        return self._replace(terms=terms, shared=_shared(_one_factor(self.problem), terms))

    @property
    def kernel_weight(self) -> Array:
        """The class weights as kernels get them."""
        return self.problem.kernel_weight(self.terms.weight_power)

    def scale(self, rows: slice) -> Array:
        """The factors of the gradients of some rows: u_i·v_i / D, rounded once.

        One number where it is the same for all rows.
        """
        if self.shared is not None:
            return self.shared.factor
        if not self.terms.denominator:
            return np.where(self.problem.has_no_weight(rows), 0.0, np.nan)
        upstream, weight = self.problem.upstream, self.problem.sample_weight
        scale = upstream.reshape(1) if upstream.ndim == 0 else upstream[rows]
        weight = None if weight is None else weight[rows]
        return quotient(scale, weight, self.terms.kernel_denominator)

    def weigh(self, losses: Array, rows: slice) -> None:
        """Turn the losses of some rows into v_i·L_i, divided by 2^row_power; never −0.0."""
        weight, power = self.problem.sample_weight, self.terms.row_power
        if weight is not None:
            losses *= np.ldexp(weight[rows], -power) if power else weight[rows]
            losses += 0.0

    def unscale(self, losses: Array) -> None:
        """Turn losses of kernels, weighted by `weigh`, into what they are."""
        if power := self.terms.weight_power + self.terms.row_power:
            losses[:] = np.ldexp(losses, power) + 0.0

    def reduce(self, total: RunningSum) -> float:
        """The loss from the sum over rows of what `weigh` gives."""
        terms = self.terms
        if terms.when_empty is not None:
            return terms.when_empty
        if not terms.denominator:
            return math.nan
        return total.over(over_power(terms.denominator, terms.weight_power + terms.row_power))

    def notes(self, loss: float, *, all_finite: bool) -> list[Note]:
        """Why the reduced loss is not finite although the loss of each row is."""
        if self.terms.when_empty is not None:
            mean = f"no row is left, so the mean is {self.terms.when_empty:g} ("
            text = mean, Setting("empty_mean"), ")"
            return [Note("targets", text, strict=math.isnan(self.terms.when_empty))]
        if not self.terms.denominator:
            where = "weight" if self.problem.sample_weight is None else "sample_weight"
            return [Note(where, "the rows' weights sum to 0, so the mean is nan", strict=True)]
        if all_finite and not math.isfinite(loss):
            return [Note("logits", "the sum of the losses overflows float64", strict=True)]
        return []


def plan(
    problem: Problem,
    options: LossOptions,
    totals: RowTotals | None = None,
    sample_weight_power: int | None = None,
) -> ReductionPlan:
    """Find the denominators; they depend on targets and weights, never on the logits.

    `totals` and the power are those of all rows where the problem is that of some of them.
    """
    if totals is None and problem.weight is None and problem.sample_weight is None:
        counts = problem.layout.rows, problem.ignored
        return ReductionPlan(problem, *_of_counts(*counts, options, _one_factor(problem)))
    totals = RowTotals.of(problem, options) if totals is None else totals
    # Beside a z-loss small weights stay as they are: it would be multiplied by what they are.
    power = max(problem.weight_power, 0) if options.z_loss else problem.weight_power
    row_power = problem.sample_weight_power if sample_weight_power is None else sample_weight_power
    terms = _terms(totals, options, (power, row_power))
    return ReductionPlan(problem, totals, *_kernel_terms(terms, _one_factor(problem), options))


@lru_cache(maxsize=256)  # a training loop asks for the same in every step
def _of_counts(
    rows: int, ignored: int, options: LossOptions, upstream: float | None
) -> tuple[RowTotals, Terms, SharedScale | None, Scalars]:
    """All of a plan where there are no weights."""
    counted = Fraction(rows - ignored)
    totals = RowTotals(rows, ignored, counted, counted)
    terms = _terms(totals, options, (0, 0))
    return totals, *_kernel_terms(terms, upstream, options)


def _terms(totals: RowTotals, options: LossOptions, powers: tuple[int, int]) -> Terms:
    """Denominator and z-loss, and the powers of two of class weights and row weights."""
    z_loss = math.ldexp(options.z_loss, -powers[0])
    if options.reduction != "mean":
        return Terms(UNIT, z_loss, *powers, per_row=options.reduction == "none")
    if options.normalizer is not None:
        return Terms(Fraction(options.normalizer), z_loss, *powers)
    if totals.ignored == totals.rows:
        return Terms(UNIT, z_loss, *powers, _empty_mean(options))
    plain, weighted = totals.sample_weight, totals.row_weight
    if plain and z_loss:
        ratio = over_power(weighted / plain, powers[0])
        z_loss = rounded(Fraction(options.z_loss) * ratio)
    return Terms(weighted, z_loss if plain else 0.0, *powers)


def _kernel_terms(
    terms: Terms, upstream: float | None, options: LossOptions
) -> tuple[Terms, SharedScale | None, Scalars]:
    """With the scale that all rows share, if there is one, and what kernels get of the options."""
    shared = _shared(upstream, terms)
    return terms, shared, Scalars.of(options, terms.z_loss, shared.error if shared else 0.0)


def _one_factor(problem: Problem) -> float | None:
    """The factor of all rows before it is divided by the denominator, if there is one."""
    several = problem.sample_weight is not None or problem.upstream.ndim
    return None if several else problem.upstream.item()


def _shared(upstream: float | None, terms: Terms) -> SharedScale | None:
    if upstream is None or not terms.denominator:
        return None
    return shared_scale(upstream, terms.kernel_denominator)


def _empty_mean(options: LossOptions) -> float:
    if options.empty_mean == "error":
        raise DataError("targets", "no row is left, so the mean is undefined")
    return math.nan if options.empty_mean == "nan" else 0.0
