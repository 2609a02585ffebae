"""From readers through the kernels to writers, in constant memory.

The logits come in pieces of some rows, which stay in the cache from the read through the kernel
to the write. Kept in memory for all rows: one small integer per class index, and the row
weights and upstream gradients if there are any.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array, as_logits, default_output
from xentcli.arrays.layout import Layout
from xentcli.engine import rows
from xentcli.engine.cross_entropy import LossCalculation, Run
from xentcli.engine.output_buffer import Destination
from xentcli.engine.pipeline import Pipeline
from xentcli.engine.problem import Problem, without_targets
from xentcli.engine.result import CrossEntropy
from xentcli.engine.rows import PieceBuffers, RowPiece, RowSource, walk
from xentcli.engine.softmax import Probabilities, SoftmaxCalculation
from xentcli.options import LogitsOptions, LossOptions
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.engine.teacher.calculation import TeacherCalculation
    from xentcli.engine.teacher.task import TeacherTask
    from xentcli.engine.top import TopCalculation


class ChunkConsumer(Protocol):
    """Takes results piece by piece: a writer, or a buffer."""

    def write(self, values: Array) -> None:
        """Take the next numbers, flat."""


class PieceResult(NamedTuple):
    """The result of a piece: its gradient or probabilities, flat, and one loss per row."""

    array: Any
    losses: Any


@dataclass
class Streams(RowSource):
    """Where the arrays come from and go to; `losses` takes one number per row.

    `dtype` is that of `out`, by default that of the logits, or float32 for float16 and bfloat16.
    """

    out: ChunkConsumer | None = None
    dtype: np.dtype[Any] | None = None
    losses: ChunkConsumer | None = None

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """The dtype of what `out` gets."""
        return self.dtype or default_output(as_logits(np.empty(0, self.logits.dtype)).dtype)


def _destination(piece: RowPiece, dtype: np.dtype[Any]) -> Destination:
    """Where the result of a piece is written: over the logits if the dtypes are the same."""
    x = piece.logits
    if x.dtype == dtype and x.flags.writeable:
        return Destination(piece.layout, x, x)
    buffers = piece.buffers or PieceBuffers()
    if buffers.out is None:
        buffers.out = np.empty(x.size, dtype)
    return Destination(piece.layout, x, buffers.out[: x.size].reshape(x.shape))


MOST_ROWS = 1 << 18  # in a piece: of two classes results and targets are larger than the logits


def _entries(layout: Layout, itemsize: int) -> int:
    """How many logits to read at a time: 4 MiB, or fewer of few classes."""
    return max(1, min(rows.SLAB * 4 // max(4, itemsize), MOST_ROWS * layout.classes))


def _flow(
    streams: Streams,
    problem: Problem,
    slabs: int,
    compute: Callable[[RowPiece], PieceResult],
    write: Callable[[PieceResult], None],
) -> None:
    """All pieces, one by one; in threads where there are several."""
    entries = _entries(problem.layout, streams.logits.dtype.itemsize) * slabs
    pieces = walk(problem, streams, entries)
    if prod(problem.layout.shape) > entries:
        Pipeline[RowPiece, PieceResult]().run(pieces, compute, write)
        return
    for piece in pieces:
        write(compute(piece))


def cross_entropy(
    problem: Problem,
    streams: Streams,
    options: LossOptions,
    run: Run,
    task: TeacherTask | None = None,
) -> CrossEntropy:
    """The loss, and its gradient if `streams.out` is given; against a teacher if there is one."""
    calculation, dtype = _calculation(problem, options, run, task), streams.result_dtype

    def compute(piece: RowPiece) -> PieceResult:
        grad = _destination(piece, dtype) if streams.out else None
        losses = calculation.add(piece, grad).losses
        # Of few classes they take as much memory as the logits: kept only for whoever takes them.
        kept = losses if streams.losses else None
        return PieceResult(grad.finish().reshape(-1) if grad else None, kept)

    def write(result: PieceResult) -> None:
        if streams.out and result.array is not None:
            streams.out.write(result.array)
        if streams.losses:
            streams.losses.write(result.losses)

    _flow(streams, problem, calculation.backend.slabs, compute, write)
    return calculation.result()


def _calculation(
    problem: Problem, options: LossOptions, run: Run, task: TeacherTask | None
) -> LossCalculation | TeacherCalculation:
    if task is None:
        return LossCalculation(problem, options, run)
    from xentcli.engine.teacher.calculation import TeacherCalculation

    return TeacherCalculation(problem, task, options, run)


def softmax(
    layout: Layout, streams: Streams, options: LogitsOptions, run: Run, *, log: bool
) -> Probabilities:
    """Probabilities, or their logarithms."""
    calculation, dtype = SoftmaxCalculation(layout, options, run, log=log), streams.result_dtype
    out = streams.out
    assert out is not None

    def compute(piece: RowPiece) -> PieceResult:
        result = _destination(piece, dtype)
        calculation.add(piece, result)
        return PieceResult(result.finish().reshape(-1), None)

    slabs, problem = calculation.backend.slabs, without_targets(layout)
    _flow(streams, problem, slabs, compute, lambda result: out.write(result.array))
    return calculation.result()


def top(calculation: TopCalculation, streams: Streams) -> None:
    """The largest probabilities, which the calculation keeps."""

    def compute(piece: RowPiece) -> PieceResult:
        calculation.add(piece, streams.result_dtype)
        return PieceResult(None, None)

    softmax = calculation.softmax
    problem = without_targets(softmax.layout)
    _flow(streams, problem, softmax.backend.slabs, compute, lambda result: None)
