"""From readers to a report: every row is computed exactly, compared, and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeAlias, get_args

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, widen
from xentcli.arrays.sums import RunningSum
from xentcli.check.diagnosis import diagnose
from xentcli.check.diagnosis.sample import Sample, SampledRows
from xentcli.check.fits import require_loss, require_same
from xentcli.check.oracles.dd_arithmetic import Pair, divide, normal, pair, scaled
from xentcli.check.oracles.double_double import DoubleDoubleOracle
from xentcli.check.oracles.finite_differences import FiniteDifferenceOracle
from xentcli.check.oracles.float64 import ReferenceOracle
from xentcli.check.oracles.naive import allowed, naive_gradient
from xentcli.check.oracles.rows import (
    FloatRows,
    GradientSpec,
    OracleResult,
    scale_of,
    with_usual_weights,
)
from xentcli.check.oracles.ulp import (
    FLOATS,
    Errors,
    JudgedDtype,
    Tolerance,
    errors,
    float_info_of,
)
from xentcli.check.report import LossVerdict, Report
from xentcli.check.statistics import ErrorStatistics
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import ReductionPlan, plan
from xentcli.engine.rows import RowSource, float_rows, walk
from xentcli.options import LossOptions, require_allowed, setting

ENTRIES = 1 << 14  # at a time: two dozen arrays of so many float64 stay in the cache
Method: TypeAlias = Literal["exact", "finite-diff"]


@dataclass(frozen=True)
class JudgeOptions:
    """How to judge: against which oracle, how strictly, and in units of which dtype."""

    method: Method = setting("exact", "What to compare with.", choices=get_args(Method))
    tolerance: Tolerance = field(default_factory=Tolerance)
    dtype: JudgedDtype = setting("auto", "Dtype of the ULP.", choices=get_args(JudgedDtype))
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        require_allowed(self)


class Judge:
    """Compares a gradient with the exact one, piece by piece."""

    def __init__(
        self, problem: Problem, spec: GradientSpec, how: JudgeOptions, *, losses: bool
    ) -> None:
        self.problem, self.spec = problem, spec
        self.tolerance = how.tolerance.of(spec.finfo)
        self.oracle = _oracle(problem, spec, how.method)
        self.statistics = ErrorStatistics(problem.layout.classes)
        self.sample = Sample(problem.layout)
        self.losses = ExactLosses(plan(problem, spec.options), spec) if losses else None

    def add(self, rows: FloatRows, candidate: Array) -> None:
        """The next rows, and the gradient given for them."""
        exact = self.oracle(rows)
        found = errors(candidate, exact.grad, exact.size, exact.error_bound, self.spec.finfo)
        off = (found.absolute > 0) & ~(found.absolute <= self._allowed(rows, exact, found))
        self.statistics.add(rows, candidate, exact, found, off)
        self.sample.add(SampledRows(rows, candidate, exact.grad.high, exact.size, off), found.ulp)
        if self.losses:
            self.losses.add(exact.losses)

    def _allowed(self, rows: FloatRows, exact: OracleResult, found: Errors) -> Array:
        given = self.tolerance.allowed(found, exact.grad.high)
        if not self.tolerance.like_peers:
            return given
        with np.errstate(all="ignore"):
            naive = naive_gradient(rows, self.spec)
            return np.maximum(given, allowed(naive, exact.grad.high, self.spec.finfo))


def _oracle(
    problem: Problem, spec: GradientSpec, method: Method
) -> Callable[[FloatRows], OracleResult]:
    options, scale, finfo = spec
    if method == "finite-diff":
        return FiniteDifferenceOracle.of(problem.layout, options, scale)
    return (DoubleDoubleOracle if finfo.name == "float64" else ReferenceOracle)(options, scale)


class ExactLosses:
    """The exact losses: their sum, or all of them where each is wanted."""

    def __init__(self, reduction: ReductionPlan, spec: GradientSpec) -> None:
        self._plan, self._denominator = reduction, spec.scale.denominator
        self._each: list[Array] = []
        self._sum = RunningSum()

    def add(self, losses: Pair) -> None:
        """The losses of the next rows."""
        if self._plan.per_row:
            self._each.append(losses.high)
        else:
            self._sum.add_sums(losses.high, losses.low)

    def merge(self, other: ExactLosses) -> None:
        """Take the losses of the rows that follow."""
        self._each += other._each
        self._sum.merge(other._sum)

    def value(self) -> Array:
        """One number, or one per row, rounded to float64."""
        if self._plan.per_row:
            return np.concatenate([np.empty(0), *self._each])
        if self._plan.when_empty is not None:
            return np.array(self._plan.when_empty)
        high, low = (np.array(part) for part in self._sum.high_low())
        if not np.isfinite(high):
            return high
        with np.errstate(all="ignore"):
            (total, up), (below, down) = normal(Pair(high, low)), normal(self._denominator)
            return scaled(divide(total, below), up - down).high


def judge(
    problem: Problem,
    source: RowSource,
    options: LossOptions,
    how: JudgeOptions,
    loss: Array | None = None,
) -> Report:
    """Read everything once, and say how far off the gradient is and, if given, the loss.

    The gradient is the `second` array of the source.
    """
    assert source.second
    require_same(source.second.shape, problem.layout)
    finfo = float_info_of(source.second.dtype, how.dtype)
    if loss is not None:
        require_loss(loss.shape, problem.layout, options)
    problem = with_usual_weights(problem, options)
    spec = GradientSpec(options, scale_of(problem, options), finfo)
    judging = Judge(problem, spec, how, losses=loss is not None)
    for piece in walk(problem, source):
        for part in piece.split(ENTRIES):
            assert part.second is not None
            judging.add(FloatRows.of(part), float_rows(part.second, "grad"))
            if how.progress:
                how.progress(part.rows.stop, problem.layout.rows)
    return _report(judging, how, loss)


def _loss_verdict(judging: Judge, loss: Array) -> LossVerdict:
    """The verdict on the loss, in ULP of float32 at least: it is wider than the gradient."""
    assert judging.losses
    own, finfo = float_info_of(loss.dtype), judging.spec.finfo
    if own.name == "float64":
        own = finfo if finfo.name in ("float32", "float64") else FLOATS["f32"]
    exact, given = pair(judging.losses.value().reshape(-1)), widen(loss, NAMES["f64"]).reshape(-1)
    found = errors(given, exact, exact.high, np.zeros(len(given)), own)
    tolerance = judging.tolerance
    if tolerance.like_peers:
        tolerance = Tolerance(ulp=max(own.ulp, 128.0))
    off = (found.absolute > 0) & ~(found.absolute <= tolerance.allowed(found, exact.high))
    return LossVerdict.of((given, exact.high), found, off, own.name)


def _report(judging: Judge, how: JudgeOptions, loss: Array | None) -> Report:
    layout, finfo = judging.problem.layout, judging.spec.finfo
    return Report(
        shape=layout.shape,
        class_axis=layout.class_axis,
        finfo=finfo,
        tolerance=judging.tolerance.words(finfo),
        method=getattr(judging.oracle, "name", how.method),
        ignored=judging.problem.ignored,
        statistics=judging.statistics,
        loss=None if loss is None or not prod(loss.shape) else _loss_verdict(judging, loss),
        findings=diagnose(judging.sample, judging.statistics, judging.problem, judging.spec),
    )
