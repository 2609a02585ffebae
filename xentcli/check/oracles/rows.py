"""Some rows of a problem in the one form that oracles and hypotheses expect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.oracles.dd_arithmetic import (
    Pair,
    add,
    divide,
    normal,
    pair,
    product,
    scaled,
    total,
)
from xentcli.check.oracles.ulp import FloatInfo
from xentcli.engine.problem import CHUNK, Problem
from xentcli.engine.reduction import plan
from xentcli.engine.rows import RowPiece, float_rows
from xentcli.options import LossOptions
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.check.oracles.teacher_rows import StoredClasses
    from xentcli.engine.teacher.task import TeacherTask

USUAL = 900  # the power of two from which on sums and products of weights may leave float64


@dataclass(frozen=True)
class FloatRows:
    """Rows as float64: x logits and q target mass (n, C); everything else one per row or class.

    `target` is the class of an index target, −1 where the row is ignored, and None for
    probabilities. `numbers` are the rows' numbers in the whole. `teacher` is what it stores of
    them, if there is one; q is 0 without hard targets.
    """

    x: Array
    q: Array
    target: Array | None
    weight: Array
    sample_weight: Array
    upstream: Array
    numbers: Array
    teacher: StoredClasses | None = None

    @classmethod
    def of(cls, piece: RowPiece, task: TeacherTask | None = None) -> FloatRows:
        """The rows of a piece; `task` is what is to be computed of a teacher, if there is one."""
        problem, x, target = piece.problem, float_rows(piece.logits), piece.targets
        if piece.probs is not None:
            q = float_rows(piece.probs, "targets")
        elif target is not None:
            q = one_hot(target, x.shape[1])
        else:
            q = np.zeros_like(x)
        return cls(
            x=x,
            q=q,
            target=target,
            weight=problem.class_weight,
            sample_weight=problem.sample_weights(slice(None)),
            upstream=np.broadcast_to(problem.upstream, len(x)),
            numbers=np.arange(piece.rows.start, piece.rows.stop),
            teacher=None if task is None else _stored(piece, task),
        )

    @property
    def present(self) -> Array:
        """Which rows count."""
        return np.full(len(self.x), True) if self.target is None else self.target >= 0

    def some(self, which: Array) -> FloatRows:
        """The rows of a mask, or of a list of places."""
        names = ("x", "q", "sample_weight", "upstream", "numbers")
        parts = {name: getattr(self, name)[which] for name in names}
        target = None if self.target is None else self.target[which]
        teacher = None if self.teacher is None else self.teacher.some(which)
        return replace(self, target=target, teacher=teacher, **parts)

    @property
    def likeliest(self) -> Array:
        """The class that each row should have: its target, or the likeliest of soft ones."""
        if self.teacher is not None:
            return self.teacher.likeliest
        return np.asarray(np.argmax(self.q, axis=1)) if self.target is None else self.target


def _stored(piece: RowPiece, task: TeacherTask) -> StoredClasses:
    from xentcli.check.oracles.teacher_rows import stored_classes

    return stored_classes(piece, task)


def one_hot(target: Array, classes: int) -> Array:
    """Rows with a one at the target; zeros where there is none."""
    q = np.zeros((len(target), classes))
    rows = np.flatnonzero((target >= 0) & (target < classes))
    q[rows, target[rows]] = 1.0
    return q


class OracleResult(NamedTuple):
    """The result of an oracle for some rows.

    `grad` and `losses` (of each row, before the reduction) are sums of two float64; `size` is
    that of the terms that an entry is the difference of, `error_bound` how far off the oracle
    may be itself; `uncertainty` is 1 − p of each row's likeliest class.
    """

    grad: Pair
    size: Array
    error_bound: Array
    losses: Pair
    uncertainty: Array


class Scale(NamedTuple):
    """What a reduction does to rows, to twice the digits of float64.

    The loss is divided by `denominator`, its z-loss by as much again over `ratio`.
    """

    denominator: Pair
    ratio: Pair

    def of(self, rows: FloatRows) -> tuple[Pair, Array]:
        """u·v / D of each row, as a number and a power of two."""
        if self.denominator.high == 0:  # as `ReductionPlan.scale`
            mass = rows.sample_weight
            if rows.target is not None:
                mass = mass * rows.weight[rows.target]
            return pair(np.where(mass == 0, 0.0, np.nan)), np.zeros(len(mass), np.int32)
        u, up = normal(pair(rows.upstream))
        v, more = normal(pair(rows.sample_weight))
        below, down = normal(self.denominator)
        return divide(product(u.high, v.high), below), up + more - down


class GradientSpec(NamedTuple):
    """What a gradient should be: of which loss, with which factors, in which dtype."""

    options: LossOptions
    scale: Scale
    finfo: FloatInfo
    teacher: TeacherSpec | None = None


class TeacherSpec(NamedTuple):
    """What is to be computed of a teacher, and what a reduction does to hard targets beside it."""

    task: TeacherTask
    hard_scale: Scale


def with_usual_weights(problem: Problem, options: LossOptions) -> Problem:
    """The same problem with weights whose sum in the mean is far from the ends of float64.

    All of them may be multiplied by a power of two, since the mean divides by their sum: those of
    the rows, and with class indices those of the classes.
    """
    weighted = problem.weight is not None or problem.sample_weight is not None
    if options.reduction != "mean" or options.normalizer is not None or not weighted:
        return problem
    v, w = problem.sample_weights(slice(None)), np.ones(1)
    if problem.targets is not None:
        w = np.where(problem.targets < 0, 0.0, problem.class_weight[problem.targets])
    powers = (np.frexp(v)[1] + np.frexp(w)[1])[(v != 0) & (w != 0)]
    if not powers.size or abs(powers.max()) < USUAL:
        return problem
    part = 0 if problem.targets is None else powers.max() // 2
    return replace(
        problem,
        weight=problem.weight if problem.targets is None else np.ldexp(problem.class_weight, -part),
        sample_weight=np.ldexp(v, part - powers.max()),
    )


def scale_of(problem: Problem, options: LossOptions) -> Scale:
    """The denominators; sums of weights without rounding errors."""
    reduction = plan(problem, options)
    from_data = options.reduction == "mean" and options.normalizer is None
    if not from_data or reduction.terms.denominator == 0 or problem.ignored == problem.layout.rows:
        return Scale(pair(float(reduction.terms.denominator)), pair(1.0))
    weighted, plain = _sums(problem)
    return Scale(weighted, divide(weighted, plain) if plain.high else pair(1.0))


def _sums(problem: Problem) -> tuple[Pair, Pair]:
    """Σ v·w_y and Σ v over the rows that count."""
    weighted, plain = pair(0.0), pair(0.0)
    for start in range(0, problem.layout.rows, CHUNK):
        rows = slice(start, min(start + CHUNK, problem.layout.rows))
        present = problem.present(rows)
        v = problem.sample_weights(rows)[present]
        w = np.ones_like(v)
        if problem.targets is not None and problem.weight is not None:
            w = problem.weight[problem.targets[rows][present]]
        plain = add(plain, total(pair(v)))
        (v_part, up), (w_part, more) = normal(pair(v)), normal(pair(w))
        terms = scaled(product(v_part.high, w_part.high), up + more)
        weighted = add(weighted, total(terms))
    return weighted, plain


def scatter(inner: OracleResult, rows: FloatRows, usable: Array) -> OracleResult:
    """The results of usable rows among all: NaN where there is no answer, zero where ignored."""
    nothing = np.where(rows.present, np.nan, 0.0)

    def wide(values: Array, fill: Array) -> Array:
        whole = np.empty((len(fill), *values.shape[1:]))
        whole.T[...] = fill
        whole[usable] = values
        return whole

    zero = np.zeros(len(nothing))
    return OracleResult(
        Pair(wide(inner.grad.high, nothing), wide(inner.grad.low, zero)),
        wide(inner.size, zero),
        wide(inner.error_bound, zero),
        Pair(wide(inner.losses.high, nothing), wide(inner.losses.low, zero)),
        wide(inner.uncertainty, np.ones(len(nothing))),
    )
