"""Numbers that lie in a row in a stream, in C order, with a known number of bytes after them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array, name_of
from xentcli.errors import FormatError, Words
from xentcli.files.member import Member
from xentcli.files.reader import chunks
from xentcli.files.source import Source
from xentcli.records import dataclass

SAFE = 1 << 26  # bytes that are allocated because a header says so
MAX_BYTES = 2**63 - 1  # of an array, with 1 for its axes of length 0; NumPy's own limit


@dataclass(frozen=True, kw_only=True)
class Extent:
    """An array as a header describes it, and where it lies, in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int = 0  # of the numbers
    after: int = 0  # bytes that follow the numbers

    @property
    def nbytes(self) -> int:
        """The size of the numbers, in Python's unbounded integers."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_too_large(self) -> bool:
        """Whether NumPy could not have such an array."""
        return prod(n for n in self.shape if n) * self.dtype.itemsize > MAX_BYTES


class ContiguousReader:
    """The numbers of an extent; the next byte of the source is their first."""

    unit = best_count = 1
    remarks: tuple[Words, ...] = ()

    def __init__(self, source: Source, extent: Extent, format: str) -> None:
        check_size(source, extent)
        self._source, self.extent = source, extent
        self.name, self.format = source.name, format
        self.shape, self.dtype = extent.shape, extent.dtype

    def place(self) -> tuple[str, int] | None:
        """The path of a plain file and where the next number lies in it; None for other sources."""
        path = self._source.path
        return None if path is None else (path, self._source.position)

    def make_buffer(self, count: int) -> Array | None:
        """A buffer; None if only the header claims its size."""
        sure = self._source.size is not None or count * self.dtype.itemsize <= SAFE
        return np.empty(count, self.dtype) if sure else None

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers, into `buffer` if there is one."""
        size = count * self.dtype.itemsize
        if buffer is None:
            data = self._source.read_buffer(size)
        else:
            data = self._source.fill(buffer[:count].view(np.uint8))
        if len(data) < size:
            raise ended_early(self._source, self.extent)
        return data.view(self.dtype)

    def skip(self, count: int) -> None:
        """Skip the next numbers; a plain file is not read for that."""
        size = count * self.dtype.itemsize
        if self._source.skip(size) < size:
            raise ended_early(self._source, self.extent)

    def finish(self) -> None:
        """Check that the rest is as long as the header says."""
        finish(self._source, self.extent)

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array at once."""
        array = self.read(prod(self.shape)).reshape(self.shape)
        self.finish()
        return array


def check_size(source: Source, extent: Extent) -> None:
    """An error if the size of the file is known and does not match the header."""
    size = source.declared if isinstance(source, Member) else source.size
    if size is not None and size - extent.start != extent.nbytes + extent.after:
        raise _wrong_size(source, extent, size - extent.start - extent.after)


def finish(source: Source, extent: Extent) -> None:
    """Check that the rest is as long as the header says and that the file has not changed."""
    if source.skip(extent.after) < extent.after:
        raise ended_early(source, extent)
    source.verify()
    if source.read(1):
        raise FormatError(source.name, "more bytes follow the array")


def ended_early(source: Source, extent: Extent) -> Exception:
    """The error for a file that is shorter than its header says."""
    source.verify()
    return _wrong_size(source, extent, source.position - extent.start)


def _wrong_size(source: Source, extent: Extent, have: int) -> FormatError:
    need = extent.nbytes
    what = "surplus" if have > need else "missing"
    return FormatError(
        source.name,
        f"shape {extent.shape} of {name_of(extent.dtype)} needs {need} bytes of data, the file has "
        f"{have}: {abs(have - need)} {what}",
    )


def little_endian(array: Array) -> memoryview:
    """The bytes of an array in C order, least significant first."""
    dtype = None if array.dtype == BF16 else array.dtype.newbyteorder("<")
    data: memoryview = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data
    return data
