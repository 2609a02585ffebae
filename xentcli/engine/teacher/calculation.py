"""The loss against a teacher, piece by piece, and with alpha that against hard targets too."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from xentcli import backends
from xentcli.arrays.dtypes import NAMES, Array, as_logits, narrow
from xentcli.arrays.layout import Block, dense
from xentcli.arrays.sums import exact_sum
from xentcli.backends.reference import clear_negative_zero
from xentcli.engine.cross_entropy import LossCalculation, RowLosses, Run
from xentcli.engine.logits_check import LogitsCheck
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import plan
from xentcli.engine.result import CrossEntropy, LossTotals, RowArrays
from xentcli.engine.rows import RowPiece, float_rows
from xentcli.engine.teacher.mass import LOOKED_AT, MassTotals
from xentcli.engine.teacher.task import TeacherTask
from xentcli.engine.teacher.top_k import class_columns, mass_of, slots_of
from xentcli.errors import Setting
from xentcli.options import LossOptions

TOGETHER = 1 << 20  # logits at a time where a gradient is the sum of two, or rows are padded


class TeacherCalculation:
    """The loss against a teacher, and what alpha leaves of the cross-entropy with the targets.

        A·τ²·L(student, teacher) + (1 − A)·cross-entropy at temperature 1

    The mean of the first divides by the row weights of the rows that are not ignored, and that of
    the second as without a teacher. The bits do not depend on how the rows are cut.
    """

    def __init__(self, problem: Problem, task: TeacherTask, options: LossOptions, run: Run) -> None:
        self.task, self.run, self.rows = task, run, 0
        self.backend = backends.for_teacher(
            run.backend,
            prod(problem.layout.shape),
            problem.weight,
            run.threads,
            run.notify,
            plain=bool(np.isinf(task.scalars.softcap)),
        )
        self.plan = plan(replace(problem, weight=None), options)
        self.totals = LossTotals(options.softcap)
        self.mass = MassTotals(task.dtype, whole=not task.top)
        kind = Setting("teacher_kind", "probs", in_python="kind='probs'")
        self.logits_check = LogitsCheck(where="teacher", kind=kind)
        self.hard: LossCalculation | None = None
        if task.hard_share:
            how = replace(options, temperature=1.0), run._replace(progress=None)
            self.hard = LossCalculation(self._with_share(problem), *how)

    def _with_share(self, problem: Problem) -> Problem:
        """The problem of the hard targets, whose gradient is multiplied by their share."""
        return replace(problem, upstream=problem.upstream * self.task.hard_share)

    def add(self, piece: RowPiece, grad: Destination | None = None) -> RowLosses:
        """Compute the next rows; `grad`, of their shape, takes the gradient."""
        results, entries = np.empty((2, piece.layout.rows)), self.backend.block
        if self.hard or self.task.columns > piece.layout.classes:
            entries = min(entries, TOGETHER)
        for block in piece.layout.blocks(entries):
            part = piece.part(block)
            part = part._replace(logits=dense(part.logits))
            self._add(part, results[:, block.rows], grad, block)
            self.rows += part.layout.rows
            if self.run.progress:
                self.run.progress(self.rows, self.plan.problem.layout.rows)
        return RowLosses(*results)

    def _add(self, piece: RowPiece, results: Array, grad: Destination | None, block: Block) -> None:
        """Compute a piece that is one block."""
        self.totals.logits.add(piece.logits)
        hard, losses = self._hard_part(piece, grad)
        buffer = grad.buffer(block) if grad else None
        soft = buffer if hard is None else np.empty_like(hard)
        plan, rows = self.plan.of(replace(piece.problem, weight=None)), slice(0, piece.layout.rows)
        self._compare(piece, plan.scale(rows) * self.task.factor, results, soft)
        plan.weigh(results[0], rows)
        self.totals.add_losses(results[0])
        plan.unscale(results[0])
        results[0] = results[0] * self.task.factor + losses
        if grad and buffer is not None:
            if hard is not None and soft is not None:
                buffer[...] = narrow(hard + soft, buffer.dtype)
                clear_negative_zero(buffer)
            grad.put(block, buffer)

    def _hard_part(self, piece: RowPiece, grad: Destination | None) -> tuple[Any, Any]:
        """The gradient and losses of the hard targets, times their share; None and 0 without."""
        if not self.hard:
            return None, 0.0
        destination = None
        if grad:
            double = NAMES["f64"] in (piece.logits.dtype, grad.dtype)
            room = np.empty(piece.layout.shape, NAMES["f64" if double else "f32"])
            destination = Destination(piece.layout, piece.logits, room)
        part = piece._replace(problem=self._with_share(piece.problem))
        losses = self.hard.add(part, destination).losses * self.task.hard_share
        return destination and destination.finish(), losses

    def _compare(self, piece: RowPiece, scale: Array, results: Array, grad: Array | None) -> None:
        """Call the backend for a piece that is one block."""
        targets = piece.targets
        if targets is None:
            targets = np.zeros(piece.layout.rows, np.int64)
        scalars = self.task.scalars
        if self.task.top:
            top = self._top(piece, targets >= 0)
            self.backend.teacher_top(piece.logits, top, targets, scalars, scale, results, grad)
            return
        x, teacher = piece.logits, self._dense(piece, targets >= 0)
        missing = teacher.shape[1] - x.shape[1]
        if not missing:
            self.backend.teacher_dense(x, teacher, targets, scalars, scale, results, grad)
            return
        room = None if grad is None else np.empty(teacher.shape, grad.dtype)
        x = padded(x, missing, -np.inf)
        self.backend.teacher_dense(x, teacher, targets, scalars, scale, results, room)
        if grad is not None and room is not None:
            grad[...] = room[:, : grad.shape[1]]

    def _top(self, piece: RowPiece, present: Array) -> Any:
        values, indices = float_rows(piece.beside[0], "teacher"), class_columns(piece.beside[1])
        slots = slots_of(self.task, values, indices, present, piece.start)
        rest = None
        if self.task.has_rest:
            rest = float_rows(piece.beside[2], "teacher_rest")[:, 0]
            rest = np.exp(rest) if self.task.kind == "log-probs" else rest
        double = piece.logits.dtype == NAMES["f64"]
        mass = mass_of(self.task, slots, rest, double=double)
        self.mass.add(mass.captured, present, mass.smallest)
        return mass.top

    def _dense(self, piece: RowPiece, present: Array) -> Array:
        """The teacher's box of all classes, in a dtype that kernels know."""
        kind = self.task.kind
        box = dense(as_logits(piece.beside[0], "teacher"))
        if kind == "counts":
            rows = box.astype(np.float64)
            box = rows / exact_sum(rows.transpose(0, 2, 1))[:, None, :]
        if kind == "logits":
            self.logits_check.add(box)
        elif self.mass.rows < LOOKED_AT:
            q = float_rows(box[:LOOKED_AT], "teacher")
            self.mass.add_dense(np.exp(q) if kind == "log-probs" else q, present)
        missing = piece.layout.classes - box.shape[1]
        absent = 0.0 if kind in ("probs", "counts") else -np.inf
        return padded(box, missing, absent) if missing > 0 else box

    def merge(self, other: TeacherCalculation) -> None:
        """Take the totals of the rows that follow, of the same problem."""
        self.totals.merge(other.totals)
        self.mass.merge(other.mass)
        self.logits_check.merge(other.logits_check)
        self.rows += other.rows
        if self.hard and other.hard:
            self.hard.merge(other.hard)

    def result(self, arrays: RowArrays | None = None) -> CrossEntropy:
        """The result over all rows, with the arrays that were kept."""
        found = self.totals.result(self.plan, self.backend.name, arrays or RowArrays())
        loss = found.loss
        notes = [*self.mass.notes(), *self.logits_check.notes(), *found.notes]
        if not self.plan.terms.per_row:
            loss = loss * self.task.factor
        if self.hard:
            hard = self.hard.result()
            loss = loss if self.plan.terms.per_row else loss + hard.loss * self.task.hard_share
            notes += [note for note in hard.notes if note not in notes]
        captured = self.mass.captured() if self.task.partial else None
        return replace(found, loss=loss, notes=tuple(notes), captured=captured)


def padded(box: Array, count: int, value: float) -> Array:
    """A box (outer, C, inner) with some more classes."""
    more = np.full((box.shape[0], count, box.shape[2]), value, np.float32)
    return np.concatenate([box, narrow(more, box.dtype)], axis=1)
