"""A chunk of logits with some of the classes of some of the rows, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array, as_logits
from xentcli.arrays.layout import Block, Layout
from xentcli.backends.reference import by_row
from xentcli.backends.scalars import Scalars
from xentcli.dask.class_parts import Part
from xentcli.dask.plan import ChunkSpec
from xentcli.engine.reduction import ReductionPlan

BLOCK = 1 << 15  # logits at a time: their temporaries stay in the cache


class PartBlock(NamedTuple):
    """Some rows of a chunk: which of them count, and where these are among those that count."""

    block: Block
    present: Array
    rows: slice
    part: Part


class ChunkRows:
    """The rows of a chunk: their targets and weights, and the plan of the reduction."""

    def __init__(
        self, spec: ChunkSpec, targets: Array | None, per_row: Sequence[Any], plan: ReductionPlan
    ) -> None:
        """`per_row` are the arrays of `row_arrays`."""
        _, self.place = spec.split(per_row)
        layout = spec.chunk_layout(self.place.shape)
        indices = None if plan.problem.probs else targets
        self.problem = spec.problem(layout, indices, per_row, plan.problem)
        self.plan = plan.of(self.problem)
        self.scalars = Scalars.of(spec.options, plan.terms.z_loss)
        self.present = np.full(layout.rows, True)
        if self.problem.targets is not None:
            self.present = self.problem.targets >= 0


class ClassChunk:
    """Logits of some classes; `rows` is None where only the softmax is wanted."""

    def __init__(
        self, x: Array, classes: slice, rows: ChunkRows | None, spec: ChunkSpec, probs: Array | None
    ) -> None:
        """`classes` is the range of the chunk's classes, `probs` its part of probabilities."""
        self.layout = Layout(x.shape, spec.layout.class_axis)
        self.x, self.rows = self.layout.boxed(as_logits(x)), rows
        self.all_classes = spec.layout.classes
        self.probs = None if probs is None else self.layout.boxed(as_logits(probs, "targets"))
        self.start = classes.start
        self.weight, self.scalars = None, Scalars.of(spec.options)
        self.present = np.full(self.layout.rows, True)
        if rows:
            self.weight = rows.plan.kernel_weight[classes]
            self.scalars, self.present = rows.scalars, rows.present

    def blocks(self) -> Iterator[PartBlock]:
        """The rows that count, some at a time."""
        done = 0
        for block in self.layout.blocks(BLOCK):
            which = self.present[block.rows]
            x = by_row(block.of(self.x))[which]
            part = Part(x, self._masses(block, which), self.start, self.scalars)
            yield PartBlock(block, which, slice(done, done + len(x)), part)
            done += len(x)

    def probabilities(self, block: PartBlock) -> Array:
        """The targets of a block, float64 (n, c)."""
        assert self.probs is not None
        return by_row(block.block.of(self.probs))[block.present]

    def _masses(self, block: Block, which: Array) -> Array:
        """a_c = w_c·((1 − ε)·q_c + ε/C), where C is the number of all classes."""
        count = int(np.count_nonzero(which)), self.layout.classes
        if self.rows is None or self.weight is None:
            return np.zeros(count)
        weight, smoothing = self.weight, self.scalars.label_smoothing
        even = smoothing / self.all_classes
        if self.probs is not None:
            q = by_row(block.of(self.probs))[which]
            return np.asarray(weight * ((1 - smoothing) * q + even))
        targets = self.rows.problem.targets
        assert targets is not None
        place = targets[block.rows][which].astype(np.int64) - self.start
        a = np.tile(weight * even, (count[0], 1))
        mine = np.flatnonzero((place >= 0) & (place < count[1]))
        a[mine, place[mine]] = weight[place[mine]] * ((1 - smoothing) + even)
        return a
