"""The denominators, from targets and weights, before any logit is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask.layers import ArraySliceDep

from xentcli.arrays.dtypes import Array, reals
from xentcli.arrays.layout import Layout
from xentcli.dask.graphs import each, tree
from xentcli.dask.inputs import Axes, Chunks, LossInputs, Place, row_chunks
from xentcli.engine.problem import Problem, power_of, vector
from xentcli.engine.reduction import ReductionPlan, RowTotals, plan
from xentcli.engine.targets import TargetCheck, Whole, as_indices
from xentcli.errors import DataError
from xentcli.options import LossOptions
from xentcli.records import dataclass


@dataclass(frozen=True)
class ChunkSpec:
    """What is the same for all chunks; `per_row` are the names of the arrays of one per row."""

    layout: Layout
    options: LossOptions
    per_row: tuple[str, ...]

    @classmethod
    def of(cls, inputs: LossInputs) -> ChunkSpec:
        """The specification of some inputs."""
        return cls(inputs.layout, inputs.options, tuple(inputs.per_row))

    def split(self, arrays: Sequence[Any]) -> tuple[dict[str, Array], Place]:
        """From `row_arrays` those of one per row by their names, and the chunk's place."""
        *given, ranges = arrays
        return dict(zip(self.per_row, given, strict=True)), Place(ranges)

    def chunk_layout(self, row_shape: Sequence[int]) -> Layout:
        """The layout of a chunk with all classes."""
        axis = self.layout.class_axis
        return Layout((*row_shape[:axis], self.layout.classes, *row_shape[axis:]), axis)

    def problem(
        self, layout: Layout, indices: Array | None, arrays: Sequence[Array], whole: Problem
    ) -> Problem:
        """The problem of a chunk; `whole` has what is the same for all rows."""
        given, place = self.split(arrays)
        for name, values in given.items():
            _require_finite(name, values, place, self.layout)
        per_row = layout.rows, layout.row_shape
        flat = {name: vector(values, name, per_row) for name, values in given.items()}
        ignore_index = self.options.ignore_index
        return Problem(
            layout,
            None if indices is None else as_indices(Whole(indices), layout, ignore_index),
            whole.weight,
            flat.get("sample_weight"),
            flat.get("upstream", whole.upstream),
        )


def _require_finite(name: str, values: Array, place: Place, layout: Layout) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        number, value = place.number(first, layout.row_shape), values.reshape(-1)[first].item()
        what = f"entry {number} is {value}; expected finite numbers"
        raise DataError(name, what)


class ChunkFacts(NamedTuple):
    """What a plan needs to know of the rows of a chunk."""

    targets: TargetCheck
    totals: RowTotals


def row_arrays(inputs: LossInputs) -> list[Any]:
    """Pairs of an array and its axes: of one per row, and the chunk's range of each axis."""
    rows = inputs.axes.rows
    pairs: list[Any] = []
    for array in inputs.per_row.values():
        pairs += [array, rows]
    return [*pairs, *place_pair(inputs.layout, inputs.logits.chunks)]


def place_pair(layout: Layout, chunks: Chunks) -> tuple[Any, tuple[int, ...]]:
    """The ranges of a `Place`, and the axes that they are of."""
    return ArraySliceDep(row_chunks(layout, chunks)), Axes(layout).rows


def delayed_plan(inputs: LossInputs) -> Any:
    """The `ReductionPlan` of all rows; computing it raises the errors of targets and weights."""
    spec, power = ChunkSpec.of(inputs), _delayed_power(inputs)
    whole = dask.delayed(_whole_problem, pure=True)(spec, inputs.weight, inputs.upstream)
    rows = inputs.axes.rows
    facts = da.blockwise(
        partial(_facts, spec),
        rows,
        *(() if inputs.probs else (inputs.targets, rows)),
        *row_arrays(inputs),
        whole=whole,
        power=power,
        align_arrays=False,  # they are; dask would broadcast chunks (0, 1) of one row
        dtype=object,
        meta=np.empty((0,) * len(rows), object),
    )
    return tree([facts], _merged_facts, partial(_plan, spec.options), whole, power)


def _delayed_power(inputs: LossInputs) -> Any:
    """The power of two that row weights are divided by: from the largest of all."""
    if "sample_weight" not in inputs.per_row:
        return 0
    return tree([each(_largest, inputs.per_row["sample_weight"])], max, _power)


def _largest(values: Array) -> float:
    return float(np.abs(reals(values, "sample_weight")).max(initial=0.0))


def _power(largest: list[float]) -> int:
    return power_of(np.array(largest))


def _whole_problem(spec: ChunkSpec, weight: Any, upstream: Any) -> Problem:
    """What is the same for all rows, as a problem that has none of them."""
    none = np.empty(0)
    targets = None if spec.options.target_kind == "probs" else np.empty(0, np.int8)
    sample_weight = none if "sample_weight" in spec.per_row else None
    if "upstream" in spec.per_row:
        return Problem(spec.layout, targets, weight, sample_weight, none)
    number = np.ones(()) if upstream is None else upstream.reshape(())
    return Problem(spec.layout, targets, weight, sample_weight, number)


def _facts(spec: ChunkSpec, *arrays: Array, whole: Problem, power: int) -> ChunkFacts:
    """Check targets and weights of a chunk, and add up what the denominators are made of."""
    indices, rest = (None, arrays) if whole.probs else (arrays[0], arrays[1:])
    _, place = spec.split(rest)
    layout = spec.chunk_layout(place.shape)
    check = TargetCheck(layout, spec.options.ignore_index)
    if indices is not None:
        for values in Whole(indices).chunks():
            check.indices(values)
        check.renumber(lambda row: place.number(row, spec.layout.row_shape))
    if not check.valid:
        return ChunkFacts(check, RowTotals())
    problem = spec.problem(layout, indices, rest, whole)
    return ChunkFacts(check, RowTotals.of(problem, spec.options, power))


def _merged_facts(parts: list[ChunkFacts]) -> ChunkFacts:
    check, totals = parts[0]
    for part in parts[1:]:
        check.merge(part.targets)
        totals = totals.merged(part.totals)
    return ChunkFacts(check, totals)


def _plan(
    options: LossOptions, parts: list[ChunkFacts], whole: Problem, power: int
) -> ReductionPlan:
    facts = _merged_facts(parts)
    facts.targets.raise_if_invalid()
    return plan(whole, options, facts.totals, power)
