"""One row against a teacher: both distributions, the terms, and the gradient, as data.

The value and the gradient are those of `cross_entropy(..., backend="numpy")` for float64 logits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Layout
from xentcli.backends import softmax_steps
from xentcli.backends.reference_teacher import NumpyTeacher
from xentcli.backends.reference_terms import log_q_and_q
from xentcli.backends.teacher import Divergence, Tail
from xentcli.engine.cross_entropy import Run
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import Problem
from xentcli.engine.rows import RowPiece
from xentcli.engine.teacher.calculation import TeacherCalculation, padded
from xentcli.engine.teacher.task import TeacherTask
from xentcli.engine.teacher.top_k import mass_of, slots_of
from xentcli.errors import OptionError
from xentcli.explain.compute import derive
from xentcli.options import LossOptions
from xentcli.records import dataclass

RUN = Run("numpy", 1)


@dataclass(frozen=True)
class TaughtRow:
    """The numbers of one row; arrays have one entry per class.

    `q` is what a class has in the loss: its share of the rest, or 0, where it is not stored. With
    the tail `subset`, p and q are those of the stored classes alone.
    """

    row: int
    rows: int
    options: LossOptions
    task: TeacherTask
    target: int | None
    ignored: bool
    logits: Array
    p: Array
    q: Array
    stored: Array  # bool
    captured: float  # Σ q of the stored classes, before any of them is renormalised
    rest: float  # r, and the student's probability of the same classes
    p_rest: float
    terms: Array  # what each class adds to the value
    bucket: float  # what the bucket adds
    value: float  # of the divergence
    row_gradient: Array  # of the value, by the logits
    hard_loss: float  # of the cross-entropy with the target, at temperature 1
    hard_gradient: Array  # its part of the gradient
    loss: float  # of the row
    share: float  # what the row adds to the reduced loss
    gradient: Array

    @property
    def classes(self) -> int:
        """C."""
        return len(self.logits)

    @property
    def difference(self) -> Array:
        """What decides which classes are shown."""
        return self.gradient


def derive_taught(
    problem: Problem,
    task: TeacherTask,
    options: LossOptions,
    row: int,
    arrays: tuple[Array, Array | None],
    beside: list[Array],
) -> TaughtRow:
    """The derivation of row `row`, from its logits and target probabilities, and the teacher's.

    Shapes: logits and probabilities (C,), those beside them (C,) or (K,), float64. Units: nats.
    Errors: those of a teacher's arrays; NaN and infinity propagate.
    """
    with np.errstate(all="ignore"):
        return _derived(problem, task, options, row, arrays, beside)


def _derived(
    problem: Problem,
    task: TeacherTask,
    options: LossOptions,
    row: int,
    arrays: tuple[Array, Array | None],
    beside: list[Array],
) -> TaughtRow:
    (x, probs), layout = arrays, Layout((len(arrays[0]),), 0)
    target = None if problem.targets is None else int(problem.targets[row])
    ignored = target is not None and target < 0
    part = problem.part(slice(row, row + 1), layout)
    boxes = tuple(np.asarray(array, np.float64).reshape(1, -1, 1) for array in beside)
    piece = RowPiece.of_arrays(part, x, probs)._replace(start=row, beside=boxes)
    calculation = TeacherCalculation(problem, task, options, RUN)
    whole = Destination(layout, x)
    losses = calculation.add(piece, whole).losses
    result = calculation.result()
    return TaughtRow(
        row=row,
        rows=problem.layout.rows,
        options=options,
        task=task,
        target=None if ignored else target,
        ignored=ignored,
        logits=x,
        loss=float(losses[0]),
        share=float(losses[0]) if result.loss is None else float(np.sum(result.loss)),
        gradient=whole.finish(),
        **_compared(x, task, problem.weight, boxes, ignored=ignored),
        **_hard(problem, task, options, row, arrays),
    )


def _hard(
    problem: Problem,
    task: TeacherTask,
    options: LossOptions,
    row: int,
    arrays: tuple[Array, Array | None],
) -> dict[str, Any]:
    """The cross-entropy with the target, where alpha leaves some."""
    if not task.hard_share:
        return {"hard_loss": 0.0, "hard_gradient": np.zeros(len(arrays[0]))}
    hard = derive(problem, replace(options, temperature=1.0), row, *arrays)
    return {"hard_loss": hard.row_loss, "hard_gradient": hard.gradient * task.hard_share}


def _compared(
    x: Array, task: TeacherTask, weight: Array | None, boxes: tuple[Array, ...], *, ignored: bool
) -> dict[str, Any]:
    """Both distributions, and what is made of them."""
    scalars, room, results = task.scalars, np.zeros((1, len(x), 1)), np.zeros((2, 1))
    p = softmax_steps.lowered(softmax_steps.softmax(x[None], scalars.of_student).p)[0]
    backend, targets = NumpyTeacher(weight), np.array([-1 if ignored else 0])
    how = targets, scalars, np.ones(1), results, room
    if task.top:
        found = _from_slots(task, boxes, p, ignored=ignored)
        backend.teacher_top(x.reshape(1, -1, 1), found.pop("top"), *how)
    else:
        values = _of_all_classes(task, boxes[0], len(x))
        found = _from_all(task, values[0, :, 0])
        backend.teacher_dense(x.reshape(1, -1, 1), values, *how)
    if task.scalars.tail == Tail.SUBSET:
        p = np.where(found["stored"], p / p[found["stored"]].sum(), 0.0)
    terms, bucket = _terms(task, p, found, weight)
    gradient = room[0, :, 0]
    value = float(results[0, 0])
    return {**found, "p": p, "terms": terms, "bucket": bucket, "value": value} | {
        "row_gradient": gradient
    }


def _of_all_classes(task: TeacherTask, values: Array, classes: int) -> Array:
    """The numbers of a dense teacher as a box, padded to the student's classes."""
    if values.shape[1] > classes:
        what = f"explain shows {classes} classes, and the teacher has {values.shape[1]}"
        raise OptionError("teacher_classes", what)
    if task.kind == "counts":
        values = values / values.sum()
    absent = 0.0 if task.kind in ("probs", "counts") else -np.inf
    return padded(values, classes - values.shape[1], absent)


