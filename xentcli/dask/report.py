"""The statistics of `report` over dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from xentcli import backends
from xentcli.arrays.dtypes import Array, as_array, as_logits
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.arrays.layout import Layout, find
from xentcli.backends import Scalars
from xentcli.dask.graphs import delayed_chunks, each, tree
from xentcli.dask.inputs import (
    Axes,
    LossInputs,
    by_row,
    inputs,
    like_logits,
    rechunked,
    require_dask,
    row_chunks,
)
from xentcli.dask.memory import of_client, require_fit
from xentcli.dask.plan import ChunkSpec, delayed_plan, row_arrays
from xentcli.dask.rows import How
from xentcli.dask.worker import run_for
from xentcli.engine.notes import ProbabilityCheck
from xentcli.engine.problem import Extras, without_targets
from xentcli.engine.reduction import ReductionPlan
from xentcli.engine.rows import RowPiece
from xentcli.records import dataclass
from xentcli.report.compute import Groups, require_base
from xentcli.report.divergence import with_base
from xentcli.report.finish import finish
from xentcli.report.options import ReportOptions, ScoreOptions
from xentcli.report.result import Report
from xentcli.report.scores import Scores, scores_of
from xentcli.report.totals import RowsInfo, Totals


@dataclass(frozen=True)
class ReportInputs:
    """Logits and what a report compares them with; each may be None but the first two."""

    logits: Any
    targets: Any
    base: Any = None
    sample_weight: Any = None
    group: Any = None


@dataclass(frozen=True)
class ReportGraph:
    """A delayed `Report`; `chunks` and `rows` as in `LossGraph`."""

    result: Any
    chunks: list[Any]
    rows: list[int]


@dataclass(frozen=True)
class ReportSpec:
    """What is the same for all chunks."""

    chunk: ChunkSpec
    info: RowsInfo
    options: ReportOptions
    how: How


def report_graph(
    arrays: ReportInputs, scoring: ScoreOptions, options: ReportOptions, how: How
) -> ReportGraph:
    """The graph of a report; arrays and options are checked now."""
    x = require_dask(arrays.logits, "logits")
    targets = arrays.targets
    if not isinstance(targets, da.Array):
        targets = as_array(targets, "targets")
    layout = find(x.shape, targets.shape, scoring.class_axis)
    x, targets = whole_rows(x, "logits", layout), whole_rows(targets, "targets", layout)
    extras = Extras(sample_weight=arrays.sample_weight)
    checked = inputs(x, targets, scoring.loss(), extras)
    base = None if arrays.base is None else _base(arrays.base, x, layout)
    groups = Groups.of(arrays.group, without_targets(layout))
    info = RowsInfo(
        rows=layout.rows,
        classes=layout.classes,
        groups=groups.count if groups else 0,
        probabilities=checked.probs,
        weighted=arrays.sample_weight is not None,
        base=base is not None,
    )
    name = "numpy" if checked.probs else how.backend  # no kernel takes probabilities
    backend = backends.for_statistics(name, (layout.rows, layout.classes), how.threads)
    spec = ReportSpec(ChunkSpec.of(checked), info, options, How(backend.name, how.threads, False))
    require_fit(x, layout, None if base is None else base.dtype, of_client())
    index = None if groups is None else by_row(groups.index, "group", layout, x.chunks)
    return _graph(checked, spec, base, index)


def whole_rows(array: Any, where: str, layout: Layout) -> Any:
    """A dask array of the logits' shape in chunks of consecutive rows with all classes."""
    if not isinstance(array, da.Array) or array.shape != layout.shape:
        return array
    first = Axes(layout).rows[:1]
    chunks = tuple(
        sizes if axis in first else (sum(sizes),) for axis, sizes in enumerate(array.chunks)
    )
    if chunks == array.chunks:
        return array
    return rechunked(array, where, chunks, "a report needs chunks of consecutive, whole rows")


def _base(values: Any, x: da.Array, layout: Layout) -> da.Array:
    """The logits of the base in the chunks of the model's."""
    base = require_dask(values, "base")
    require_base(base.shape, layout)
    if base.shape != layout.shape:
        why = f"shape {base.shape} differs from that of the logits, {layout.shape}"
        return rechunked(base.reshape(layout.shape), "base", x.chunks, why)
    return like_logits(whole_rows(base, "base", layout), "base", x)


