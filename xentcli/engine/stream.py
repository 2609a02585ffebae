"""From readers through the kernels to writers, in constant memory.

The logits come in slabs of some rows, which stay in the cache from the read through the kernel
to the write. What is in memory of all rows is one small integer per class index, and the row
weights and upstream gradients where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array, as_logits, default_output
from xentcli.arrays.layout import Layout
from xentcli.engine.cross_entropy import Calculation, Run
from xentcli.engine.output_buffer import Destination
from xentcli.engine.pipeline import ALIVE, Overlap
from xentcli.engine.problem import Problem
from xentcli.engine.result import CrossEntropy
from xentcli.engine.softmax import Probabilities, Softmax
from xentcli.files.reader import Reader
from xentcli.options import LossOptions

SLAB = 1 << 20  # logits: 4 MiB of float32


@dataclass
class Buffers:
    """Memory that is used again for a later piece."""

    logits: Array | None = None
    probs: Array | None = None
    grad: Array | None = None
    out: Array | None = None


class Piece(NamedTuple):
    """Some rows of the input, and the buffers that they may be computed in."""

    layout: Layout
    logits: Array
    probs: Array | None
    buffers: Buffers
    grad: Array | None = None


class Taker(Protocol):
    """What takes results: a writer, or something before it."""

    def write(self, values: Array) -> None:
        """The next numbers, flat."""


class Result(NamedTuple):
    """What a piece gave: numbers like its logits, flat, and one loss per row."""

    array: Any
    losses: Any


@dataclass
class Streams:
    """Where the arrays come from and go to; `losses` takes one number per row.

    `dtype` is the result's, by default that of the logits or float32 for the half types. `grad`
    is somebody else's gradient, which comes along to be judged.
    """

    logits: Reader
    probs: Reader | None = None
    out: Taker | None = None
    dtype: np.dtype[Any] | None = None
    losses: Taker | None = None
    grad: Reader | None = None

    @property
    def readers(self) -> list[Reader]:
        """What comes piece by piece; each has numbers of the logits' shape."""
        return [reader for reader in (self.logits, self.probs, self.grad) if reader]

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """What kind of numbers `out` gets."""
        return self.dtype or default_output(as_logits(np.empty(0, self.logits.dtype)).dtype)

    def pieces(self, layout: Layout, slabs: int = 1) -> Iterator[Piece]:
        """Everything, in slabs of whole outer items, or in pieces of some slabs."""
        outer, classes, inner = layout.box
        step = self._step(classes * inner, slabs)
        buffers = [Buffers() for _ in range(ALIVE + 1)]  # a writer may hold back the last piece
        for number, first in enumerate(range(0, outer if layout.rows else 0, step)):
            slab = Layout((min(step, outer - first), classes, inner), 1)
            mine = buffers[number % len(buffers)]
            mine.logits, logits = _filled(self.logits, mine.logits, slab)
            probs = grad = None
            if self.probs:
                mine.probs, probs = _filled(self.probs, mine.probs, slab)
            if self.grad:
                mine.grad, grad = _filled(self.grad, mine.grad, slab)
            yield Piece(slab, logits, probs, mine, grad)
        for reader in self.readers:
            reader.finish()

    def _step(self, item: int, slabs: int) -> int:
        """How many outer items at a time, each of so many logits."""
        unit = max(reader.unit for reader in self.readers)
        wanted = max(SLAB * slabs, *(reader.best_count for reader in self.readers), unit)
        whole = max(1, unit // max(1, item))
        return max(whole, wanted // max(1, item) // whole * whole)


def _filled(reader: Reader, buffer: Array | None, slab: Layout) -> tuple[Array | None, Array]:
    """The next numbers as a box, and the memory that they may have been read into."""
    count = prod(slab.shape)
    buffer = reader.make_buffer(count) if buffer is None else buffer
    return buffer, reader.read(count, buffer).reshape(slab.shape)


def _destination(piece: Piece, x: Array, dtype: np.dtype[Any]) -> Destination:
    """Where the result of a piece is written: over the logits where they are of the same kind."""
    if x.dtype == dtype and x.flags.writeable:
        return Destination(piece.layout, x, x)
    if piece.buffers.out is None:
        piece.buffers.out = np.empty(x.size, dtype)
    return Destination(piece.layout, x, piece.buffers.out[: x.size].reshape(x.shape))


def _flow(
    streams: Streams,
    layout: Layout,
    slabs: int,
    compute: Callable[[Piece], Result],
    write: Callable[[Result], None],
) -> None:
    """All pieces, one by one; in threads where there are several."""
    pieces = streams.pieces(layout, slabs)
    if prod(layout.shape) > SLAB * slabs:
        Overlap[Piece, Result]().run(pieces, compute, write)
        return
    for piece in pieces:
        write(compute(piece))


def cross_entropy(
    problem: Problem, streams: Streams, options: LossOptions, run: Run
) -> CrossEntropy:
    """The loss, and its gradient where somebody takes it."""
    calculation, dtype = Calculation(problem, options, run), streams.result_dtype

    def compute(piece: Piece) -> Result:
        x = as_logits(piece.logits)
        grad = _destination(piece, x, dtype) if streams.out else None
        losses, _ = calculation.add(piece.layout, x, piece.probs, grad)
        return Result(grad.finish().reshape(-1) if grad else None, losses)

    def write(result: Result) -> None:
        if streams.out and result.array is not None:
            streams.out.write(result.array)
        if streams.losses:
            streams.losses.write(result.losses)

    _flow(streams, problem.layout, calculation.backend.slabs, compute, write)
    return calculation.result()


def softmax(
    layout: Layout, streams: Streams, options: LossOptions, run: Run, *, log: bool
) -> Probabilities:
    """Probabilities, or their logarithms."""
    calculation, dtype = Softmax(layout, options, run, log=log), streams.result_dtype
    out = streams.out
    assert out is not None

    def compute(piece: Piece) -> Result:
        x = as_logits(piece.logits)
        rows = _destination(piece, x, dtype)
        calculation.add(piece.layout, x, rows)
        return Result(rows.finish().reshape(-1), None)

    slabs = calculation.backend.slabs
    _flow(streams, layout, slabs, compute, lambda result: out.write(result.array))
    return calculation.result()
