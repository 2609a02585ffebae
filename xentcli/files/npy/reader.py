"""Reading and inspecting .npy files: in C order from anywhere, in Fortran order from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array, name_of
from xentcli.errors import Words
from xentcli.files.contiguous import SAFE, ContiguousReader, check_size, ended_early
from xentcli.files.format import Facts
from xentcli.files.member import Member
from xentcli.files.npy.header import Header, read_data, read_header
from xentcli.files.options import ReadOptions
from xentcli.files.reader import InMemoryReader, Reader, chunks
from xentcli.files.source import Source


def open_npy(source: Source, options: ReadOptions) -> Reader:
    """The reader of an .npy stream."""
    return _reader(source, read_header(source))


def _reader(source: Source, header: Header) -> Reader:
    if not (header.fortran_order and sum(n > 1 for n in header.shape) > 1):
        return ContiguousReader(source, header, "npy")
    if source.file is None or header.nbytes <= SAFE:
        return InMemoryReader(read_data(source, header), source.name, "npy")
    return FortranReader(source, header)


class FortranReader:
    """An .npy file in Fortran order: the numbers of a row are gathered from all over the file."""

    format = "npy"
    remarks: tuple[Words, ...] = ()
    best_count = 1 << 22  # the file is read once per column, so rather many rows at a time

    def __init__(self, source: Source, header: Header) -> None:
        check_size(source, header)
        self._source, self.header, self.name = source, header, source.name
        self.shape, self.dtype = header.shape, header.dtype
        self.unit = prod(self.shape[1:])
        self._start, self._row = source.position, 0

    def make_buffer(self, count: int) -> None:
        """None: rows are gathered in an array of their own."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next rows; one read of the file per column."""
        rows, size = count // self.unit, self.dtype.itemsize
        columns = np.empty((self.unit, rows), self.dtype)
        for c, column in enumerate(columns.view(np.uint8)):
            offset = self._start + (c * self.shape[0] + self._row) * size
            if self._source.read_at(column.data, offset) < rows * size:
                raise ended_early(self._source, self.header)
        self._row += rows
        box = columns.reshape(*self.shape[:0:-1], rows)
        return np.ascontiguousarray(box.T).reshape(-1)

    def skip(self, count: int) -> None:
        """Skip the next rows."""
        self._row += count // self.unit

    def finish(self) -> None:
        """Check that the file has not changed; its size was checked at the beginning."""
        self._source.verify()

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array, in the order of the file."""
        array = read_data(self._source, self.header)
        self.finish()
        return array


def inspect_npy(source: Source, stats: bool) -> Facts:
    """What the header says; a plain file is not read further without `stats`."""
    from xentcli.files.statistics import statistics  # reading does not need it

    header = read_header(source)
    check_size(source, header)
    facts: Facts = {
        "name": source.name,
        "format": "npy",
        "version": f"{header.version[0]}.{header.version[1]}",
        "shape": header.shape,
        "dtype": name_of(header.dtype),
        "order": "Fortran" if header.fortran_order else "C",
        "byte_order": _byte_order(header.dtype),
        "nbytes": header.nbytes,
    }
    piped = source.file is None and not isinstance(source, Member)
    if stats or piped:  # a pipe is read to its end, or its writer would be killed
        reader = ContiguousReader(source, header, "npy")  # the order does not matter
        found = statistics(reader.chunks())
        facts |= found if stats and header.dtype.kind != "V" else {}
    return facts


def _byte_order(dtype: np.dtype[Any]) -> str:
    if dtype.itemsize == 1 or dtype.kind == "V":
        return "none"
    order = dtype.byteorder if dtype.byteorder in "<>" else {"little": "<"}.get(sys.byteorder, ">")
    return "little" if order == "<" else "big"
