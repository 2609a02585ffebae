"""From readers to a report: every row is computed exactly, compared, and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from itertools import chain, islice
from math import prod
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow, widen
from xentcli.backends.accuracy import PROMISES, Kind, Output
from xentcli.check.diagnosis import diagnose
from xentcli.check.diagnosis.sample import Sample, SampledRows
from xentcli.check.fits import require_loss, require_same
from xentcli.check.loss import ExactLosses, LossVerdict, loss_verdict
from xentcli.check.oracles.double_double import DoubleDoubleOracle
from xentcli.check.oracles.finite_differences import FiniteDifferenceOracle, rows_to_check
from xentcli.check.oracles.float64 import ReferenceOracle
from xentcli.check.oracles.naive import NaiveGradient, allowed_grad, naive_gradient
from xentcli.check.oracles.rows import (
    FloatRows,
    GradientSpec,
    OracleResult,
    TeacherSpec,
    scale_of,
    with_usual_weights,
)
from xentcli.check.oracles.teacher import TeacherOracle
from xentcli.check.oracles.teacher_naive import hard_spec, naive_teacher
from xentcli.check.oracles.ulp import (
    FLOATS,
    Errors,
    FloatInfo,
    JudgedDtype,
    Tolerance,
    beyond,
    errors,
    fits_float32,
    float_info_of,
)
from xentcli.check.report import Report
from xentcli.check.statistics import ErrorStatistics, Misses
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import plan
from xentcli.engine.rows import RowPiece, RowSource, float_rows, walk
from xentcli.errors import OptionError
from xentcli.files.registry import TEXT
from xentcli.options import LossOptions, require_allowed, setting
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.engine.teacher.task import TeacherTask
    from xentcli.files.reader import Reader

ENTRIES = 1 << 14  # at a time: two dozen arrays of so many float64 stay in the cache
Oracle: TypeAlias = DoubleDoubleOracle | ReferenceOracle | TeacherOracle | FiniteDifferenceOracle
Method: TypeAlias = Literal["exact", "finite-diff"]


@dataclass(frozen=True)
class JudgeOptions:
    """How to judge: against which oracle, how strictly, and in units of which dtype."""

    method: Method = setting("exact", "What to compare with.", choices=get_args(Method))
    tolerance: Tolerance = field(default_factory=Tolerance)
    dtype: JudgedDtype = setting("auto", "Dtype of the ULP.", choices=get_args(JudgedDtype))
    rows: int | None = setting(
        None, "How many are compared with finite differences.", integer=True, low=1
    )
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        require_allowed(self)
        if self.rows is not None and self.method != "finite-diff":
            raise OptionError("rows", "applies to the method finite-diff only")


class Judge:
    """Compares a gradient with the exact one, piece by piece."""

    def __init__(
        self, problem: Problem, spec: GradientSpec, how: JudgeOptions, *, losses: bool
    ) -> None:
        self.problem, self.spec = problem, spec
        self.tolerance = how.tolerance
        self.promised = promised_ulp(problem, spec)
        layout, finite = problem.layout, how.method == "finite-diff"
        self.only = rows_to_check(layout, how.rows) if finite else None
        self.exact_oracle = _oracle(spec)
        self.oracle: Oracle = self.exact_oracle
        if finite:
            self.oracle = FiniteDifferenceOracle(spec.options, spec.scale, self._moved)
        self._progress, self._done = how.progress, 0
        self.statistics = ErrorStatistics(layout.classes)
        self.sample = Sample(layout, self.only)
        self.losses = ExactLosses(plan(problem, spec.options), spec) if losses else None

    @property
    def judged_rows(self) -> int:
        """How many rows are compared."""
        return self.problem.layout.rows if self.only is None else len(self.only)

    def _moved(self, logits: int) -> None:
        """Report how far finite differences have come."""
        self._done += logits
        if self._progress:
            self._progress(self._done, self.judged_rows * self.problem.layout.classes)

    def add(self, rows: FloatRows, candidate: Array) -> None:
        """The next rows, and the gradient given for them."""
        if self.losses and self.oracle is not self.exact_oracle:
            self.losses.add_rows(rows, self.exact_oracle(rows).losses)
        if self.only is not None:
            which = np.flatnonzero(np.isin(rows.numbers, self.only))
            rows, candidate = rows.some(which), candidate[which]
        if len(candidate):
            self._compare(rows, candidate)

    def _compare(self, rows: FloatRows, candidate: Array) -> None:
        exact = self.oracle(rows)
        if self.losses and self.oracle is self.exact_oracle:
            self.losses.add_rows(rows, exact.losses)
        found = errors(candidate, exact.grad, exact.size, exact.error_bound, self.spec.finfo)
        sharp = self.promised * found.unit
        given = self.tolerance.allowed(found, exact.grad.high) if self.tolerance.given else sharp
        inexact = beyond(found, sharp)
        off = beyond(found, given) if self.tolerance.given else inexact
        if self.tolerance.plain:
            off = self._not_plain(rows, exact, found, off)
        self.statistics.add(rows, candidate, exact, found, Misses(off, inexact))
        self.statistics.unresolved += int(np.count_nonzero(exact.error_bound > given))
        self.sample.add(SampledRows(rows, candidate, exact.grad.high, exact.size, off), found.ulp)

    def _not_plain(self, rows: FloatRows, exact: OracleResult, found: Errors, off: Array) -> Array:
        """Those of the entries that are off by more than a naive implementation may be."""
        which = np.flatnonzero(off.any(axis=1))
        if not len(which):
            return off
        with np.errstate(all="ignore"):
            naive = _naive(rows.some(which), self.spec)
            most = allowed_grad(naive, exact.grad.high[which], self.spec.finfo)
        result = off.copy()
        result[which] &= ~(found.absolute[which] <= most)
        return result


OUTPUTS: dict[str, Output] = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}


def _naive(rows: FloatRows, spec: GradientSpec) -> NaiveGradient:
    """The gradient in plain arithmetic, against a teacher if there is one."""
    return naive_teacher(rows, spec).gradient if spec.teacher else naive_gradient(rows, spec)


def promised_ulp(problem: Problem, spec: GradientSpec) -> float:
    """The ULP within which a gradient is exact: those that xent promises for its own."""
    options, output = spec.options, OUTPUTS.get(spec.finfo.name, "f64")
    kind: Kind = "plain"
    if spec.teacher:
        kind = "cancelling"
    elif options.label_smoothing or options.z_loss or problem.probs:
        kind = "cancelling" if output == "f64" else "plain"  # in units of float64
    elif options.softcap is not None:
        kind = "softcap"
    elif options.temperature != 1 or options.normalizer is not None or problem.scaled:
        kind = "factors"
    bound = PROMISES[output, kind]
    return max(bound.target, bound.others)


def _oracle(spec: GradientSpec) -> DoubleDoubleOracle | ReferenceOracle | TeacherOracle:
    """The exact one."""
    options, scale, finfo = spec[:3]
    if spec.teacher:
        hard = hard_spec(spec)
        beside = DoubleDoubleOracle(hard.options, hard.scale) if hard else None
        return TeacherOracle(options, scale, spec.teacher.task, beside)
    return (DoubleDoubleOracle if finfo.name == "float64" else ReferenceOracle)(options, scale)


def judge(
    problem: Problem,
    source: RowSource,
    options: LossOptions,
    how: JudgeOptions,
    loss: Array | None = None,
    task: TeacherTask | None = None,
) -> Report:
    """Read everything once, and say how far off the gradient is and, if given, the loss.

    The gradient is the `second` array of the source; `task` is what is to be computed of the
    teacher beside the logits, if there is one.
    """
    assert source.second
    require_same(source.second.shape, problem.layout)
    float_info_of(source.second.dtype, how.dtype)  # an error comes before any number is read
    if loss is not None:
        require_loss(loss.shape, problem.layout, options)
    if task and how.method != "exact":
        raise OptionError("method", f"{how.method} is for losses without a teacher")
    problem = problem if task else with_usual_weights(problem, options)
    pieces = walk(problem, source)
    first = list(islice(pieces, 1))
    finfo = _judged_in(source.second, first, how.dtype)
    by_digits = how.dtype == "auto" and finfo != float_info_of(source.second.dtype)
    spec = _spec(problem, options, finfo, task)
    judging = Judge(problem, spec, how, losses=loss is not None)
    for piece in chain(first, pieces):
        for part in piece.split(ENTRIES):
            assert part.second is not None
            judging.add(
                FloatRows.of(part, task), _candidate(part.second, finfo, narrowed=by_digits)
            )
            if how.progress and how.method == "exact":
                how.progress(part.rows.stop, problem.layout.rows)
    return _report(judging, loss, by_digits=by_digits)


def _spec(
    problem: Problem, options: LossOptions, finfo: FloatInfo, task: TeacherTask | None
) -> GradientSpec:
    """What the gradient should be. A teacher's terms have class weights, but not its mean."""
    scale = scale_of(problem, options)
    if task is None:
        return GradientSpec(options, scale, finfo)
    soft = scale_of(replace(problem, weight=None), options)
    return GradientSpec(options, soft, finfo, TeacherSpec(task, scale))


