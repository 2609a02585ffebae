"""Arrays in plain files on a disk that all workers see, read and written in parts.

The file's numbers are in C order from `offset` on, as in .npy and .safetensors. A part of the rows
with all classes is one read or write; a part of the classes is one for each row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import dask.array as da
import numpy as np
from dask.layers import ArraySliceDep

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Shape
from xentcli.dask.graphs import tree
from xentcli.errors import FileError, visible
from xentcli.files.descriptor import file_errors
from xentcli.records import dataclass

CHUNK_BYTES = 1 << 25  # of the logits, where nobody says how large chunks should be


@dataclass(frozen=True)
class FileArray:
    """An array in a file, to be sliced with ranges of step 1.

    Reading raises `FileError` where the file is not the one that was there when this was made;
    assigning to a slice writes into the file, which has to exist.
    """

    path: str
    shape: Shape
    dtype: np.dtype[Any]
    offset: int = 0
    state: tuple[int, int] | None = None  # size and time of the last change, for reading

    @classmethod
    def to_read(cls, path: str, shape: Shape, dtype: np.dtype[Any], offset: int) -> FileArray:
        """A file as it is now."""
        with file_errors(visible(path), "reading"):
            return cls(path, shape, dtype, offset, _state(os.stat(path)))  # noqa: PTH116 (a str)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        found = np.empty([len(part) for part in self._ranges(index)], self.dtype)
        with file_errors(visible(self.path), "reading"), Path(self.path).open("rb", 0) as file:
            for place, part in self._runs(index, found):
                file.seek(place)
                self._fill(file, part)
            if self.state not in (None, _state(os.fstat(file.fileno()))):
                raise FileError(visible(self.path), "was changed while it was read")
        return found

    def __setitem__(self, index: tuple[slice, ...], values: Array) -> None:
        values = np.ascontiguousarray(values, self.dtype)
        with file_errors(visible(self.path), "writing"), Path(self.path).open("r+b", 0) as file:
            for place, part in self._runs(index, values):
                file.seek(place)
                left = part.data.cast("B")
                while left:
                    left = left[file.write(left) :]

    def _fill(self, file: IO[bytes], part: Array) -> None:
        left = part.data.cast("B")
        while left:
            count = file.readinto(left)  # type: ignore[attr-defined] # a raw file has it
            if not count:
                raise FileError(visible(self.path), "ends before the array does")
            left = left[count:]

    def _ranges(self, index: tuple[slice, ...]) -> list[range]:
        return [range(*s.indices(n)) for s, n in zip(index, self.shape, strict=True)]

    def _runs(self, index: tuple[slice, ...], box: Array) -> Iterator[tuple[int, Array]]:
        """Where in the file each contiguous run of a part begins, and that run of the array."""
        ranges = self._ranges(index)
        if not box.size:
            return
        split = len(ranges)  # the axes from here on are whole
        while split and len(ranges[split - 1]) == self.shape[split - 1]:
            split -= 1
        outer = max(split - 1, 0)
        steps = [prod(self.shape[axis + 1 :]) for axis in range(len(ranges))]
        last = ranges[outer].start * steps[outer] if ranges else 0
        for place in np.ndindex(*(len(r) for r in ranges[:outer])):
            parts = zip(ranges, place, steps, strict=False)
            first = sum((part.start + i) * step for part, i, step in parts)
            part = box[(*place, ...)]  # a view, also of an array without axes
            yield self.offset + (first + last) * self.dtype.itemsize, _flat_bytes(part)


def _flat_bytes(part: Array) -> Array:
    return part.reshape(-1).view(np.uint8)


def _state(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def from_file(array: FileArray, chunks: Any) -> da.Array:
    """A file's array as a dask array that workers read."""
    return da.from_array(array, chunks=chunks, asarray=False, inline_array=True, name=False)


def row_chunks(shape: Shape, itemsize: int, nbytes: int = CHUNK_BYTES) -> tuple[Any, ...]:
    """Chunks of whole rows of about so many bytes, along the first axis.

    >>> row_chunks((1000, 50000), 4)
    (167, -1)
    """
    per_item = max(1, prod(shape[1:]) * itemsize)
    return (min(max(1, nbytes // per_item), max(1, shape[0])), *(-1 for _ in shape[1:]))


def store(array: da.Array, target: Any) -> Any:
    """A delayed writing of all chunks into a target that takes slices, such as `FileArray`.

    Its value is how many numbers were written. Chunks must not share a chunk or a shard of the
    target: writers do not wait for each other. A chunk is written again where a worker died.
    """
    axes = tuple(range(array.ndim))
    written = da.blockwise(
        partial(_write, target),
        axes,
        *(array, axes, ArraySliceDep(array.chunks), axes),
        name=f"write-{uuid4().hex}",  # the same array may be written twice
        adjust_chunks=dict.fromkeys(axes, 1),
        align_arrays=False,
        dtype=object,
        meta=np.empty((0,) * array.ndim, object),
    )
    return tree([written], sum)


def _write(target: Any, values: Array, place: tuple[slice, ...]) -> int:
    if values.size:
        target[place] = values
    return values.size
