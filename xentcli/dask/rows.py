"""The loss of logits whose chunks hold all classes: each chunk is a problem of its own."""

from __future__ import annotations

from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from xentcli.arrays.dtypes import Array, as_logits, default_output
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.dask.graphs import delayed_chunks, each, tree
from xentcli.dask.inputs import LossInputs
from xentcli.dask.plan import ChunkSpec, delayed_plan, row_arrays
from xentcli.dask.worker import run_for
from xentcli.engine.cross_entropy import LossCalculation
from xentcli.engine.output_buffer import Destination
from xentcli.engine.reduction import ReductionPlan
from xentcli.engine.result import CrossEntropy, LossTotals, RowArrays
from xentcli.engine.rows import RowPiece
from xentcli.records import dataclass


class How(NamedTuple):
    """How tasks compute: the backend, one for all chunks, and threads for each task."""

    backend: str
    threads: int | None
    grad: bool


class ChunkResult(NamedTuple):
    """Results of the rows of a chunk: in its shape, one per row, and added up."""

    grad: Array | None
    losses: Array
    lse: Array
    totals: LossTotals


@dataclass(frozen=True)
class LossGraph:
    """The parts of a loss, none of them computed.

    `result` is a delayed `CrossEntropy` without arrays, `chunks` its parts, which are small: they
    tell of the progress. `rows` is how many rows each has.
    """

    result: Any
    losses: da.Array
    lse: da.Array
    grad: da.Array | None
    chunks: list[Any]
    rows: list[int]


def loss_graph(inputs: LossInputs, how: How) -> LossGraph:
    """The graph of a loss whose chunks hold all classes."""
    axes, x, axis = inputs.axes, inputs.logits, inputs.layout.class_axis
    plan = delayed_plan(inputs)
    pieces = da.blockwise(
        partial(_loss_of_chunk, ChunkSpec.of(inputs), how),
        axes.all,
        x,
        axes.all,
        inputs.targets,
        axes.all if inputs.probs else axes.rows,
        *row_arrays(inputs),
        plan=plan,
        adjust_chunks={axis: 1},
        align_arrays=False,  # they are; dask would broadcast chunks (0, 1) of one row
        dtype=object,
        meta=np.empty((0,) * x.ndim, object),
    )
    grad = None
    if how.grad:
        meta = result_meta(x)
        classes, dtype = {axis: inputs.layout.classes}, meta.dtype
        pairs = axes.all, pieces, axes.all
        grad = da.blockwise(_grad, *pairs, adjust_chunks=classes, dtype=dtype, meta=meta)
    return graph_of(inputs, how, plan, (pieces, axes.all), grad)


def result_meta(x: da.Array) -> Array:
    """An empty array with the dtype of the gradient or the probabilities."""
    return np.empty((0,) * x.ndim, default_output(as_logits(np.empty(0, x.dtype)).dtype))


def graph_of(
    inputs: LossInputs,
    how: How,
    plan: Any,
    pieces: tuple[da.Array, tuple[int, ...]],
    grad: da.Array | None,
) -> LossGraph:
    """The graph from the results of all chunks of rows, which have `losses`, `lse` and `totals`."""
    rows, chunks = inputs.axes.rows, each(_totals, pieces[0])
    meta, dtype = np.empty((0,) * len(rows)), np.float64
    losses, lse = (
        da.blockwise(field, rows, *pieces, dtype=dtype, meta=meta) for field in (_losses, _lse)
    )
    result = tree([chunks], _merged_totals, partial(_result, how.backend), plan)
    counts = [prod(shape) for shape in product(*losses.chunks)]
    return LossGraph(result, losses, lse, grad, delayed_chunks(chunks), counts)


@ignoring_float_errors
def _loss_of_chunk(
    spec: ChunkSpec, how: How, x: Array, targets: Array, *arrays: Array, plan: ReductionPlan
) -> ChunkResult:
    """Losses and gradient of a chunk of rows with all classes."""
    x, (_, place) = as_logits(x), spec.split(arrays)
    layout = spec.chunk_layout(place.shape)
    probs = as_logits(targets, "targets") if plan.problem.probs else None
    indices = None if plan.problem.probs else targets
    problem = spec.problem(layout, indices, arrays, plan.problem)
    calculation = LossCalculation(problem, spec.options, run_for(*how[:2]), plan)
    grad = Destination(layout, x) if how.grad else None
    each = calculation.add(RowPiece.of_arrays(problem, x, probs), grad)
    losses, lse = (array.reshape(layout.row_shape) for array in each)
    totals = LossTotals()  # which takes the sum of the losses without the losses themselves
    totals.merge(calculation.totals)
    totals.renumber(lambda row: place.number(row, spec.layout.row_shape))
    return ChunkResult(grad.finish() if grad else None, losses, lse, totals)


def _grad(piece: ChunkResult) -> Any:
    return piece.grad


def _only(piece: Any) -> Any:
    """The result of a chunk, also from the list of the one chunk that has all classes."""
    return piece[0] if isinstance(piece, list) else piece


def _losses(piece: Any) -> Any:
    return _only(piece).losses


def _lse(piece: Any) -> Any:
    return _only(piece).lse


def _totals(piece: Any) -> Any:
    return piece.totals


def _merged_totals(parts: list[LossTotals]) -> LossTotals:
    merged = LossTotals()
    for part in parts:
        merged.merge(part)
    return merged


def _result(backend: str, parts: list[LossTotals], plan: ReductionPlan) -> CrossEntropy:
    return _merged_totals(parts).result(plan, backend, RowArrays())
