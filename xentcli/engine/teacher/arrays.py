"""A teacher as Python callers give it, and the loss against it of arrays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xentcli.arrays.dtypes import Array, as_array
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.engine.cross_entropy import Run
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.result import CrossEntropy, RowArrays
from xentcli.engine.rows import RowPiece
from xentcli.engine.targets import Whole
from xentcli.engine.teacher.calculation import TeacherCalculation
from xentcli.engine.teacher.task import task_of
from xentcli.errors import OptionError, Setting, shown
from xentcli.options import (
    Divergence,
    LossOptions,
    Tail,
    TeacherClasses,
    TeacherKind,
    TeacherOptions,
)


@dataclass(frozen=True)
class Teacher:
    """Soft targets from another model, for `cross_entropy(..., teacher=Teacher(...))`.

        s = logits / temperature,  p = softmax(s),  q = softmax(values / teacher temperature)
        ce          −Σ q·ln p                     forward-kl   Σ q·(ln q − ln p)
        reverse-kl  Σ p·(ln p − ln q)             jsd          β·KL(q‖m) + (1 − β)·KL(p‖m)
        loss        alpha·(temperature² with scale_t2)·that + (1 − alpha)·cross-entropy

    with m = β·q + (1 − β)·p; the cross-entropy is that of the targets, at temperature 1.

    Shapes: `values` that of the logits. A top-K teacher has K numbers instead of C, and `indices`
    of the same shape, its classes; −1, −∞, and log-probabilities from −1000 down are empty slots.
    `rest` is the mass of the other classes, one per row, where it is stored; else 1 − Σ q.

    What the values are (`kind`: logits, log-probs, probs, counts) can be told of integers only,
    which are counts. `tail` is required with `indices`, except for counts:

        bucket   all others are one class        uniform  the rest is spread evenly over them
        subset   both are renormalised on K      teacher  only the teacher is renormalised
        drop     nothing: Σ over K; may be negative

    `temperature` is the teacher's, by default that of the student; `classes="pad"` gives classes
    that one of the two lacks the probability 0.

    Units: nats. Errors: those of `cross_entropy`, when it is called.

    >>> from xentcli import cross_entropy
    >>> teacher = Teacher([[0.5, 0.25]], [[2, 0]], kind="probs", divergence="ce", tail="bucket")
    >>> r = cross_entropy([[0.0, 0.0, 0.0, 0.0]], teacher=teacher)
    >>> round(r.loss, 4), r.grad.round(4).tolist(), r.captured.mean
    (1.213, [[0.0, 0.125, -0.25, 0.125]], 0.75)

    Source: Hinton, Vinyals, Dean, Distilling the knowledge in a neural network (2015),
    arXiv:1503.02531; Agarwal et al., On-policy distillation of language models (2024),
    arXiv:2306.13649, for the divergences.
    """

    values: Any
    indices: Any = None
    rest: Any = None
    kind: TeacherKind | None = None
    divergence: Divergence | None = None
    beta: float | None = None
    tail: Tail | None = None
    alpha: float = 1.0
    scale_t2: bool = False
    temperature: float | None = None
    classes: TeacherClasses = "same"

    @property
    def options(self) -> TeacherOptions:
        """The options by themselves, checked."""
        return TeacherOptions(
            teacher_kind=self.kind,
            divergence=self.divergence,
            beta=self.beta,
            tail=self.tail,
            alpha=self.alpha,
            scale_t2=self.scale_t2,
            teacher_temperature=self.temperature,
            teacher_classes=self.classes,
        )

    @property
    def arrays(self) -> list[Array]:
        """Values, and indices and rest where there are any."""
        given = {"teacher_indices": self.indices, "teacher_rest": self.rest}
        if self.rest is not None and self.indices is None:
            raise OptionError("teacher_rest", "applies to a teacher with indices")
        others = [as_array(v, name) for name, v in given.items() if v is not None]
        return [as_array(self.values, "teacher"), *others]


def require_teacher(teacher: object) -> None:
    """An error for anything else."""
    if not issubclass(type(teacher), Teacher):
        what = f"expected a Teacher, not {shown(type(teacher).__name__)}"
        raise OptionError("teacher", what, "teacher=xentcli.Teacher(values, …)")


@ignoring_float_errors
def compute(  # noqa: PLR0913 (arrays and options of two models)
    arrays: tuple[Array, Array | None],
    teacher: tuple[list[Array], TeacherOptions],
    options: LossOptions,
    extras: Extras,
    run: Run,
    *,
    grad: bool,
    out: Any,
) -> CrossEntropy:
    """The loss against a teacher of logits and targets in memory."""
    (x, targets), (beside, how) = arrays, teacher
    problem = build(x.shape, None if targets is None else Whole(targets), options, extras)
    require_use_of(targets, problem, how)
    task = task_of(problem.layout, beside, options, how, extras, has_rest=len(beside) > 2)
    probs = targets if problem.probs else None
    destination = None
    if grad:
        destination = Destination(problem.layout, x, out)
        x = destination.unshared(x)
        probs = None if probs is None else destination.unshared(probs)
        beside = [destination.unshared(array) for array in beside]
    piece = RowPiece.of_arrays(problem, x, probs, beside)
    calculation = TeacherCalculation(problem, task, options, run)
    each = calculation.add(piece, destination)
    losses, lse = (array.reshape(problem.layout.row_shape) for array in each)
    return calculation.result(RowArrays(losses, destination and destination.finish(), lse))


def require_use_of(targets: object, problem: Problem, teacher: TeacherOptions) -> None:
    """An error for hard targets that are missing, or have no effect."""
    if targets is None and teacher.alpha < 1:
        what = f"{teacher.alpha:g} is for a loss with hard targets too, but TARGETS are missing"
        raise OptionError("alpha", what)
    if targets is not None and problem.probs and teacher.alpha == 1:
        what = "probabilities have no effect beside a teacher: alpha 1 leaves hard targets out"
        hint = "leave them out, or use ", Setting("alpha", 0.5)
        raise OptionError("targets", what, hint)