def judge_loss(
    problem: Problem,
    source: RowSource,
    options: LossOptions,
    tolerance: Tolerance,
    loss: Array,
    task: TeacherTask | None = None,
) -> LossVerdict | None:
    """Say how far off a loss is, without a gradient; None where there are no losses."""
    require_loss(loss.shape, problem.layout, options)
    problem = problem if task else with_usual_weights(problem, options)
    finfo = FLOATS["f64" if source.logits.dtype == NAMES["f64"] else "f32"]
    spec = _spec(problem, options, finfo, task)
    oracle, losses = _oracle(spec), ExactLosses(plan(problem, options), spec)
    for piece in walk(problem, source):
        for part in piece.split(ENTRIES):
            rows = FloatRows.of(part, task)
            losses.add_rows(rows, oracle(rows).losses)
    return loss_verdict(losses, loss, tolerance) if prod(loss.shape) else None


def _judged_in(grad: Reader, first: list[RowPiece], name: JudgedDtype) -> FloatInfo:
    """The dtype to judge in: of text, which has none, the one that its first digits show."""
    text = grad.format == TEXT and name == "auto"
    if text and first and first[0].second is not None and fits_float32(first[0].second):
        return FLOATS["f32"]
    return float_info_of(grad.dtype, name)


def _candidate(box: Array, finfo: FloatInfo, *, narrowed: bool) -> Array:
    """The rows of a gradient; if `narrowed`, rounded from text to what its digits mean."""
    rows = float_rows(box, "grad")
    return widen(narrow(rows, finfo.dtype), NAMES["f64"]) if narrowed else rows


def _report(judging: Judge, loss: Array | None, *, by_digits: bool) -> Report:
    layout, finfo, verdict = judging.problem.layout, judging.spec.finfo, None
    if judging.losses and loss is not None and prod(loss.shape):
        verdict = loss_verdict(judging.losses, loss, judging.tolerance)
    return Report(
        shape=layout.shape,
        class_axis=layout.class_axis,
        finfo=finfo,
        tolerance=judging.tolerance,
        promised=judging.promised,
        by_digits=by_digits,
        method=judging.oracle.name,
        ignored=judging.problem.ignored,
        sampled=None if judging.only is None else len(judging.only),
        statistics=judging.statistics,
        loss=verdict,
        findings=diagnose(judging.sample, judging.statistics, judging.problem, judging.spec),
    )
