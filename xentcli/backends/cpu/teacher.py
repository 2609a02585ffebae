"""The CPU backend for a teacher's soft targets: see `backends.teacher`."""

from __future__ import annotations

from xentcli.arrays.dtypes import Array
from xentcli.backends.cpu.backend import CpuBackend, Work, _uses_streaming_stores
from xentcli.backends.cpu.kernel import Kernel, address, box
from xentcli.backends.cpu.workspace import LINE, long_row_offsets, rows_per_chunk
from xentcli.backends.teacher import TeacherScalars


def space_for(classes: int, rows: int, inner: int) -> int:
    copied = rows_per_chunk(classes) if inner > 1 else 0
    gradients = long_row_offsets(classes, copied or rows, copied)[4]
    return gradients + classes * copied * 8 + LINE


class CpuTeacher(CpuBackend):
    """The kernels for a teacher."""

    def teacher_dense(self, logits, teacher, targets, scalars, scale, results, grad):
        outer, classes, inner = logits.shape
        per_row = address(scale), int(len(scale) > 1), address(results[0]), address(results[1])
        numbers = *box(logits), *box(teacher), address(targets), *plain(scalars), *per_row, *box(grad)
        arrays = logits, teacher, targets, scalars, scale, results, grad
        parts = min(outer * inner, self.threads, max(1, logits.size // (1 << 15)))
        work = Work(outer * inner, lambda rows: space_for(classes, rows, inner), parts, _uses_streaming_stores(logits, grad))
        self.run(Kernel.of("teacher_fast", logits, teacher, grad), work, numbers, arrays)


def plain(s: TeacherScalars):
    return (int(s[0]), int(s[1]), int(s[2]), *(float(v) for v in s[3:]))
