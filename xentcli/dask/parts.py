"""The graph of logits whose classes are in several chunks: two phases, then the result.

Between workers travel, for each row: 32 bytes of each part in the first phase, 130 in the second,
and about 200 to each part for its gradient; never a logit. A worker keeps the logits of a row's
parts from the first phase to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.layers import ArraySliceDep

from xentcli.arrays.binned_sums import BinnedSums
from xentcli.arrays.dtypes import Array, as_logits, default_output
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.backends.reference import put_rows, scaled
from xentcli.backends.scalars import Scalars
from xentcli.dask.class_chunk import ChunkRows, ClassChunk
from xentcli.dask.class_parts import (
    PartSums,
    RowFacts,
    Tops,
    gradient,
    plain_nan,
    probabilities,
    rows_of,
)
from xentcli.dask.inputs import Axes, LossInputs, Place
from xentcli.dask.plan import ChunkSpec, delayed_plan, row_arrays
from xentcli.dask.rows import How, LossGraph, graph_of, result_meta
from xentcli.engine.notes import NonfiniteRows, tolerance_of
from xentcli.engine.reduction import ReductionPlan
from xentcli.engine.result import LossTotals
from xentcli.records import dataclass

Pairs = tuple[Any, ...]  # of an array and its axes, as `blockwise` takes them


class ChunkSums(NamedTuple):
    """Sums over a part of the classes; of probabilities also their sum and the smallest one."""

    sums: PartSums
    probs: BinnedSums | None
    smallest: Array


class RowResult(NamedTuple):
    """What is known of a chunk of rows once all its classes are summed.

    `facts` are those of the rows that are not ignored.
    """

    facts: RowFacts
    losses: Array
    lse: Array
    totals: LossTotals


@dataclass(frozen=True)
class Phases:
    """Calls of a function for each chunk, or for each chunk of rows."""

    spec: ChunkSpec
    plan: Any
    logits: da.Array
    inputs: Pairs  # for each chunk: logits, range of the classes, targets, `row_arrays`

    @property
    def axes(self) -> Axes:
        """The axes of the logits."""
        return Axes(self.spec.layout)

    @classmethod
    def of(cls, spec: ChunkSpec, plan: Any, x: da.Array, targets: Pairs, per_row: Pairs) -> Phases:
        """The phases of some logits."""
        axis = spec.layout.class_axis
        classes = ArraySliceDep((x.chunks[axis],)), (axis,)
        axes = Axes(spec.layout)
        return cls(spec, plan, x, (x, axes.all, *classes, *targets, *per_row))

    def chunks(self, function: Callable[..., Any], *more: Any, result: Any = None) -> da.Array:
        """Of each chunk: an object, or a result of the chunk's shape with the meta `result`."""
        axis, x = self.spec.layout.class_axis, self.logits
        adjusted = {axis: 1} if result is None else {}
        meta = np.empty((0,) * x.ndim, object) if result is None else result
        return da.blockwise(
            partial(function, self.spec),
            self.axes.all,
            *(*more, *self.inputs),
            plan=self.plan,
            adjust_chunks=adjusted,
            align_arrays=False,
            dtype=meta.dtype,
            meta=meta,
        )

    def rows(self, function: Callable[..., Any], *pairs: Any, **more: Any) -> da.Array:
        """An object of each chunk of rows; an array of all axes comes as the list of its parts."""
        rows = self.axes.rows
        meta = np.empty((0,) * len(rows), object)
        options = {"dtype": object, "meta": meta, "align_arrays": False}
        return da.blockwise(function, rows, *pairs, **options, **more)

    def sums(self) -> Pairs:
        """The sums of all parts, and the `Tops` of the rows."""
        rows, every = self.axes.rows, self.axes.all
        tops = self.rows(_merged_tops, self.chunks(_tops), every)
        return self.chunks(_sums, tops, rows), every, tops, rows


def loss_graph(inputs: LossInputs, how: How) -> LossGraph:
    """The graph of a loss whose chunks hold some of the classes."""
    spec, plan, axes = ChunkSpec.of(inputs), delayed_plan(inputs), inputs.axes
    targets = inputs.targets, (axes.all if inputs.probs else axes.rows)
    per_row = tuple(row_arrays(inputs))
    phases = Phases.of(spec, plan, inputs.logits, targets, per_row)
    small = () if inputs.probs else targets
    finish = partial(_row_result, spec, inputs.targets.dtype)
    facts = phases.rows(finish, *phases.sums(), *small, *per_row, plan=plan), axes.rows
    grad = None
    if how.grad:
        grad = phases.chunks(_gradient, *facts, result=result_meta(inputs.logits))
    return graph_of(inputs, how, plan, facts, grad)


def softmax_graph(spec: ChunkSpec, x: da.Array, per_row: Pairs, *, log: bool) -> Pairs:
    """Results of the shape of the logits, and a `SoftmaxTotals` for each chunk of rows."""
    phases = Phases.of(spec, None, x, (), per_row)
    facts = phases.rows(partial(_facts, spec), *phases.sums(), *per_row), phases.axes.rows
    array = phases.chunks(partial(_softmax, log=log), *facts, result=result_meta(x))
    return array, facts[0]


def _chunk(spec: ChunkSpec, plan: ReductionPlan | None, arrays: Sequence[Array]) -> ClassChunk:
    """A chunk from its logits, range of classes, targets, and `row_arrays`."""
    x, (classes,), *others = arrays
    if plan is None:
        return ClassChunk(x, classes, None, spec, None)
    targets, *per_row = others
    rows = ChunkRows(spec, targets, per_row, plan)
    return ClassChunk(x, classes, rows, spec, targets if plan.problem.probs else None)


