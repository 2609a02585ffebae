"""From readers to a report: every row is computed exactly, compared, and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, widen
from xentcli.check.diagnosis import diagnose
from xentcli.check.diagnosis.sample import Kept, Sample
from xentcli.check.fits import require_loss, require_same
from xentcli.check.oracles.dd_arithmetic import Pair, add, divide, pair, total
from xentcli.check.oracles.double_double import Compensated
from xentcli.check.oracles.finite_differences import FiniteDifferences
from xentcli.check.oracles.float64 import ByReference
from xentcli.check.oracles.naive import allowed, plain
from xentcli.check.oracles.rows import Exact, Rows, Scale, rows_of, scale_of
from xentcli.check.oracles.ulp import KINDS, Errors, Kind, Tolerance, errors, kind_of
from xentcli.check.report import LossFound, Report
from xentcli.check.statistics import Statistics
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import plan
from xentcli.engine.rows import RowSource, float_rows, walk
from xentcli.errors import OptionError
from xentcli.options import LossOptions

ENTRIES = 1 << 14  # at a time: two dozen arrays of so many float64 stay in the cache
METHODS = ("exact", "finite-diff")


@dataclass(frozen=True)
class How:
    """How to judge: by which oracle, how strictly, in units of which kind of float."""

    method: str = "exact"
    tolerance: Tolerance = field(default_factory=Tolerance)
    dtype: str = "auto"
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            what = f"{self.method!r} is not known: {' or '.join(METHODS)}"
            raise OptionError("method", what)


class Judge:
    """Compares a gradient with the exact one, some rows after the other."""

    def __init__(
        self, problem: Problem, options: LossOptions, kind: Kind, how: How, *, losses: bool
    ) -> None:
        self.problem, self.options, self.kind = problem, options, kind
        self.scale = scale_of(problem, options)
        self.tolerance = how.tolerance.of(kind)
        self.oracle = _oracle(problem, options, self.scale, (kind, how.method))
        self.statistics = Statistics(problem.layout.classes)
        self.sample = Sample(problem.layout)
        self.losses = Losses(problem, options, self.scale) if losses else None

    def add(self, rows: Rows, theirs: Array) -> None:
        """The next rows, and what somebody says of them."""
        exact = self.oracle(rows)
        found = errors(theirs, exact.grad, exact.size, exact.doubt, self.kind)
        off = (found.absolute > 0) & ~(found.absolute <= self._allowed(rows, exact, found))
        self.statistics.add(rows, theirs, exact, found, off)
        self.sample.add(Kept(rows, theirs, exact.grad.high, exact.size, off), found.ulp)
        if self.losses:
            self.losses.add(exact.losses)

    def _allowed(self, rows: Rows, exact: Exact, found: Errors) -> Array:
        given = self.tolerance.allowed(found, exact.grad.high)
        if not self.tolerance.like_peers:
            return given
        with np.errstate(all="ignore"):
            peers = plain(rows, self.options, self.scale, self.kind)
            return np.maximum(given, allowed(peers, exact.grad.high, self.kind))


def _oracle(
    problem: Problem, options: LossOptions, scale: Scale, how: tuple[Kind, str]
) -> Callable[[Rows], Exact]:
    kind, method = how
    if method == "finite-diff":
        return FiniteDifferences.of(problem.layout, options, scale)
    return (Compensated if kind.name == "float64" else ByReference)(options, scale)


class Losses:
    """The exact losses: their sum, or all of them where each is wanted."""

    def __init__(self, problem: Problem, options: LossOptions, scale: Scale) -> None:
        self._each: list[Array] | None = [] if options.reduction == "none" else None
        self._total = pair(0.0)
        self._plan, self._scale = plan(problem, options), scale

    def add(self, losses: Pair) -> None:
        """Those of the next rows."""
        if self._each is not None:
            self._each.append(losses.high)
        with np.errstate(all="ignore"):
            self._total = add(self._total, total(losses))

    def value(self) -> Array:
        """One number, or one per row, rounded to float64."""
        if self._each is not None:
            return np.concatenate([np.empty(0), *self._each])
        if self._plan.when_empty is not None:
            return np.array(self._plan.when_empty)
        with np.errstate(all="ignore"):
            high = self._total.high
            if not np.isfinite(high):
                return high
            return divide(self._total, self._scale.denominator).high


def judge(
    problem: Problem, source: RowSource, options: LossOptions, how: How, loss: Array | None = None
) -> Report:
    """Read everything once, and say how far off the gradient is and, if given, the loss.

    The gradient is the `second` array of the source.
    """
    assert source.second
    require_same(source.second.shape, problem.layout)
    kind = kind_of(source.second.dtype, how.dtype)
    if loss is not None:
        require_loss(loss.shape, problem.layout, options)
    judging = Judge(problem, options, kind, how, losses=loss is not None)
    for piece in walk(problem, source):
        for part in piece.split(ENTRIES):
            assert part.second is not None
            judging.add(rows_of(part), float_rows(part.second, "grad"))
            if how.progress:
                how.progress(part.rows.stop, problem.layout.rows)
    return _report(judging, how, loss)


def _loss_found(judging: Judge, loss: Array) -> LossFound:
    """The loss in units of float32 at least, as only its sum is wider than the gradient."""
    assert judging.losses
    own, kind = kind_of(loss.dtype), judging.kind
    if own.name == "float64":
        own = kind if kind.name in ("float32", "float64") else KINDS["f32"]
    exact, given = pair(judging.losses.value().reshape(-1)), widen(loss, NAMES["f64"]).reshape(-1)
    found = errors(given, exact, exact.high, np.zeros(len(given)), own)
    tolerance = judging.tolerance
    if tolerance.like_peers:
        tolerance = Tolerance(ulp=max(own.ulp, 128.0))
    off = (found.absolute > 0) & ~(found.absolute <= tolerance.allowed(found, exact.high))
    return LossFound.of(given, exact.high, found, (off, own.name))


def _report(judging: Judge, how: How, loss: Array | None) -> Report:
    layout: Any = judging.problem.layout
    return Report(
        shape=layout.shape,
        class_axis=layout.class_axis,
        kind=judging.kind,
        tolerance=judging.tolerance.words(judging.kind),
        method=getattr(judging.oracle, "name", how.method),
        ignored=judging.problem.ignored,
        statistics=judging.statistics,
        loss=None if loss is None or not prod(loss.shape) else _loss_found(judging, loss),
        findings=diagnose(
            judging.sample,
            judging.statistics,
            judging.problem,
            (judging.options, judging.scale, judging.kind),
        ),
    )
