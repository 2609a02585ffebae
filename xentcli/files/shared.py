"""Outputs whose parts are written by several processes, on a disk that all of them see."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array, narrow
from xentcli.files.contiguous import little_endian
from xentcli.files.descriptor import file_errors
from xentcli.files.folder_sink import FolderSink
from xentcli.files.sink import Sink
from xentcli.files.writer import Writer
from xentcli.files.zarr.slices import ZarrTarget
from xentcli.files.zarr.writer import METADATA, metadata
from xentcli.records import dataclass

Shape = tuple[int, ...]


def shared_target(
    sink: Sink, create: Callable[[], Writer], what: tuple[Shape, Shape, np.dtype[Any]]
) -> ZarrTarget | FileTarget:
    """What takes parts of an array of this shape, chunks and dtype by their place."""
    shape, chunks, dtype = what
    if isinstance(sink, FolderSink):
        sink.publish(METADATA, metadata(shape, chunks, dtype))
        return ZarrTarget(sink.store.place, sink.name, shape, chunks, dtype)
    create()  # writes the header
    path, offset = sink.reserve(prod(shape) * dtype.itemsize)
    return FileTarget(path, sink.name, shape, dtype, offset)


@dataclass(frozen=True)
class FileTarget:
    """Numbers in C order in a file, from `offset` on."""

    path: str
    name: str
    shape: Shape
    dtype: np.dtype[Any]
    offset: int

    def __setitem__(self, index: tuple[slice, ...], values: Array) -> None:
        starts = [part.indices(n)[0] for part, n in zip(index, self.shape, strict=True)]
        values = narrow(values, self.dtype)
        axis = len(self.shape)  # of the last axis that is not whole: runs are of its items
        while axis and values.shape[axis - 1] == self.shape[axis - 1]:
            axis -= 1
        outer = max(0, axis - 1)
        steps = [prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        with file_errors(self.name, "writing"), open(self.path, "r+b", buffering=0) as file:  # noqa: PTH123 (a str)
            for place in np.ndindex(*values.shape[:outer]):
                index_of = [*place, *[0] * (len(starts) - outer)]
                first = sum((i + s) * n for i, s, n in zip(index_of, starts, steps, strict=True))
                file.seek(self.offset + first * self.dtype.itemsize)
                left = little_endian(values[place])
                while left:
                    left = left[file.write(left) :]