@ignoring_float_errors
def _tops(spec: ChunkSpec, *arrays: Array, plan: ReductionPlan | None) -> Tops:
    """The first phase of a chunk."""
    chunk = _chunk(spec, plan, arrays)
    found = Tops.none(int(np.count_nonzero(chunk.present)))
    for block in chunk.blocks():
        for array, values in zip(found, Tops.of(block.part), strict=True):
            array[block.rows] = values
    return found


def _merged_tops(parts: list[Tops]) -> Tops:
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    return merged


@ignoring_float_errors
def _sums(spec: ChunkSpec, tops: Tops, *arrays: Array, plan: ReductionPlan | None) -> ChunkSums:
    """The second phase of a chunk."""
    chunk = _chunk(spec, plan, arrays)
    n = len(tops.top)
    found, smallest = PartSums.none(n), np.full(n, np.inf)
    probs = None if chunk.probs is None else BinnedSums(n)
    for block in chunk.blocks():
        found.put(block.rows, PartSums.of(block.part, rows_of(tops, block.rows)))
        if probs:
            q, sums = chunk.probabilities(block), BinnedSums(len(block.part.x))
            sums.add(q)
            probs.put(block.rows, sums)
            smallest[block.rows] = q.min(axis=1, initial=np.inf)
    return ChunkSums(found, probs, smallest)


def _merged_sums(parts: list[ChunkSums]) -> ChunkSums:
    n = len(parts[0].smallest)
    sums, probs, smallest = PartSums.none(n), BinnedSums(n), np.full(n, np.inf)
    for part in parts:
        sums.merge(part.sums)
        smallest = np.minimum(smallest, part.smallest)
        if part.probs:
            probs.merge(part.probs)
    return ChunkSums(sums, probs if parts[0].probs else None, smallest)


@ignoring_float_errors
def _row_result(
    spec: ChunkSpec,
    dtype: np.dtype[Any],
    parts: list[ChunkSums],
    tops: Tops,
    *arrays: Array,
    plan: ReductionPlan,
) -> RowResult:
    """The losses of a chunk of rows, from the sums of all its parts; `dtype` is the targets'."""
    targets, per_row = (None, arrays) if plan.problem.probs else (arrays[0], arrays[1:])
    rows, sums = ChunkRows(spec, targets, per_row, plan), _merged_sums(parts)
    facts = RowFacts.of(tops, sums.sums, rows.scalars)
    n, totals = len(rows.present), LossTotals()
    losses, lse = np.zeros(n), np.full(n, np.nan)
    losses[rows.present], lse[rows.present] = facts.losses, facts.lse
    rows.plan.weigh(losses, slice(0, n))
    totals.add_losses(losses)
    if sums.probs:
        totals.probabilities.add_rows(sums.probs.high_low()[0], sums.smallest, tolerance_of(dtype))
        totals.probabilities.rows = n
    totals.renumber(lambda row: rows.place.number(row, spec.layout.row_shape))
    rows.plan.unscale(losses)
    shape = rows.problem.layout.row_shape
    return RowResult(facts, losses.reshape(shape), lse.reshape(shape), totals)


@ignoring_float_errors
def _gradient(spec: ChunkSpec, result: RowResult, *arrays: Array, plan: ReductionPlan) -> Array:
    """The gradient of a chunk."""
    chunk = _chunk(spec, plan, arrays)
    assert chunk.rows
    out = np.empty(chunk.layout.shape, default_output(as_logits(arrays[0]).dtype))
    boxed = chunk.layout.boxed(out)
    for block, present, which, part in chunk.blocks():
        g = np.zeros((len(present), chunk.layout.classes))
        scale = np.broadcast_to(chunk.rows.plan.scale(block.rows), len(present))
        found = gradient(part, rows_of(result.facts, which))
        g[present] = plain_nan(scaled(found, part.scalars.temperature, scale[present]))
        put_rows(block.of(boxed), g)
    return out


class SoftmaxFacts(NamedTuple):
    """What is known of a chunk of rows; `nonfinite` are the rows without an answer."""

    facts: RowFacts
    nonfinite: NonfiniteRows


@ignoring_float_errors
def _facts(
    spec: ChunkSpec, parts: list[ChunkSums], tops: Tops, place: tuple[slice, ...]
) -> SoftmaxFacts:
    """The sums of a chunk of rows, for the softmax."""
    facts = RowFacts.of(tops, _merged_sums(parts).sums, Scalars.of(spec.options))
    nonfinite = NonfiniteRows("result")
    nonfinite.add(np.where(np.isnan(facts.lse), np.nan, 0.0))
    nonfinite.renumber(lambda row: Place(place).number(row, spec.layout.row_shape))
    return SoftmaxFacts(facts, nonfinite)


@ignoring_float_errors
def _softmax(spec: ChunkSpec, result: SoftmaxFacts, *arrays: Array, plan: None, log: bool) -> Array:
    """The probabilities of a chunk, or their logarithms."""
    chunk = _chunk(spec, plan, arrays)
    out = np.empty(chunk.layout.shape, default_output(as_logits(arrays[0]).dtype))
    boxed = chunk.layout.boxed(out)
    for block, _, which, part in chunk.blocks():
        put_rows(block.of(boxed), probabilities(part, rows_of(result.facts, which), log=log))
    return out
