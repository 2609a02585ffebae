"""Dask arrays of files that all workers see, and where they write their results to."""

from __future__ import annotations

import os
from math import prod
from typing import Any, Protocol

import dask.array as da
import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Shape
from xentcli.dask.files import CHUNK_BYTES, FileArray
from xentcli.errors import OptionError, Setting, StrictError
from xentcli.files.contiguous import ContiguousReader
from xentcli.files.interpreted import underlying
from xentcli.files.reader import Reader

AGAIN = 8  # times at most that a chunk of the file is decoded


class Slices(Protocol):
    """An array to be sliced, without being read before."""

    @property
    def shape(self) -> Shape:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""

    def __getitem__(self, index: tuple[slice, ...]) -> Array: ...


def slices_of(reader: Reader) -> Slices | None:
    """The array of an open file, to be read in parts elsewhere; None where that cannot be."""
    if hasattr(reader, "slices"):
        found: Slices = reader.slices()
        return found
    place = reader.place() if isinstance(reader, ContiguousReader) else None
    if place is None:
        return None
    path, offset = place
    return FileArray.to_read(os.path.realpath(path), reader.shape, reader.dtype, offset)


def logits_array(reader: Reader, class_axis: int) -> da.Array:
    """The logits of an open file: in chunks of whole rows where their chunks allow it."""
    slices = slices_of(reader)
    if slices is None:
        if underlying(reader) is not reader:
            what = "workers take no logarithms of probabilities, and no bits of bfloat16"
            raise OptionError(reader.name, what, "write the numbers that are meant, once")
        what = f"workers cannot read parts of this {reader.format} file"
        hint = "write it as .zarr, or as .npy in C order or .safetensors, not compressed"
        raise OptionError(reader.name, what, hint)
    return lazy(slices, logits_chunks(slices, class_axis))


def like_logits(reader: Reader, logits: da.Array) -> da.Array:
    """Other logits of an open file, in the chunks of the first where they have their shape."""
    slices = slices_of(reader)
    if slices is not None and tuple(slices.shape) == logits.shape:
        return lazy(slices, logits.chunks)
    return logits_array(reader, len(reader.shape) - 1)


def logits_chunks(slices: Slices, class_axis: int) -> Shape:
    """Chunks of about `CHUNK_BYTES`, of whole chunks of the file, with all classes if possible.

    Rows of all classes are put together from chunks of some, which may then be decoded for up to
    `AGAIN` chunks of rows: that costs less than classes in parts, and has the bits of one machine.

    >>> from types import SimpleNamespace
    >>> file = SimpleNamespace(shape=(4096, 8192), dtype=np.dtype("f4"))
    >>> logits_chunks(file, 1)
    (1024, 8192)
    >>> file.array = SimpleNamespace(stored=(300, 512))
    >>> logits_chunks(file, 1)
    (900, 8192)
    """
    shape, size = slices.shape, slices.dtype.itemsize
    array = getattr(slices, "array", None)
    stored = shape if array is None else array.stored
    chunks = [max(1, min(n, whole)) for n, whole in zip(stored, shape, strict=True)]
    rows = prod(chunks) // chunks[class_axis] * max(1, shape[class_axis]) * size
    if array is None or getattr(slices, "is_plain", False) or rows <= AGAIN * CHUNK_BYTES:
        chunks[class_axis] = max(1, shape[class_axis])
        _split(chunks, class_axis, -(-prod(chunks) * size // CHUNK_BYTES))
    for axis in reversed(range(len(shape))):
        more = CHUNK_BYTES // max(1, prod(chunks) * size)
        chunks[axis] = min(chunks[axis] * max(1, more), max(1, shape[axis]))
    return tuple(chunks)


def _split(chunks: list[int], class_axis: int, parts: int) -> None:
    """Cut chunks into so many, along the axes of the rows, the longest first."""
    others = [axis for axis in range(len(chunks)) if axis != class_axis]
    for axis in sorted(others, key=lambda axis: -chunks[axis]):
        here = min(parts, chunks[axis])
        chunks[axis] = -(-chunks[axis] // here)
        parts = -(-parts // here)


def small_array(reader: Reader, chunks: Any) -> Any:
    """Targets and the like: lazy in these chunks where they fit its shape, else whole."""
    slices = slices_of(reader)
    if slices is None or tuple(slices.shape) != tuple(sum(sizes) for sizes in chunks):
        return reader.whole()
    return lazy(slices, chunks)


def lazy(slices: Slices, chunks: Any) -> da.Array:
    """A dask array of which workers read the chunks."""
    meta = np.empty((0,) * len(slices.shape), slices.dtype)
    how = {"asarray": False, "inline_array": True, "name": False, "meta": meta}
    return da.from_array(slices, chunks=chunks, **how)


def finite(array: da.Array) -> da.Array:
    """The same array, whose computation fails where a number is not finite: strict mode."""
    meta = np.empty((0,) * array.ndim, array.dtype)
    checked: da.Array = array.map_blocks(_require_finite, dtype=array.dtype, meta=meta)
    return checked


def _require_finite(values: Array, block_info: Any = None) -> Array:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        starts = (first for first, _ in block_info[0]["array-location"])
        inside = np.unravel_index(bad[0], values.shape)
        place = ", ".join(str(int(i) + first) for i, first in zip(inside, starts, strict=True))
        hint = "without ", Setting("strict"), " it is written anyway"
        raise StrictError("logits", f"the result is not finite at [{place}]", hint)
    return values
