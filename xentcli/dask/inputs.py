"""What is checked, and brought into the same chunks, when a graph is built: shapes and dtypes."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import Any, NamedTuple, cast

import dask
import dask.array as da
import numpy as np

from xentcli.arrays.dtypes import as_array, as_logits, reals
from xentcli.arrays.layout import Layout, Shape, find
from xentcli.engine.problem import Extras, require_length, require_per_row, vector
from xentcli.engine.targets import require_row_shaped, require_targets, target_kind_of
from xentcli.errors import DtypeError, OptionError, ShapeError
from xentcli.options import LossOptions, TargetKind
from xentcli.records import dataclass

Chunks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Axes:
    """The axes of the logits as the indices of dask's `blockwise`."""

    layout: Layout

    @property
    def all(self) -> tuple[int, ...]:
        """Those of the logits."""
        return tuple(range(len(self.layout.shape)))

    @property
    def rows(self) -> tuple[int, ...]:
        """Those of what there is one of per row."""
        return tuple(axis for axis in self.all if axis != self.layout.class_axis)


@dataclass(frozen=True)
class LossInputs:
    """Logits, targets and what else there is one of per row, in the same chunks of rows.

    `options` has the class axis and the kind of the targets; `weight` and `upstream` are for all
    rows, or None.
    """

    layout: Layout
    options: LossOptions
    logits: da.Array
    targets: da.Array
    weight: Any
    upstream: Any
    per_row: dict[str, da.Array]

    @property
    def axes(self) -> Axes:
        """The axes of the logits."""
        return Axes(self.layout)

    @property
    def probs(self) -> bool:
        """Whether the targets are probabilities."""
        return self.options.target_kind == "probs"


def inputs(logits: Any, targets: Any, options: LossOptions, extras: Extras) -> LossInputs:
    """Check the arrays against each other; raise `DataError`."""
    x = require_dask(logits, "logits")
    if not isinstance(targets, da.Array):
        targets = as_array(targets, "targets")
    known(targets, "targets")
    require_targets(targets.dtype)
    layout = find(x.shape, targets.shape, options.class_axis)
    kind = target_kind_of(targets.shape, layout, options)
    options = replace(options, class_axis=layout.class_axis, target_kind=cast(TargetKind, kind))
    per_row, upstream = {}, None
    if kind == "index":
        require_row_shaped(targets.shape, layout)
        targets = by_row(targets, "targets", layout, x.chunks)
    else:
        targets = like_logits(targets, "targets", x)
    if extras.sample_weight is not None:
        per_row["sample_weight"] = _numbers(extras.sample_weight, "sample_weight", layout, x)
    if extras.upstream is not None:
        upstream, many = _upstream(extras.upstream, options, layout, x)
        per_row |= many
    weight = None if extras.weight is None else _weight(extras.weight, layout)
    return LossInputs(layout, options, x, targets, weight, upstream, per_row)


def require_dask(values: Any, where: str) -> da.Array:
    """A dask array of a supported dtype, whose chunks have known sizes."""
    if not isinstance(values, da.Array):
        what = f"expected a dask array, not {type(values).__name__}"
        raise DtypeError(where, what, "make one with dask.array.from_array or from_zarr")
    as_logits(np.empty(0, values.dtype), where)
    return known(values, where)


def require_numpy(backend: str) -> None:
    """An error for a backend that does not compute classes in parts."""
    if backend not in ("auto", "numpy"):
        what = f"{backend} needs all classes of a row in one chunk; parts are computed by numpy"
        raise OptionError("backend", what, "use logits.rechunk with one chunk along the classes")


def known(values: Any, where: str) -> Any:
    """The array; an error where the sizes of its chunks are unknown."""
    if any(size != size for size in values.shape):  # NaN stands for an unknown size
        what = f"the sizes of its chunks are unknown: shape {values.shape}"
        raise ShapeError(where, what, "call its compute_chunk_sizes() first")
    return values


def row_chunks(layout: Layout, chunks: Chunks) -> Chunks:
    """The chunks of what there is one of per row."""
    axis = layout.class_axis
    return chunks[:axis] + chunks[axis + 1 :]


def by_row(values: Any, where: str, layout: Layout, chunks: Chunks) -> da.Array:
    """One number per row, in the chunks of the logits' rows.

    A dask array in other chunks is rechunked, which a warning says: it is much smaller than the
    logits.
    """
    wanted = row_chunks(layout, chunks)
    if not isinstance(values, da.Array):
        return da.from_array(np.array(values).reshape(layout.row_shape), chunks=wanted)
    if values.shape != layout.row_shape:
        values = values.reshape(layout.row_shape)
    if values.chunks != wanted:
        why = f"chunks {values.chunks} differ from those of the logits' rows"
        values = rechunked(values, where, wanted, why)
    return values


def rechunked(values: da.Array, where: str, chunks: Chunks, why: str) -> da.Array:
    """The array in other chunks, which a warning says."""
    warnings.warn(f"{where}: {why}; rechunked", da.PerformanceWarning, stacklevel=_outside())
    return values.rechunk(chunks)


def _outside() -> int:
    """The level of the caller outside this package, for warnings."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("xentcli.dask"):
        level, frame = level + 1, frame.f_back
    return level


def like_logits(values: Any, where: str, x: da.Array) -> da.Array:
    """An array of the logits' shape, in their chunks; an error for a dask array in other chunks."""
    if not isinstance(values, da.Array):
        return da.from_array(values, chunks=x.chunks)
    if values.chunks != x.chunks:
        what = f"chunks {values.chunks} differ from those of the logits, {x.chunks}"
        raise ShapeError(where, what, f"use {where}.rechunk(logits.chunks)")
    return values


def _numbers(values: Any, where: str, layout: Layout, x: da.Array) -> da.Array:
    if not isinstance(values, da.Array):
        values = reals(values, where)
    known(values, where)
    require_length(values.shape, where, (layout.rows, layout.row_shape))
    return by_row(values, where, layout, x.chunks)


def _upstream(
    values: Any, options: LossOptions, layout: Layout, x: da.Array
) -> tuple[Any, dict[str, da.Array]]:
    """One number for all rows, or one for each."""
    if not isinstance(values, da.Array):
        values = reals(values, "upstream")
    if known(values, "upstream").size == 1:
        return _delayed(values, "upstream", (1, (1,))), {}
    require_per_row(values.shape, options)
    return None, {"upstream": _numbers(values, "upstream", layout, x)}


def _weight(values: Any, layout: Layout) -> Any:
    if not isinstance(values, da.Array):
        values = reals(values, "weight")
    require_length(known(values, "weight").shape, "weight", (layout.classes, (layout.classes,)))
    return _delayed(values, "weight", (layout.classes, (layout.classes,)))


def _delayed(values: Any, where: str, allowed: tuple[int, Shape]) -> Any:
    """A checked vector that workers get once each."""
    if isinstance(values, np.ndarray):
        return dask.delayed(vector(values, where, allowed), pure=True)
    return dask.delayed(vector, pure=True)(values, where, allowed)


class Place(NamedTuple):
    """Where the rows of a chunk are in the whole: a range of each of their axes."""

    ranges: tuple[slice, ...]

    @property
    def shape(self) -> Shape:
        """The number of rows along each axis."""
        return tuple(part.stop - part.start for part in self.ranges)

    def number(self, row: int, whole: Shape) -> int:
        """The number that a row of the chunk has in the whole."""
        inside = zip(np.unravel_index(row, self.shape), self.ranges, strict=True)
        index = [int(i) + part.start for i, part in inside]
        return int(np.ravel_multi_index(index, whole)) if index else 0
