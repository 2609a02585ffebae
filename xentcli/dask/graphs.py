"""Pieces of graphs that dask has no function for; each is one layer, for any number of chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.array.optimization import optimize
from dask.base import tokenize
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

FAN_IN = 16  # results that one task merges


def each(function: Callable[[Any], Any], array: da.Array) -> da.Array:
    """An object of each chunk of an array."""
    axes, meta = tuple(range(array.ndim)), np.empty((0,) * array.ndim, object)
    return da.blockwise(function, axes, array, axes, dtype=object, meta=meta)


def delayed_chunks(array: da.Array) -> list[Any]:
    """The chunks as delayed objects, in C order."""
    return [Delayed(key, array.dask, layer=array.name) for key in _keys(array)]


def _keys(array: da.Array) -> list[Any]:
    return list(flatten(array.__dask_keys__()))


def tree(
    arrays: Sequence[da.Array],
    merge: Callable[[list[Any]], Any],
    last: Callable[..., Any] | None = None,
    *more: Any,
) -> Any:
    """All chunks merged in order, `FAN_IN` at a time; delayed.

    The final function is `last`, by default `merge`; it gets the last parts, and `more`.
    """
    name = f"{_name_of(merge)}-{tokenize(arrays, merge, last, more)}"
    graph: dict[Any, Any] = {}
    level, depth = [key for array in arrays for key in _keys(array)], 0
    while len(level) > FAN_IN:
        groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level, depth = [(name, depth, i) for i in range(len(groups))], depth + 1
        graph |= {key: (merge, group) for key, group in zip(level, groups, strict=True)}
    needed = [item for item in more if isinstance(item, Delayed)]
    values = [item.key if isinstance(item, Delayed) else item for item in more]
    graph[name] = (last or merge, level, *values)
    whole = HighLevelGraph.from_collections(name, graph, dependencies=[*arrays, *needed])
    return Delayed(name, whole, layer=name)


def _name_of(function: Any) -> str:
    return str(getattr(function, "func", function).__name__).strip("_")


def fused() -> Any:
    """A context in which delayed objects are optimised as arrays are.

    Otherwise each chunk is read by a task of its own, and waits in memory for its next one.
    """
    return dask.config.set(delayed_optimize=optimize)
