"""Zarr arrays of which several processes read and write parts: objects that can be pickled."""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array, narrow
from xentcli.files.contiguous import little_endian
from xentcli.files.paths import is_address
from xentcli.files.store import LocalStore, RemoteStore, Store
from xentcli.files.zarr.decoded import DecodedChunks
from xentcli.files.zarr.layout import Box, Shape, size_of
from xentcli.files.zarr.metadata import ZarrArray
from xentcli.files.zarr.nodes import require_same
from xentcli.files.zarr.plain import PlainChunks
from xentcli.records import dataclass


@dataclass(frozen=True)
class ZarrSlices:
    """An array to be sliced with ranges of step 1; `dtype` may say that two bytes are bfloat16."""

    place: str
    name: str
    array: ZarrArray
    dtype: np.dtype[Any]

    @property
    def shape(self) -> Shape:
        """That of the array."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether any part is read without the rest of its chunk."""
        return self.array.plain and not is_address(self.place)

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        box = _box(index, self.shape)
        store = _store(self.place, self.name)
        require_same(store, self.array)  # chunks that this process does not see would be 0
        if self.is_plain:
            assert isinstance(store, LocalStore)
            out = np.empty(size_of(box), self.array.require_dtype(self.name))
            PlainChunks(store, self.array, self.name, merged=False).read_box(box, out)
        else:
            out = DecodedChunks(store, self.array, self.name).decode(box)
        return out.view(self.dtype).reshape([part.stop - part.start for part in box])


@dataclass(frozen=True)
class ZarrTarget:
    """Where the chunks of a new array are written to; only whole ones can be."""

    place: str
    name: str
    shape: Shape
    chunks: Shape
    dtype: np.dtype[Any]

    def __setitem__(self, index: tuple[slice, ...], values: Array) -> None:
        box = _box(index, self.shape)
        chunk = np.zeros(self.chunks, self.dtype)
        places = [part.start // size for part, size in zip(box, self.chunks, strict=True)]
        for part, size, n in zip(box, self.chunks, self.shape, strict=True):
            if part.start % size or part.stop != min(part.start + size, n):
                raise ValueError(f"{box} is no whole chunk of {self.chunks}")
        values = narrow(values, self.dtype)
        chunk[tuple(slice(0, n) for n in values.shape)] = values
        key = "/".join(["c", *map(str, places)])
        _store(self.place, self.name).write(key, little_endian(chunk))


def _store(place: str, name: str) -> Store:
    return RemoteStore(place) if is_address(place) else LocalStore(place, name)


def _box(index: tuple[slice, ...], shape: Shape) -> Box:
    ranges = [range(*part.indices(n)) for part, n in zip(index, shape, strict=True)]
    return tuple(slice(part.start, part.stop) for part in ranges)