def _from_all(task: TeacherTask, values: Array) -> dict[str, Any]:
    _, q = log_q_and_q(values[None], task.scalars)
    lowered = softmax_steps.lowered(q)[0]
    everything = np.ones(len(values), bool)
    return {"q": lowered, "stored": everything, "rest": 0.0, "p_rest": 0.0} | {
        "captured": float(lowered.sum())
    }


def _from_slots(
    task: TeacherTask, boxes: tuple[Array, ...], p: Array, *, ignored: bool
) -> dict[str, Any]:
    values, indices = (box[:, :, 0] for box in boxes[:2])
    slots = slots_of(task, values, indices.astype(np.int64), np.array([not ignored]), 0)
    rest = None
    if task.has_rest:
        rest = boxes[2].reshape(1)
        rest = np.exp(rest) if task.kind == "log-probs" else rest
    top, captured, _ = mass_of(task, slots, rest, double=True)
    stored = np.zeros(len(p), bool)
    stored[top.classes[0][top.classes[0] >= 0]] = True
    r = float(top.rest[0])
    q = np.full(len(p), r / max(1, int(np.count_nonzero(~stored))))
    if task.scalars.tail != Tail.UNIFORM:
        q[:] = 0.0
    q[stored] = top.q[0][top.classes[0] >= 0]
    found = {"top": top, "q": q, "stored": stored, "rest": r, "captured": float(captured[0])}
    return {**found, "p_rest": float(p[~stored].sum())}


def _terms(
    task: TeacherTask, p: Array, found: dict[str, Any], weight: Array | None
) -> tuple[Array, float]:
    """What each class adds to the value, and what the bucket adds."""
    terms = _each(task, p, found["q"]) * (1.0 if weight is None else weight)
    if task.scalars.tail in (Tail.BUCKET, Tail.SUBSET, Tail.DROP):
        terms = np.where(found["stored"], terms, 0.0)
    bucket = 0.0
    if task.scalars.tail == Tail.BUCKET and not found["stored"].all():
        bucket = float(_each(task, np.array([found["p_rest"]]), np.array([found["rest"]]))[0])
    return terms, bucket


def _each(task: TeacherTask, p: Array, q: Array) -> Array:
    """The term of each p and q; 0·ln 0 is 0."""
    kind, beta = task.scalars.divergence, task.scalars.beta
    if kind == Divergence.CE:
        return _times(-q, np.log(p))
    if kind == Divergence.FORWARD_KL:
        return _times(q, np.log(q) - np.log(p))
    if kind == Divergence.REVERSE_KL:
        return _times(p, np.log(p) - np.log(q))
    log_m = np.log(beta * q + (1 - beta) * p)
    return _times(beta * q, np.log(q) - log_m) + _times((1 - beta) * p, np.log(p) - log_m)


def _times(mass: Array, logs: Array) -> Array:
    return np.asarray(np.where(mass == 0, 0.0, mass * logs))
