"""The loss that belongs to a gradient: the exact one, and the verdict on the one given."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, widen
from xentcli.arrays.sums import RunningSum
from xentcli.backends.accuracy import PROMISES
from xentcli.check.diagnosis.teacher_losses import JudgedLosses, WrongLosses
from xentcli.check.finding import Finding, number, short
from xentcli.check.oracles.dd_arithmetic import Pair, divide, normal, pair, scaled
from xentcli.check.oracles.naive import allowed_loss
from xentcli.check.oracles.rows import FloatRows, GradientSpec
from xentcli.check.oracles.teacher_naive import naive_teacher
from xentcli.check.oracles.ulp import (
    FLOATS,
    Errors,
    FloatInfo,
    Precision,
    Tolerance,
    beyond,
    errors,
    float_info_of,
)
from xentcli.check.statistics import Misses
from xentcli.engine.reduction import ReductionPlan
from xentcli.errors import Setting, Speak


class JudgedBy(NamedTuple):
    """What a loss is judged by: the dtype whose ULP are counted, and the tolerance."""

    kind: str
    tolerance: Tolerance


class LossVerdict(NamedTuple):
    """The loss, or the worst of one per row; `kind` is the dtype whose ULP are counted."""

    given: float
    exact: float
    ulp: float
    kind: str
    losses: int
    off: int
    row: int
    precision: Precision | None
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(
        cls, losses: tuple[Array, Array], found: Errors, misses: Misses, judged: JudgedBy
    ) -> LossVerdict:
        """From as many losses as there are, given and exact, and which of them are off."""
        row = int(np.argmax(found.ulp))
        given, exact = (float(values[row]) for values in losses)
        off, inexact = (int(np.count_nonzero(which)) for which in misses)
        precision = judged.tolerance.precision(off, inexact)
        ulp = float(found.ulp[row])
        return cls(given, exact, ulp, judged.kind, len(misses.off), off, row, precision)

    def facts(self) -> dict[str, Any]:
        """The numbers, without what explains them."""
        return {name: value for name, value in self._asdict().items() if name != "findings"}

    def diagnosis(self, speak: Speak = Setting.python) -> list[str]:
        """What would explain a loss that is off."""
        return [f"loss: {finding.text(speak)}" for finding in self.findings]

    def words(self) -> str:
        """The verdict in one line."""
        which = ""
        if self.losses > 1:
            which = f"{self.off:,} of {self.losses:,} losses off; the worst, row {self.row}: "
        given, exact = (number(value, self.kind) for value in (self.given, self.exact))
        words = "FAIL loss" if self.off else "PASS loss"
        if self.precision == "plain":
            words += f", at plain {self.kind} precision"
        return f"{words}: {which}{given} given, {exact} exact, {short(self.ulp)} ULP of {self.kind}"


class ExactLosses:
    """The exact losses: their sum, or all of them where each is wanted."""

    def __init__(self, reduction: ReductionPlan, spec: GradientSpec) -> None:
        self._plan, self._denominator = reduction, spec.scale.denominator
        self._spec = spec
        self._each: list[Array] = []
        self._allowed: list[Array] = []
        self._sizes: list[Array] = []
        self._sum, self._allowed_sum, self._size_sum = RunningSum(), RunningSum(), RunningSum()
        self.wrong: WrongLosses | None = None
        if spec.teacher:
            self.wrong = WrongLosses(spec, per_row=reduction.terms.per_row)
        rounds = np.log2(max(2, reduction.problem.layout.rows))
        self._rounding = rounds * FLOATS["f64" if spec.finfo.name == "float64" else "f32"].epsilon

    def add_rows(self, rows: FloatRows, losses: Pair) -> None:
        """The next rows with their losses, and how far off plain arithmetic may be."""
        if self.wrong:
            self.wrong.add(rows)
        with np.errstate(all="ignore"):
            if not self._spec.teacher:
                self.add(losses, allowed_loss(rows, self._spec, losses.high))
                return
            naive = naive_teacher(rows, self._spec)
            allowed = naive.allowed_loss(losses.high, self._spec)
            self.add(losses, allowed, np.where(np.isfinite(losses.high), naive.loss_size, 0.0))

    def add(self, losses: Pair, allowed: Array, size: Array | None = None) -> None:
        """The losses of the next rows, how far off each may be, and the size of its terms.

        Without a size the losses are no differences of larger terms.
        """
        if self._plan.terms.per_row:
            self._each.append(losses.high)
            self._allowed.append(allowed)
            self._sizes.append(np.zeros_like(allowed) if size is None else size)
            return
        self._sum.add_sums(losses.high, losses.low)
        self._allowed_sum.add(allowed + self._rounding * np.abs(losses.high))

    def allowed(self) -> Array:
        """How far off plain arithmetic may be: in its rows, and in adding them up."""
        if self._plan.terms.per_row:
            return np.concatenate([np.empty(0), *self._allowed])
        return self._mean(self._allowed_sum)

    def size(self) -> Array:
        """The size of the terms where they are larger than the losses, as of a divergence; or 0."""
        if self._plan.terms.per_row:
            return np.concatenate([np.empty(0), *self._sizes])
        return self._mean(self._size_sum)

    def _mean(self, total: RunningSum) -> Array:
        with np.errstate(all="ignore"):
            share = total.value() / np.abs(self._denominator.high)
        return np.array([share if np.isfinite(share) else 0.0])

    def merge(self, other: ExactLosses) -> None:
        """Take the losses of the rows that follow."""
        self._each += other._each
        self._allowed += other._allowed
        self._sizes += other._sizes
        self._allowed_sum.merge(other._allowed_sum)
        self._size_sum.merge(other._size_sum)
        if self.wrong and other.wrong:
            self.wrong.merge(other.wrong)
        self._sum.merge(other._sum)

    @property
    def finfo(self) -> FloatInfo:
        """The dtype of the gradient."""
        return self._spec.finfo

    @property
    def promised(self) -> float:
        """The ULP within which a loss is exact."""
        if not self._spec.teacher:
            return PROMISES["f64", "plain"].loss
        return PROMISES["f64" if self.finfo.name == "float64" else "f32", "cancelling"].loss

    def value(self) -> Array:
        """One number, or one per row, rounded to float64."""
        if self._plan.terms.per_row:
            return np.concatenate([np.empty(0), *self._each])
        if self._plan.terms.when_empty is not None:
            return np.array(self._plan.terms.when_empty)
        high, low = (np.array(part) for part in self._sum.high_low())
        if not np.isfinite(high):
            return high
        with np.errstate(all="ignore"):
            (total, up), (below, down) = normal(Pair(high, low)), normal(self._denominator)
            return scaled(divide(total, below), up - down).high


def loss_verdict(losses: ExactLosses, loss: Array, tolerance: Tolerance) -> LossVerdict:
    """The verdict on the loss, in ULP of float32 at least: it is wider than the gradient."""
    own, finfo = float_info_of(loss.dtype), losses.finfo
    if own.name == "float64":
        own = finfo if finfo.name in ("float32", "float64") else FLOATS["f32"]
    exact, given = pair(losses.value().reshape(-1)), widen(loss, NAMES["f64"]).reshape(-1)
    size = np.maximum(np.abs(exact.high), losses.size())
    found = errors(given, exact, size, np.zeros(len(given)), own)
    sharp = losses.promised * found.unit
    most = tolerance.allowed(found, exact.high) if tolerance.given else sharp
    if tolerance.plain:
        most = np.maximum(most, losses.allowed() + found.unit)
    misses = Misses(beyond(found, most), beyond(found, sharp))
    verdict = LossVerdict.of((given, exact.high), found, misses, JudgedBy(own.name, tolerance))
    if not verdict.off or not losses.wrong:
        return verdict
    judged = JudgedLosses(given, exact.high, np.maximum(sharp, losses.allowed()), own)
    return verdict._replace(findings=losses.wrong.findings(judged))