def _graph(
    checked: LossInputs, spec: ReportSpec, base: da.Array | None, group: da.Array | None
) -> ReportGraph:
    plan, axes = delayed_plan(checked), checked.axes
    optional = [(base, axes.all), (group, axes.rows)]
    scores = da.blockwise(
        partial(_scores, spec),
        axes.all,
        *(checked.logits, axes.all),
        *(checked.targets, axes.all if checked.probs else axes.rows),
        *(item for array, index in optional if array is not None for item in (array, index)),
        *row_arrays(checked),
        plan=plan,
        adjust_chunks={checked.layout.class_axis: 1},
        align_arrays=False,
        dtype=object,
        meta=np.empty((0,) * checked.logits.ndim, object),
    )
    result = tree([scores], partial(_added, spec), partial(_report, spec), plan)
    done = delayed_chunks(each(_rows_done, scores))
    counts = row_chunks(checked.layout, checked.logits.chunks)
    return ReportGraph(result, done, [prod(shape) for shape in product(*counts)])


class ChunkScores(NamedTuple):
    """The quantities of a chunk's rows, and what notes are made of."""

    scores: Scores
    probabilities: ProbabilityCheck


class ReportTotals(NamedTuple):
    """The same of several chunks, added up."""

    totals: Totals
    probabilities: ProbabilityCheck


@ignoring_float_errors
def _scores(spec: ReportSpec, x: Array, targets: Array, *arrays: Array, plan: Any) -> ChunkScores:
    """The scores of a chunk; the arrays are base, group, those of one per row."""
    rest, chunk = list(arrays), spec.chunk
    base = as_logits(rest.pop(0), "base") if spec.info.base else None
    group = rest.pop(0) if spec.info.groups else None
    _, place = chunk.split(rest)
    layout = chunk.chunk_layout(place.shape)
    probs = as_logits(targets, "targets") if spec.info.probabilities else None
    problem = chunk.problem(layout, None if probs is not None else targets, rest, plan.problem)
    start = place.number(0, chunk.layout.row_shape) if layout.rows else 0
    boxed_probs, second = (
        None if array is None else layout.boxed(array) for array in (probs, base)
    )
    piece = RowPiece(start, problem, layout.boxed(as_logits(x)), boxed_probs, second)
    run, check = run_for(spec.how.backend, spec.how.threads), ProbabilityCheck()
    shape = spec.info.rows, spec.info.classes
    backend = backends.for_statistics(run.backend, shape, run.threads, run.notify)
    scalars = Scalars.of(chunk.options)
    scores = scores_of(piece, backend, scalars, None)
    if piece.second is not None:
        scores = with_base(scores, piece, backend, scalars)
    if piece.probs is not None:
        check.add(piece.probs)
        check.renumber(lambda row: start + row)
    if group is not None:
        scores = replace(scores, group=group.reshape(-1)[scores.rows - start])
    return ChunkScores(scores, check)


@ignoring_float_errors
def _added(spec: ReportSpec, parts: Sequence[ChunkScores | ReportTotals]) -> ReportTotals:
    """Consecutive chunks, or what was added up of them."""
    totals, check = Totals(spec.info, spec.options), ProbabilityCheck()
    for part in parts:
        if isinstance(part, ChunkScores):
            totals.add(part.scores)
        else:
            totals.merge(part.totals)
        check.merge(part.probabilities)
    totals.flush()
    check.numbered = True
    return ReportTotals(totals, check)


@ignoring_float_errors
def _report(
    spec: ReportSpec, parts: Sequence[ChunkScores | ReportTotals], plan: ReductionPlan
) -> Report:
    """The report from the last parts: where numbers that are kept are in temporary files, they
    are not sent to another worker."""
    totals, check = _added(spec, parts)
    try:
        notes = tuple(check.notes())
        return finish(totals, plan.totals.ignored, spec.how.backend, notes)
    finally:
        totals.kept.close()


def _rows_done(part: ChunkScores) -> int:
    return len(part.scores)
