"""The CUDA backend for a teacher's soft targets: see `backends.teacher`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.cuda import CudaBackend, launch
from xentcli.backends.cuda.box import Box, boxed
from xentcli.backends.cuda.primitives import configured
from xentcli.backends.cuda.staging import Transfer, exclusive_device, run
from xentcli.backends.cuda.teacher_formulas import TeacherParams
from xentcli.backends.cuda.teacher_rows import dense_rows
from xentcli.backends.cuda.teacher_top import top_rows
from xentcli.backends.teacher import Divergence, Kind, Tail, TeacherScalars, TopK, spread


def _params(x: Box, t: Box, g: Box | None, slots: int, scalars: TeacherScalars) -> TeacherParams:
    beta = float(scalars.beta) if scalars.divergence == Divergence.JSD else 0.5
    out = g or x
    return TeacherParams(
        rows=x.shape[0] * x.shape[2],
        classes=x.shape[1],
        inner=x.shape[2],
        slots=slots,
        writes=int(g is not None),
        x_outer=x.strides[0],
        x_inner=x.strides[2],
        x_step=x.strides[1],
        t_outer=t.strides[0],
        t_inner=t.strides[2],
        t_step=t.strides[1],
        g_outer=out.strides[0],
        g_inner=out.strides[2],
        g_step=out.strides[1],
        divergence=int(scalars.divergence),
        tail=int(scalars.tail),
        kind=int(scalars.kind),
        beta=beta,
        log_beta=math.log(beta),
        log_other=math.log1p(-beta),
        temperature=float(scalars.temperature),
        teacher_temperature=float(scalars.teacher_temperature),
    )


@dataclass(frozen=True)
class _Launch:
    """Launches the rows of a piece, against a dense teacher or against `slots` stored classes."""

    shape: tuple[int, int, int]
    slots: int
    scalars: TeacherScalars

    def __call__(self, inputs: list[Any], outputs: list[Any], stream: Any) -> None:
        logits, *teacher, targets, scale = inputs
        results, *grad = outputs
        x, g = boxed(logits, self.shape), boxed(grad[0], self.shape) if grad else None
        t = x if self.slots else boxed(teacher[0], self.shape)
        params = _params(x, t, g, self.slots, self.scalars)
        values = results.reshape(2, results.size // 2)
        kernel = top_rows if self.slots else dense_rows
        threads = launch.threads_for(params.classes)
        arguments = logits, *teacher, targets, scale, params, values, grad[0] if grad else logits
        configured(kernel, params.rows, threads, stream)(*arguments)


class CudaTeacher(CudaBackend):
    """The kernels for a teacher's soft targets, beside the others."""

    def teacher_dense(
        self,
        logits: Array,
        teacher: Array,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Values, log-sum-exps and gradients against a teacher of all classes."""

        def pieces() -> Iterator[Transfer]:
            for block, shape in self._split(logits):
                boxes = block.of(logits), block.of(teacher)
                rows = targets[block.rows], scale if len(scale) == 1 else scale[block.rows]
                outputs = [results[:, block.rows]] + ([] if grad is None else [block.of(grad)])
                yield Transfer((*boxes, *rows), tuple(outputs), _Launch(shape, 0, scalars))

        with exclusive_device(), self._notified():
            run(pieces(), self._copiers)

    def teacher_top(
        self,
        logits: Array,
        top: TopK,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Values, log-sum-exps and gradients against the classes that are stored."""
        uniform = scalars.tail == Tail.UNIFORM
        dense = scalars._replace(tail=Tail.ALL, kind=Kind.PROBS)

        def pieces() -> Iterator[Transfer]:
            for block, shape in self._split(logits):
                teacher = [np.ascontiguousarray(part[block.rows]) for part in top]
                start = _Launch(shape, top.classes.shape[1], scalars)
                if uniform:
                    teacher = [spread(top, block.rows, shape)]
                    start = _Launch(shape, 0, dense)
                rows = targets[block.rows], scale if len(scale) == 1 else scale[block.rows]
                outputs = [results[:, block.rows]] + ([] if grad is None else [block.of(grad)])
                yield Transfer((block.of(logits), *teacher, *rows), tuple(outputs), start)

        with exclusive_device(), self._notified():
            run(pieces(), self._copiers)
