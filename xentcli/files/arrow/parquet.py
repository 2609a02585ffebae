"""Parquet files, read row group by row group through a small buffer per column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xentcli.errors import FormatError
from xentcli.files.arrow.columns import Column
from xentcli.files.arrow.table import Table, in_order
from xentcli.files.contiguous import SAFE
from xentcli.files.format import Inspected
from xentcli.files.options import ReadOptions
from xentcli.files.random_access import RandomAccess, library_errors, require
from xentcli.files.reader import Reader
from xentcli.files.source import Source

MAGIC = b"PAR1"
BUFFERS = 1 << 25  # bytes for the buffers of all columns
BUFFER = 1 << 20  # bytes for one, at most


def open_parquet(source: Source, options: ReadOptions) -> Reader:
    """The reader of the array that the options choose."""
    return _table(source).reader(options)


def member_names(source: Source) -> list[str]:
    """The names of the columns."""
    return _table(source).names()


def inspect_parquet(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every array, or about the one that the options choose."""
    return _table(source).inspect(options, stats)


def _table(source: Source) -> Table:
    start = source.peek(len(MAGIC))
    if start == b"PARE":
        raise FormatError(source.name, "this Parquet file is encrypted", "decrypt it first")
    if start != MAGIC:
        raise FormatError(source.name, f"not a Parquet file: it starts with {start!r}")
    return Table.of(source, ParquetFile(source))


class ParquetFile:
    """A Parquet file: its footer is read, and no column."""

    what = "Parquet"

    def __init__(self, source: Source) -> None:
        self._parquet = require("pyarrow.parquet", "arrow", self.what)
        self._arrow = require("pyarrow", "arrow", self.what)
        self._file, self._where = RandomAccess(source), source.name
        # With a buffer a page gets the memory that its header claims, up to 2 GB, else what is
        # there; without, the whole chunk of a column is in memory.
        self._is_large = (source.size or 0) > SAFE
        with library_errors(source.name, self.what):
            self._metadata = self._opened(0).metadata
            self.schema = self._metadata.schema.to_arrow_schema()
            self.rows = int(self._metadata.num_rows)
            self.facts = self._about()

    def _opened(self, columns: int) -> Any:
        """The file for reading that many columns at once."""
        size = min(BUFFER, BUFFERS // max(1, columns)) if self._is_large else 0
        file = self._arrow.PythonFile(self._file, mode="r")
        return self._parquet.ParquetFile(file, buffer_size=size, pre_buffer=False)

    def _about(self) -> dict[str, str]:
        """Nothing about single columns: in a damaged file pyarrow's `column` ends the process."""
        found = self._metadata
        return {"created_by": str(found.created_by), "row_groups": str(found.num_row_groups)}

    def batches(self, columns: list[Column], first: int, rows: int) -> Iterator[Any]:
        """Arrow's record batches of some columns from a row on, of at most that many rows."""
        groups, skipped = self._groups_from(first)
        names = [column.name for column in columns]
        found = self._opened(len(columns)).iter_batches(
            rows, row_groups=groups, columns=names, use_threads=False
        )
        for batch in found:
            if batch.num_columns != len(columns):
                what = "has columns with dots in their names, and a struct whose fields they name"
                raise FormatError(self._where, what)
            dropped = min(skipped, batch.num_rows)
            skipped -= dropped
            if dropped < batch.num_rows:
                yield in_order(batch, names).slice(dropped)

    def _groups_from(self, first: int) -> tuple[list[int], int]:
        """The row groups from that with a row on, and how many rows of it come before."""
        counts = [
            self._metadata.row_group(n).num_rows for n in range(self._metadata.num_row_groups)
        ]
        start = 0
        while start < len(counts) and counts[start] <= first:
            first -= counts[start]
            start += 1
        return list(range(start, len(counts))), first
