"""The graph of logits whose classes are in several chunks: two phases, then the result.

Between workers travel, for each row: 32 bytes of each part in the first phase, 130 in the second,
and about 200 to each part for its gradient; never a logit. A worker keeps the logits of a row's
parts from the first phase to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from xentcli.arrays.binned_sums import BinnedSums
from xentcli.arrays.dtypes import Array, as_logits, default_output
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.backends.reference import put_rows, scaled
from xentcli.dask.class_chunk import ChunkRows, ClassChunk
from xentcli.dask.class_parts import PartSums, RowFacts, Tops, gradient, plain_nan, rows_of
from xentcli.dask.inputs import LossInputs, place_of
from xentcli.dask.plan import ChunkSpec, delayed_plan, row_arrays
from xentcli.dask.rows import How, LossGraph, graph_of
from xentcli.engine.notes import tolerance_of
from xentcli.engine.reduction import ReductionPlan
from xentcli.engine.result import LossTotals


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


def loss_graph(inputs: LossInputs, how: How) -> LossGraph:
    """The graph of a loss whose chunks hold some of the classes."""
    spec, plan, axes = ChunkSpec.of(inputs), delayed_plan(inputs), inputs.axes
    axis, rows, x = inputs.layout.class_axis, axes.rows, inputs.logits
    targets = inputs.targets, (axes.all if inputs.probs else rows)
    per_row = row_arrays(inputs)
    classes = da.arange(inputs.layout.classes, chunks=(x.chunks[axis],)), (axis,)
    common = x, axes.all, *classes, *targets, *per_row
    objects = {"dtype": object, "align_arrays": False}

    def part(function: Any, *more: Any) -> da.Array:
        meta = np.empty((0,) * x.ndim, object)
        whole = partial(function, spec)
        kwargs = {"plan": plan, "adjust_chunks": {axis: 1}, "meta": meta, **objects}
        return da.blockwise(whole, axes.all, *more, *common, **kwargs)

    no_rows = np.empty((0,) * len(rows), object)
    tops = part(_tops)
    tops = da.blockwise(_merged_tops, rows, tops, axes.all, meta=no_rows, **objects)
    sums = part(_sums, tops, rows)
    small = () if inputs.probs else targets
    facts = da.blockwise(
        partial(_row_result, spec, inputs.targets.dtype),
        rows,
        *(sums, axes.all, tops, rows, *small, *per_row),
        plan=plan,
        meta=no_rows,
        **objects,
    )
    grad = None
    if how.grad:
        dtype = default_output(as_logits(np.empty(0, x.dtype)).dtype)
        meta = np.empty((0,) * x.ndim, dtype)
        arrays = facts, rows, *common
        grad = da.blockwise(
            partial(_gradient, spec), axes.all, *arrays, plan=plan, meta=meta, dtype=dtype, align_arrays=False
        )
    return graph_of(inputs, how, plan, (facts, rows), grad)


def _chunk(
    spec: ChunkSpec, plan: ReductionPlan, arrays: Sequence[Array]
) -> tuple[ClassChunk, ChunkRows]:
    """A chunk from its logits, numbers of classes, targets, and the arrays of one per row."""
    x, classes, targets, *per_row = arrays
    rows = ChunkRows(spec, targets, per_row, plan)
    probs = targets if plan.problem.probs else None
    return ClassChunk(x, classes, rows, spec, probs), rows


@ignoring_float_errors
def _tops(spec: ChunkSpec, *arrays: Array, plan: ReductionPlan) -> Tops:
    """The first phase of a chunk."""
    chunk, rows = _chunk(spec, plan, arrays)
    found = Tops.none(np.count_nonzero(rows.present))
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
def _sums(spec: ChunkSpec, tops: Tops, *arrays: Array, plan: ReductionPlan) -> ChunkSums:
    """The second phase of a chunk."""
    chunk, _ = _chunk(spec, plan, arrays)
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
    losses = rows.plan.weigh(losses, slice(0, n))
    totals.add_losses(losses)
    if sums.probs:
        totals.probabilities.add_rows(sums.probs.high_low()[0], sums.smallest, tolerance_of(dtype))
        totals.probabilities.rows = n
    totals.renumber(lambda row: place_of(row, rows.numbers, spec.layout))
    losses, shape = rows.plan.unscaled(losses), rows.problem.layout.row_shape
    return RowResult(facts, losses.reshape(shape), lse.reshape(shape), totals)


@ignoring_float_errors
def _gradient(
    spec: ChunkSpec, result: RowResult, *arrays: Array, plan: ReductionPlan
) -> Array:
    """The gradient of a chunk."""
    chunk, rows = _chunk(spec, plan, arrays)
    out = np.empty(chunk.layout.shape, default_output(as_logits(arrays[0]).dtype))
    boxed = chunk.layout.boxed(out)
    for block, present, which, part in chunk.blocks():
        g = np.zeros((len(present), chunk.layout.classes))
        scale = np.broadcast_to(rows.plan.scale(block.rows), len(present))
        found = gradient(part, rows_of(result.facts, which))
        g[present] = plain_nan(scaled(found, part.scalars.temperature, scale[present]))
        put_rows(block.of(boxed), g)
    return out
