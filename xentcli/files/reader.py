"""Arrays that are read from their beginning to their end, some numbers at a time.

A reader knows the shape and the dtype before it reads any number. It hands out numbers in the C
order of the shape, `unit` or a multiple of it at a time, and at the end makes sure that nothing
is left over and that nobody changed the input meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import BF16, Array
from xentcli.files.npy import header as npy
from xentcli.files.source import Member, Source

CHUNK = 1 << 20  # numbers, where whoever asks does not care
SAFE = 1 << 26  # bytes that are allocated on the word of a header


class Reader(Protocol):
    """What the module docstring says, as a type."""

    name: str
    format: str
    dtype: np.dtype[Any]
    unit: int
    best: int  # numbers at a time, at least, if that is more than usual

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""

    def room(self, count: int) -> Array | None:
        """Memory that so many numbers can be read into, where that saves a copy."""

    def read(self, count: int, room: Array | None = None) -> Array:
        """The next numbers, flat, in `room` if it can be used."""

    def skip(self, count: int) -> None:
        """Go over the next numbers."""

    def finish(self) -> None:
        """Nothing may be left, and nothing may have changed."""

    def chunks(self) -> Iterator[Array]:
        """Everything, in pieces."""

    def whole(self) -> Array:
        """Everything."""


def chunks(reader: Reader) -> Iterator[Array]:
    """Everything that a reader has, in pieces."""
    left, step = prod(reader.shape), max(reader.unit, CHUNK // reader.unit * reader.unit)
    while left:
        count = min(step, left)
        yield reader.read(count)
        left -= count
    reader.finish()


def pick(reader: Reader, start: int, count: int, step: int) -> Array:
    """`count` numbers, `step` apart, from a place on; the others are skipped, not kept."""
    place = 0

    def read(first: int, numbers: int) -> Array:
        nonlocal place
        reader.skip(first - place)
        place = first + numbers
        return reader.read(numbers)

    if step == 1 and reader.unit == 1:
        found = read(start, count).copy()
    else:
        found, here = np.empty(count, reader.dtype), None
        for number, wanted in enumerate(range(start, start + count * step, step)):
            unit, within = divmod(wanted, reader.unit)
            if here is None or unit * reader.unit >= place:
                here = read(unit * reader.unit, reader.unit)
            found[number] = here[within]
    reader.skip(prod(reader.shape) - place)
    reader.finish()
    return found


class Held:
    """An array in memory as a reader."""

    best = 1

    def __init__(self, array: Array, name: str, format: str) -> None:
        self.array, self.name, self.format = array, name, format
        self.shape, self.dtype = array.shape, array.dtype
        self.unit = 1 if array.flags.c_contiguous else prod(array.shape[1:])
        self._flat = array.reshape(-1) if array.flags.c_contiguous else None
        self._done = 0

    def room(self, count: int) -> None:
        """None: the numbers are there."""

    def read(self, count: int, room: Array | None = None) -> Array:
        """The next numbers: a view, or a copy where the memory has another order."""
        start, self._done = self._done, self._done + count
        if self._flat is not None:
            return self._flat[start : self._done]
        return self.array[start // self.unit : self._done // self.unit].reshape(-1)

    def skip(self, count: int) -> None:
        """Go over the next numbers."""
        self._done += count

    def finish(self) -> None:
        """Nothing can be left."""

    def chunks(self) -> Iterator[Array]:
        """Everything, in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The array."""
        return self.array


class NpyReader:
    """An .npy stream in C order."""

    format = "npy"  # or the archive's that it is a member of
    unit = best = 1

    def __init__(self, source: Source, header: npy.Header) -> None:
        npy.check_size(source, header)
        self._source, self.header, self.name = source, header, source.name
        self.shape, self.dtype = header.shape, header.dtype

    def room(self, count: int) -> Array | None:
        """None where only a header says that there are so many."""
        sure = self._source.size is not None or count * self.dtype.itemsize <= SAFE
        return np.empty(count, self.dtype) if sure else None

    def read(self, count: int, room: Array | None = None) -> Array:
        """The next numbers, in `room` where there is one."""
        size = count * self.dtype.itemsize
        if room is None:
            data = self._source.read_buffer(size)
        else:
            data = self._source.fill(room[:count].view(np.uint8))
        if len(data) < size:
            raise npy.ended_early(self._source, self.header)
        return data.view(self.dtype)

    def skip(self, count: int) -> None:
        """Go over the next numbers; in a plain file without reading them."""
        size = count * self.dtype.itemsize
        if self._source.skip(size) < size:
            raise npy.ended_early(self._source, self.header)

    def finish(self) -> None:
        """Nothing may follow."""
        npy.finish(self._source)

    def chunks(self) -> Iterator[Array]:
        """Everything, in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """Everything at once."""
        array = self.read(prod(self.shape)).reshape(self.shape)
        self.finish()
        return array


class FortranReader:
    """An .npy file in Fortran order: the numbers of some rows are gathered from all over it."""

    format = "npy"
    best = 1 << 22  # the file is read once for each column, so rather many rows at a time

    def __init__(self, source: Source, header: npy.Header) -> None:
        npy.check_size(source, header)
        self._source, self.header, self.name = source, header, source.name
        self.shape, self.dtype = header.shape, header.dtype
        self.unit = prod(self.shape[1:])
        self._start, self._row = source.position, 0

    def room(self, count: int) -> None:
        """None: the numbers are gathered elsewhere."""

    def read(self, count: int, room: Array | None = None) -> Array:
        """The next rows; one read of the file for each of their numbers' places."""
        rows, size = count // self.unit, self.dtype.itemsize
        columns = np.empty((self.unit, rows), self.dtype)
        for c, column in enumerate(columns.view(np.uint8)):
            offset = self._start + (c * self.shape[0] + self._row) * size
            if self._source.read_at(column.data, offset) < rows * size:
                raise npy.ended_early(self._source, self.header)
        self._row += rows
        box = columns.reshape(*self.shape[:0:-1], rows)
        return np.ascontiguousarray(box.T).reshape(-1)

    def skip(self, count: int) -> None:
        """Go over the next rows."""
        self._row += count // self.unit

    def finish(self) -> None:
        """The size was compared at the beginning."""
        self._source.verify()

    def chunks(self) -> Iterator[Array]:
        """Everything, in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """Everything, in the file's own order."""
        array = npy.read_data(self._source, self.header)
        self.finish()
        return array


def of_npy(source: Source, bfloat16: bool) -> Reader:
    """The reader for an .npy stream; two nameless bytes are bfloat16 where somebody says so."""
    header = npy.read_header(source)
    format = "npz" if isinstance(source, Member) else "npy"
    if bfloat16 and header.dtype == np.dtype("V2"):
        header = replace(header, dtype=BF16)
    if not (header.fortran_order and sum(n > 1 for n in header.shape) > 1):
        reader = NpyReader(source, header)
        reader.format = format
        return reader
    if source.file is None or header.nbytes <= SAFE:
        return Held(npy.read_data(source, header), source.name, format)
    return FortranReader(source, header)
