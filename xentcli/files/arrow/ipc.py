"""Arrow's files (Feather version 2) and streams, read record batch by record batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xentcli.errors import FormatError
from xentcli.files.arrow.columns import Column
from xentcli.files.arrow.table import Table, in_order
from xentcli.files.format import Inspected
from xentcli.files.options import ReadOptions
from xentcli.files.random_access import RandomAccess, library_errors, require
from xentcli.files.reader import Reader
from xentcli.files.source import Source

MAGIC = b"ARROW1"
STREAM = b"\xff\xff\xff\xff"  # before the length of a message


def open_arrow(source: Source, options: ReadOptions) -> Reader:
    """The reader of the array that the options choose."""
    return _table(source).reader(options)


def member_names(source: Source) -> list[str]:
    """The names of the columns."""
    return _table(source).names()


def inspect_arrow(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every array, or about the one that the options choose."""
    return _table(source).inspect(options, stats)


def _table(source: Source) -> Table:
    start = source.peek(len(MAGIC))
    if start.startswith(b"FEA1"):
        what = "a Feather file of version 1"
        raise FormatError(source.name, what, "in Python: pandas.read_feather('FILE').to_parquet(…)")
    if start != MAGIC and not start.startswith(STREAM):
        raise FormatError(source.name, f"not an Arrow file: it starts with {start!r}")
    return Table.of(source, ArrowFile(source, is_stream=start != MAGIC))


class ArrowFile:
    """An Arrow file or stream: its schema and its number of rows are read, and no column."""

    what = "Arrow"

    def __init__(self, source: Source, *, is_stream: bool) -> None:
        self._arrow = require("pyarrow", "arrow", self.what)
        self._file, self._is_stream = RandomAccess(source), is_stream
        with library_errors(source.name, self.what):
            opened = self._opened(None)
            self.schema = opened.schema
            count = getattr(opened, "count_rows", None)  # of files, in newer versions
            self.rows = (
                int(count()) if count else sum(batch.num_rows for batch in self._all(opened))
            )
        self.facts = {"layout": "stream" if is_stream else "file"}

    def _opened(self, columns: list[int] | None) -> Any:
        """The file for reading some columns, or all."""
        ipc, self_file = self._arrow.ipc, self._arrow.PythonFile(self._file, mode="r")
        self._file.seek(0)
        options = ipc.IpcReadOptions(included_fields=columns, use_threads=False)
        return (ipc.open_stream if self._is_stream else ipc.open_file)(self_file, options=options)

    def _all(self, opened: Any) -> Iterator[Any]:
        """All record batches."""
        if self._is_stream:
            yield from opened
        else:
            yield from map(opened.get_batch, range(opened.num_record_batches))

    def batches(self, columns: list[Column], first: int, rows: int) -> Iterator[Any]:
        """Arrow's record batches of some columns from a row on, of at most that many rows."""
        names, numbers = [column.name for column in columns], [column.number for column in columns]
        for batch in self._all(self._opened(sorted(numbers))):
            dropped = min(first, batch.num_rows)
            first -= dropped
            batch.validate(full=True)  # offsets of damaged files point anywhere
            ordered = in_order(batch, names)
            for start in range(dropped, batch.num_rows, rows):
                yield ordered.slice(start, rows)
