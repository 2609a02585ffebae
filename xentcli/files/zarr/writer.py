"""Writing zarr arrays of version 3: whole chunks of numbers, the metadata last.

Chunks are runs of the numbers in C order, and all of them are written, those of zeros too. Nothing
is compressed: gradients and probabilities hardly get smaller.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array, name_of
from xentcli.errors import OptionError, visible
from xentcli.files.contiguous import little_endian
from xentcli.files.folder_sink import FolderSink
from xentcli.files.sink import Writable

CHUNK = 1 << 24  # bytes of a chunk, about
METADATA = "zarr.json"


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of at most about 16 MiB, of whole rows unless these are longer.

    >>> chunk_shape((1000, 1 << 20), 4), chunk_shape((3, 2), 4), chunk_shape((), 8)
    ((4, 1048576), (3, 2), ())
    """
    wanted = max(1, CHUNK // itemsize)
    for axis in range(len(shape)):
        inner = prod(shape[axis + 1 :])
        if inner <= wanted:
            size = max(1, min(shape[axis], wanted // max(1, inner)))
            return *[1] * axis, size, *(max(1, n) for n in shape[axis + 1 :])
    return ()


def metadata(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The metadata of an array of plain chunks."""
    endian = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": name_of(dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if dtype.kind == "b" else 0 if dtype.kind in "iu" else 0.0,
        "codecs": [{"name": "bytes", **endian}],
        "attributes": {},
        "storage_transformers": [],
    }
    return json.dumps(document, indent=2).encode()


def create_zarr(
    stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], path: str
) -> ZarrWriter:
    """The writer of an array; an error for an output that is no folder."""
    if not isinstance(stream, FolderSink):
        where = "format" if path in ("", "-") else visible(path)
        raise OptionError(where, "a zarr array is a folder of chunks, and no stream of bytes")
    return ZarrWriter(stream, shape, dtype)


class ZarrWriter:
    """An array of whole chunks."""

    def __init__(self, sink: FolderSink, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._sink, self._shape = sink, shape
        self._dtype = dtype if dtype == BF16 else dtype.newbyteorder("=")
        self._chunks = chunk_shape(shape, dtype.itemsize)
        self._buffer = np.zeros(prod(self._chunks), self._dtype)
        self._filled = self._number = 0
        self._total = prod(-(-n // size) for n, size in zip(shape, self._chunks, strict=True))

    def write(self, values: Array) -> None:
        """The next numbers."""
        while len(values):
            count = min(self._size - self._filled, len(values))
            self._buffer[self._filled : self._filled + count] = values[:count]
            self._filled, values = self._filled + count, values[count:]
            if self._filled == self._size:
                self._write_chunk()

    def finish(self) -> None:
        """Write the metadata: from now on the array is there."""
        assert self._number == self._total, "not all numbers were written"
        self._sink.publish(METADATA, metadata(self._shape, self._chunks, self._dtype))

    @property
    def _place(self) -> tuple[int, ...]:
        """Where the next chunk is in the grid of chunks."""
        grid = [-(-n // size) for n, size in zip(self._shape, self._chunks, strict=True)]
        return tuple(int(i) for i in np.unravel_index(self._number, grid)) if grid else ()

    @property
    def _size(self) -> int:
        """How many numbers of the array are in the next chunk: at the end of an axis it is cut."""
        parts = zip(self._shape, self._chunks, self._place, strict=True)
        return prod(min(size, n - i * size) for n, size, i in parts)

    def _write_chunk(self) -> None:
        self._buffer[self._filled :] = np.zeros((), self._dtype)
        key = "/".join(["c", *map(str, self._place)])
        self._sink.store.write(key, little_endian(self._buffer))
        self._number, self._filled = self._number + 1, 0
