"""The CPU backend for a teacher's soft targets: see `backends.teacher`.

The kernels of a row are in `teacher_dense_fast`, `teacher_dense` and `teacher_top`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.cpu.backend import FAST_MAX_CLASSES, CpuBackend, uses_streaming_stores
from xentcli.backends.cpu.kernel import Kernel, address, box
from xentcli.backends.cpu.workspace import space_for_long_rows, space_for_top
from xentcli.backends.teacher import Divergence, Kind, Tail, TeacherScalars, TopK, spread

AGAIN = 1 << 22  # logits that are copied at a time, of rows that are computed again

# Of a temperature that the float32 kernel divides by.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 2.0**-30, 2.0**30


class CpuTeacher(CpuBackend):
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
        fast = Kernel.of("teacher_fast", logits, teacher, grad)
        if not _is_fast(fast, logits.shape[1], scalars):
            self._dense("teacher", logits, teacher, targets, scalars, scale, results, grad)
            return
        self._dense("teacher_fast", logits, teacher, targets, scalars, scale, results, grad)
        again = np.flatnonzero(np.isnan(results[0]) & (targets >= 0))
        step = max(1, AGAIN // logits.shape[1])
        for begin in range(0, len(again), step):
            rows = again[begin : begin + step]
            self._again(rows, logits, teacher, scalars, scale, results, grad)

    def _again(
        self,
        rows: Array,
        logits: Array,
        teacher: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Some rows, that float32 cannot represent on the way, in float64."""
        o, i = np.divmod(rows, logits.shape[2])
        x, t = (np.ascontiguousarray(a[o, :, i])[:, :, None] for a in (logits, teacher))
        g = None if grad is None else np.empty(x.shape, grad.dtype)
        found = np.empty((2, len(rows)))
        own_scale = scale[rows] if len(scale) > 1 else scale
        present = np.zeros(len(rows), np.int64)
        self._dense("teacher", x, t, present, scalars, own_scale, found, g)
        results[:, rows] = found
        if grad is not None and g is not None:
            grad[o, :, i] = g[:, :, 0]

    def _dense(
        self,
        name: str,
        logits: Array,
        teacher: Array,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        plain = _plain(scalars)
        per_row = address(scale), int(len(scale) > 1), address(results[0]), address(results[1])
        inputs = *box(logits), *box(teacher), address(targets)
        numbers = *inputs, *plain, *per_row, *box(grad)
        arrays = logits, teacher, targets, plain, scale, results, grad
        _, classes, inner = logits.shape
        streaming = uses_streaming_stores(logits, grad)
        space = partial(space_for_long_rows, classes, inner=inner)
        work = self._work(logits, space, streaming)
        self.run(Kernel.of(name, logits, teacher, grad), work, numbers, arrays)

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
        if scalars.tail == Tail.UNIFORM:
            self._uniform(logits, top, targets, scalars, scale, results, grad)
            return
        plain, slots = _plain(scalars), top.classes.shape[1]
        fast = scalars.temperature == 1.0 and logits.shape[1] <= FAST_MAX_CLASSES
        per_row = address(scale), int(len(scale) > 1), address(results[0]), address(results[1])
        stored = *map(address, top), slots
        numbers = *box(logits), *stored, address(targets), *plain, *per_row, *box(grad)
        arrays = logits, *top, targets, plain, scale, results, grad
        _, classes, inner = logits.shape
        streaming = uses_streaming_stores(logits, grad)
        space = partial(space_for_top, classes, inner=inner, slots=slots)
        work = self._work(logits, space, streaming)
        kernel = Kernel.of("top_fast" if fast else "top", logits, None, grad)
        self.run(kernel, work, numbers, arrays)

    def _uniform(
        self,
        logits: Array,
        top: TopK,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """The stored classes with the others evenly: as probabilities of all classes, some rows at
        a time."""
        outer, classes, inner = logits.shape
        step = max(1, AGAIN // (classes * inner))
        dense = scalars._replace(tail=Tail.ALL, kind=Kind.PROBS)
        for begin in range(0, outer, step):
            end = min(begin + step, outer)
            rows = slice(begin * inner, end * inner)
            q = spread(top, rows, (end - begin, classes, inner))
            own_scale = scale[rows] if len(scale) > 1 else scale
            g = None if grad is None else grad[begin:end]
            boxes = logits[begin:end], q, targets[rows]
            self._dense("teacher", *boxes, dense, own_scale, results[:, rows], g)


def _is_fast(kernel: Kernel, classes: int, scalars: TeacherScalars) -> bool:
    """Whether the float32 kernel can compute this."""
    narrow = "float64" not in kernel.dtypes and classes <= FAST_MAX_CLASSES
    pulled = scalars.divergence in (Divergence.CE, Divergence.FORWARD_KL)
    temperatures = scalars.temperature, scalars.teacher_temperature
    usual = all(LEAST_TEMPERATURE < t < MOST_TEMPERATURE for t in temperatures)
    return narrow and pulled and scalars.kind == Kind.LOGITS and usual


def _plain(scalars: TeacherScalars) -> TeacherScalars:
    """The options as Python's own integers and floats, from which the kernels' types come."""
    return TeacherScalars(*map(int, scalars[:3]), *map(float, scalars[3:]))
