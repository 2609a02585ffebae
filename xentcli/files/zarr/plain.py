"""Chunks that are files of numbers and nothing else: read in parts, straight to where they go."""

from __future__ import annotations

import os
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError
from xentcli.files.descriptor import Descriptor, file_errors
from xentcli.files.store import LocalStore
from xentcli.files.zarr.layout import Box, Shape, boxes, pieces, size_of
from xentcli.files.zarr.metadata import ZarrArray


class PlainChunks:
    """The numbers of an array in a folder of this machine, whose chunks are plain."""

    def __init__(
        self, store: LocalStore, array: ZarrArray, name: str, *, merged: bool = True
    ) -> None:
        self._store, self._array, self._name = store, array, name
        self._dtype = array.require_dtype(name)
        self._shape, self._chunks = array.shape, array.chunks
        if merged:
            self._shape, self._chunks = _merged(array.shape, array.chunks)
        self._size = prod(self._chunks) * self._dtype.itemsize

    def read(self, start: int, out: Array) -> None:
        """Read `out.size` numbers from a position on: whole rows of the last axis."""
        done = 0
        for box in boxes(self._shape, start, start + out.size) if out.size else ():
            count = size_of(box)
            self.read_box(box, out[done : done + count])
            done += count

    def read_box(self, box: Box, out: Array) -> None:
        """Read a box into as many numbers."""
        target = out.reshape([part.stop - part.start for part in box])
        for place, part in pieces(box, self._chunks):
            inside = tuple(
                slice(p.start - n * size, p.stop - n * size)
                for p, n, size in zip(part, place, self._chunks, strict=True)
            )
            there: list[Any] = [
                slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True)
            ]
            self._read_part(place, inside, target[(*there, ...)])  # a view, of no axes too

    def _read_part(self, place: Shape, inside: Box, target: Array) -> None:
        """Read a box of one chunk: runs of its rows, which lie together in the file."""
        key = self._array.file_key((*place, *[0] * (len(self._array.shape) - len(place))))
        path = self._store.path(key)
        with file_errors(f"{self._name}: chunk {key}", "reading"):
            try:
                file = Descriptor(path, "rb")
            except FileNotFoundError:
                target[...] = self._array.fill.astype(self._dtype)[0]
                return
            with file:
                self._check_size(os.fstat(file.fileno()).st_size, key)
                self._read_runs(file, inside, target)

    def _read_runs(self, file: Descriptor, inside: Box, target: Array) -> None:
        """Read rows of a chunk: `target` itself where it takes whole rows, else by a copy."""
        if not inside:
            _fill(file, target.reshape(1), 0)
            return
        rows, columns = (inside[-2], inside[-1]) if len(inside) > 1 else (inside[0], slice(0, 1))
        width = self._chunks[-1] if len(inside) > 1 else 1
        strides = [prod(self._chunks[axis + 1 :]) for axis in range(len(inside) - 2)]
        starts = [part.start for part in inside]
        for index in np.ndindex(*target.shape[: max(0, len(inside) - 2)]):
            lead = sum((i + first) * n for i, first, n in zip(index, starts, strides, strict=False))
            offset = (lead + rows.start * width) * self._dtype.itemsize
            run = target[index]
            if run.flags.c_contiguous and columns == slice(0, width):
                _fill(file, run.reshape(-1), offset)
            elif len(inside) == 1:
                _fill(file, run, offset)
            else:
                whole = np.empty((rows.stop - rows.start, width), self._dtype)
                _fill(file, whole.reshape(-1), offset)
                run[...] = whole[:, columns]

    def _check_size(self, size: int, key: str) -> None:
        if size != self._size:
            what = (
                f"has {size} bytes; chunks {self._array.chunks} of {self._array.dtype_name} need "
            )
            raise FormatError(f"{self._name}: chunk {key}", f"{what}{self._size}")


def _merged(shape: Shape, chunks: Shape) -> tuple[Shape, Shape]:
    """The same layout with fewer axes: last ones that each chunk holds whole join the one before.

    >>> _merged((10, 4, 5), (3, 4, 5)), _merged((10, 4), (3, 2))
    (((200,), (60,)), ((10, 4), (3, 2)))
    """
    while len(shape) > 1 and shape[-1] == chunks[-1]:
        shape = (*shape[:-2], shape[-2] * shape[-1])
        chunks = (*chunks[:-2], chunks[-2] * chunks[-1])
    return shape, chunks


def _fill(file: Descriptor, target: Array, offset: int) -> None:
    """Read numbers from an offset; the file was seen to be long enough."""
    view = target.view(np.uint8).data
    file.seek(offset)
    while view:
        count = file.readinto(view)
        if not count:
            raise OSError("the file became shorter")
        view = view[count:]
