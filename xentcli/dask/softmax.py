"""Probabilities, or their logarithms, of dask arrays."""

from __future__ import annotations

from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from xentcli import backends
from xentcli.arrays.dtypes import Array, as_logits
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.arrays.layout import find
from xentcli.dask import parts
from xentcli.dask.graphs import delayed_chunks, each, tree
from xentcli.dask.inputs import Axes, Place, require_dask, require_numpy, row_chunks
from xentcli.dask.memory import of_client, require_fit
from xentcli.dask.plan import ChunkSpec, place_pair
from xentcli.dask.rows import How, result_meta
from xentcli.dask.worker import run_for
from xentcli.engine.logits_check import LogitsCheck
from xentcli.engine.notes import NonfiniteRows
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import without_targets
from xentcli.engine.rows import RowPiece
from xentcli.engine.softmax import Probabilities, SoftmaxCalculation
from xentcli.options import LogitsOptions, LossOptions
from xentcli.records import dataclass


class SoftmaxTotals(NamedTuple):
    """What notes are made of; `entries` is how many are not finite."""

    nonfinite: NonfiniteRows
    logits: LogitsCheck
    entries: int


@dataclass(frozen=True)
class SoftmaxGraph:
    """The parts of a softmax, none of them computed.

    `result` is a delayed `Probabilities` without the array; `chunks` and `rows` as in `LossGraph`.
    """

    result: Any
    array: da.Array
    chunks: list[Any]
    rows: list[int]


def softmax_graph(logits: Any, options: LogitsOptions, how: How, *, log: bool) -> SoftmaxGraph:
    """The graph of a softmax; array and options are checked now."""
    x = require_dask(logits, "logits")
    layout = find(x.shape, None, options.class_axis)
    name, threads = backends.require_known(how.backend, how.threads)
    require_fit(x, layout, result_meta(x).dtype, of_client())
    loss = LossOptions(
        temperature=options.temperature, softcap=options.softcap, class_axis=layout.class_axis
    )
    spec = ChunkSpec(layout, loss, ())
    place = place_pair(layout, x.chunks)
    if x.numblocks[layout.class_axis] > 1:
        require_numpy(name)
        name = "numpy"
        array, facts = parts.softmax_graph(spec, x, place, log=log)
        found = [each(_of_facts, facts), each(_of_array, array)]
    else:
        name = backends.choose(name, x.size)
        pieces = _row_pieces(spec, x, How(name, threads, False), place, log=log)
        array, found = _arrays(pieces, x, layout.class_axis), [each(_totals, pieces)]
    result = tree(found, _merged, partial(_result, name))
    rows = [prod(shape) for shape in product(*row_chunks(layout, x.chunks))]
    return SoftmaxGraph(result, array, delayed_chunks(found[0]), rows)


def _row_pieces(
    spec: ChunkSpec, x: da.Array, how: How, place: tuple[Any, ...], *, log: bool
) -> da.Array:
    """A `SoftmaxPiece` of each chunk, where chunks hold all classes."""
    axes = Axes(spec.layout).all
    return da.blockwise(
        partial(_softmax_of_chunk, spec, how, log),
        axes,
        x,
        axes,
        *place,
        adjust_chunks={spec.layout.class_axis: 1},
        align_arrays=False,
        dtype=object,
        meta=np.empty((0,) * x.ndim, object),
    )


class SoftmaxPiece(NamedTuple):
    """The result of a chunk, and what notes are made of."""

    array: Array
    totals: SoftmaxTotals


@ignoring_float_errors
def _softmax_of_chunk(
    spec: ChunkSpec, how: How, log: bool, x: Array, ranges: tuple[slice, ...]
) -> SoftmaxPiece:
    x = as_logits(x)
    place, loss = Place(ranges), spec.options
    layout = spec.chunk_layout(place.shape)
    options = LogitsOptions(loss.temperature, loss.softcap, layout.class_axis)
    calculation = SoftmaxCalculation(layout, options, run_for(how.backend, how.threads), log=log)
    result = Destination(layout, x)
    calculation.add(RowPiece.of_arrays(without_targets(layout), x), result)
    nonfinite = calculation.nonfinite
    nonfinite.renumber(lambda row: place.number(row, spec.layout.row_shape))
    totals = SoftmaxTotals(nonfinite, calculation.logits, calculation.entries)
    return SoftmaxPiece(result.finish(), totals)


def _arrays(pieces: da.Array, x: da.Array, axis: int) -> da.Array:
    axes, meta = tuple(range(x.ndim)), result_meta(x)
    options = {"adjust_chunks": {axis: x.shape[axis]}, "dtype": meta.dtype, "meta": meta}
    return da.blockwise(_array, axes, pieces, axes, **options)


def _array(piece: SoftmaxPiece) -> Array:
    return piece.array


def _totals(piece: SoftmaxPiece) -> SoftmaxTotals:
    return piece.totals


def _of_array(values: Array) -> SoftmaxTotals:
    """The entries of a part of the classes; parts do not show whether logits are probabilities."""
    logits = LogitsCheck()
    logits.all_alike = False
    entries = int(np.count_nonzero(~np.isfinite(values)))
    return SoftmaxTotals(NonfiniteRows("result"), logits, entries)


def _of_facts(facts: parts.SoftmaxFacts) -> SoftmaxTotals:
    return SoftmaxTotals(facts.nonfinite, LogitsCheck(), 0)


def _merged(found: list[SoftmaxTotals]) -> SoftmaxTotals:
    nonfinite, logits, entries = NonfiniteRows("result"), LogitsCheck(), 0
    for part in found:
        nonfinite.merge(part.nonfinite)
        logits.merge(part.logits)
        entries += part.entries
    return SoftmaxTotals(nonfinite, logits, entries)


def _result(backend: str, found: list[SoftmaxTotals]) -> Probabilities:
    nonfinite, logits, entries = _merged(found)
    return Probabilities(None, backend, entries, (*nonfinite.notes(), *logits.notes()))
