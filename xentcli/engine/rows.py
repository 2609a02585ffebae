"""The walk over rows: pieces of logits with their targets, read once, in order.

The loss, the softmax and the check use `walk`, and so can anything else that goes over all rows.
A consumer takes the pieces one after the other. It asks a `LossCalculation` for their losses,
log-sum-exps and gradients, or computes what it wants from `float_rows`, and adds it up in
accumulators: `RunningSum`, `LossTotals`, counts. These have `add` and `merge`, and give the same
bits however the rows are cut: parts of the rows may be walked elsewhere, and merged in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, as_array, as_logits, widen
from xentcli.arrays.layout import Block, Layout
from xentcli.engine.pipeline import ALIVE
from xentcli.engine.problem import Problem
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.files.reader import Reader

SLAB = 1 << 20  # logits in a piece: 4 MiB of float32


@dataclass
class PieceBuffers:
    """Memory of a piece, which is used again for a later one; `out` is for results."""

    logits: Array | None = None
    probs: Array | None = None
    second: Array | None = None
    out: Array | None = None
    beside: list[Array | None] = field(default_factory=list)


class RowPiece(NamedTuple):
    """Consecutive rows of a problem.

    `logits`, `probs` and `second` are boxes (outer, C, inner), the logits in one of the float
    dtypes, the others as they came; those `beside` them have other numbers per row. `problem` is
    that of these rows alone, and `start` the number of the first one in the whole. The arrays of a
    walk are overwritten some pieces later: copy what is kept.
    """

    start: int
    problem: Problem
    logits: Array
    probs: Array | None = None
    second: Array | None = None
    buffers: PieceBuffers | None = None  # of a walk
    beside: tuple[Array, ...] = ()

    @classmethod
    def of_arrays(
        cls,
        problem: Problem,
        logits: Array,
        probs: Array | None = None,
        beside: Sequence[Array] = (),
    ) -> RowPiece:
        """All rows of a problem, from arrays in memory."""
        layout, boxed = problem.layout, problem.layout.boxed
        outer, _, inner = layout.box
        probs, count = None if probs is None else boxed(probs), max(1, layout.rows)
        others = [a.reshape(outer, a.size // count, inner) for a in beside] if beside else ()
        return cls(0, problem, boxed(logits), probs, beside=tuple(others))

    @property
    def layout(self) -> Layout:
        """The shape of these rows."""
        return self.problem.layout

    @property
    def rows(self) -> slice:
        """Their numbers in the whole."""
        return slice(self.start, self.start + self.layout.rows)

    @property
    def targets(self) -> Array | None:
        """Class indices, int64 (n,), −1 where a row is ignored; None for probabilities."""
        indices = self.problem.targets
        return None if indices is None else np.asarray(indices, np.int64)

    def split(self, entries: int) -> Iterator[RowPiece]:
        """The same rows in smaller pieces, of about `entries` logits."""
        for block in self.layout.blocks(entries):
            yield self.part(block)

    def part(self, block: Block) -> RowPiece:
        """The rows of a block."""
        outer, inner = (part.stop - part.start for part in (block.outer, block.inner))
        layout = Layout((outer, self.layout.classes, inner), 1)
        return RowPiece(
            self.start + block.start,
            self.problem.part(block.rows, layout),
            block.of(self.logits),
            None if self.probs is None else block.of(self.probs),
            None if self.second is None else block.of(self.second),
            beside=tuple(map(block.of, self.beside)),
        )


def float_rows(box: Array, where: str = "logits") -> Array:
    """A box (outer, C, inner) of any dtype as float64 (outer·inner, C); `where` names it."""
    rows = as_logits(box, where).transpose(0, 2, 1)
    return widen(rows.reshape(-1, box.shape[1]), NAMES["f64"])


@dataclass
class RowSource:
    """The arrays that are walked together, in the shape of the logits.

    `second` is any other array: a gradient to be judged, logits to compare with. Those `beside`
    have the same rows, of other lengths: what a teacher stores.
    """

    logits: Reader
    probs: Reader | None = None
    second: Reader | None = None
    beside: tuple[Reader, ...] = ()

    @classmethod
    def of_arrays(cls, logits: Any, probs: Any = None, second: Any = None) -> RowSource:
        """A source of arrays in memory."""
        return cls(
            in_memory(logits, "logits"),
            None if probs is None else in_memory(probs, "targets"),
            None if second is None else in_memory(second, "second"),
        )

    @property
    def readers(self) -> list[Reader]:
        """Those that are given."""
        return [reader for reader in (self.logits, self.probs, self.second) if reader]

    def step(self, item: int, entries: int, beside: list[int]) -> int:
        """How many outer items to read at a time, each of `item` logits.

        `beside` is how many numbers an item is in the arrays of that name.
        """
        unit = max(reader.unit for reader in self.readers)
        wanted = max(entries, *(reader.best_count for reader in self.readers), unit)
        others = zip(self.beside, beside, strict=True)
        whole = max(1, unit // max(1, item), *(r.unit // max(1, n) for r, n in others))
        return max(whole, wanted // max(1, item) // whole * whole)


def in_memory(array: Any, name: str) -> Reader:
    """An array in memory, to be read as a file is; `name` is what errors call it."""
    from xentcli.files.reader import InMemoryReader  # arrays in one piece do not need it

    return InMemoryReader(as_array(array, name), name, "npy")


def walk(
    problem: Problem, source: RowSource, entries: int | None = None, *, start: int = 0
) -> Iterator[RowPiece]:
    """Read a source from its beginning to its end, in pieces of whole rows.

        all rows = piece 0, piece 1, …;   a result of all rows = merge of the pieces' results

    Shapes: the pieces' arrays are boxes (outer, C, inner), of about `entries` logits (1 Mi by
    default), and never less than one index of the axes before the class axis. Rows are numbered
    in the C order of the logits' shape without the class axis, from `start` on: the problem and
    the source may be those of some rows of a larger whole.

    Units: those of the arrays. `float_rows` makes float64 rows of them.

    Errors: `FormatError` and `FileError` of the readers; at the end also where something is left
    over, or an input has changed meanwhile.

    >>> from xentcli.engine.problem import Extras, build
    >>> from xentcli.engine.targets import Whole
    >>> from xentcli.options import LossOptions
    >>> x, y = np.array([[1.0, 2.0], [4.0, 3.0], [0.0, 5.0]]), np.array([1, 1, 1])
    >>> problem = build(x.shape, Whole(y), LossOptions(), Extras())
    >>> for piece in walk(problem, RowSource.of_arrays(x), entries=4):
    ...     print(piece.start, (float_rows(piece.logits).argmax(axis=1) == piece.targets).tolist())
    0 [True, False]
    2 [True]

    Source: reduction by pieces as in Bird, Introduction to the theory of lists (1987).
    """
    outer, classes, inner = problem.layout.box
    items = [prod(reader.shape) // max(1, outer) for reader in source.beside]
    step = source.step(classes * inner, SLAB if entries is None else entries, items)
    buffers = [PieceBuffers() for _ in range(ALIVE + 1)]  # a writer may hold back the last piece
    for number, first in enumerate(range(0, outer if problem.layout.rows else 0, step)):
        layout = Layout((min(step, outer - first), classes, inner), 1)
        part = problem.part(slice(first * inner, first * inner + layout.rows), layout)
        piece = _read(source, part, buffers[number % len(buffers)], items)
        yield piece._replace(start=start + first * inner)
    for reader in (*source.readers, *source.beside):
        reader.finish()


def _read(source: RowSource, problem: Problem, buffers: PieceBuffers, items: list[int]) -> RowPiece:
    """The next rows of a source; `problem` is that of these rows alone."""
    layout, probs, second = problem.layout, None, None
    buffers.logits, logits = _filled(source.logits, buffers.logits, layout)
    if source.probs:
        buffers.probs, probs = _filled(source.probs, buffers.probs, layout)
    if source.second:
        buffers.second, second = _filled(source.second, buffers.second, layout)
    beside = tuple(_filled_beside(source.beside, buffers.beside, layout, items))
    return RowPiece(0, problem, as_logits(logits), probs, second, buffers, beside)


def _filled_beside(
    readers: tuple[Reader, ...], buffers: list[Array | None], layout: Layout, items: list[int]
) -> Iterator[Array]:
    """The next rows of arrays with other numbers per row, as boxes."""
    outer, _, inner = layout.box
    buffers += [None] * (len(readers) - len(buffers))
    for number, (reader, item) in enumerate(zip(readers, items, strict=True)):
        count, buffer = outer * item, buffers[number]
        buffers[number] = buffer = reader.make_buffer(count) if buffer is None else buffer
        yield reader.read(count, buffer).reshape(outer, item // max(1, inner), inner)


def _filled(reader: Reader, buffer: Array | None, layout: Layout) -> tuple[Array | None, Array]:
    """The next numbers as a box, and the buffer that they may have been read into."""
    count = prod(layout.shape)
    buffer = reader.make_buffer(count) if buffer is None else buffer
    return buffer, reader.read(count, buffer).reshape(layout.shape)
