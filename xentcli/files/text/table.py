"""Tables of numbers in text as arrays with two axes: lines, and cells in each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, name_of, narrow, widen
from xentcli.errors import FormatError, Words, plural
from xentcli.files.class_names import ClassNames
from xentcli.files.options import ReadOptions
from xentcli.files.reader import InMemoryReader, Reader, chunks
from xentcli.files.source import Source
from xentcli.files.text.columns import TextColumns, as_class
from xentcli.files.text.look import BYTES, look
from xentcli.files.text.reader import TextReader, look_at

AHEAD = 1 << 20  # numbers; a table of no more is read into memory at once


def open_text(source: Source, options: ReadOptions, delimiter: str) -> Reader:
    """The reader of a table; `delimiter` is that of the format, which the options may replace."""
    dtype = NAMES.get(options.dtype, NAMES["f64"])
    look_at(source, options.style)
    start = source.peek(BYTES)
    start = start if len(start) == BYTES else start + b"\n"
    found = look(start, options.style, delimiter, ClassNames(options.class_names))
    table = TextReader(source, found.delimiter, found.header, options)
    lines = max(2, AHEAD // table.width + 1)  # one line alone, however long, is in memory anyway
    first = _narrowed(table.read(lines), dtype, source.name)
    remarks = (*found.remarks, *table.remarks, *_remarks(first, table, options))
    if len(first) < lines:
        source.verify()
        whole = InMemoryReader(first, source.name, "csv", table.column_names)
        whole.remarks = remarks
        return whole
    reader = TableReader(table, source, first)
    reader.remarks = remarks
    if source.file is not None:
        reader.count()
    return reader


def _narrowed(table: Array, dtype: np.dtype[Any], where: str) -> Array:
    """Numbers rounded to a dtype; an error for those that it cannot hold."""
    result = narrow(table, dtype)
    if dtype.itemsize < table.itemsize:
        known = widen(result, table.dtype)
        lost = int(np.count_nonzero(np.isinf(known) & np.isfinite(table)))
        if lost:
            what = f"{plural(lost, 'number')} out of the range of {name_of(dtype)}"
            raise FormatError(where, what)
    return result


def _remarks(first: Array, table: TextReader, options: ReadOptions) -> Iterator[Words]:
    """What looks like names of columns or rows, and was read as numbers."""
    rows, count = first.shape
    style, columns = options.style, table.columns
    guessed = style.header == "auto" and not table.has_header
    if guessed and rows > 1 and count > 2 and _counts(first[0]):
        what = "line 1 counts up, like names of columns, and was read as a row"
        yield style.noted(what, "header", "yes", " skips it")
    if options.columns.keep or rows <= 2 or count == 1 or not _counts(first[:, 0]):
        return
    columns = columns or TextColumns(count, tuple(range(count)))
    if columns.indices[0] == 0 and not any(columns.remarks):
        yield as_class(columns, 0, "counts up, like numbers of rows, and ", style)


def _counts(numbers: Array) -> bool:
    """Whether numbers are 0, 1, 2, … or 1, 2, 3, …"""
    return bool(np.array_equal(numbers, numbers[0] + np.arange(len(numbers)))) and numbers[0] in (
        0,
        1,
    )


class TableReader:
    """A table that is too long to be read into memory at once.

    The lines of a file are counted. The length of a pipe is unknown: `assume` takes it from an
    array of the same length; without one, the pipe is copied to a temporary file and counted.
    """

    format = "csv"
    best_count = 1
    remarks: tuple[Words, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names in its first line, if that was said to be a header."""
        return self._table.column_names

    def __init__(self, table: TextReader, source: Source, first: Array) -> None:
        self._table, self._source, self._ahead = table, source, first
        self.name, self.dtype, self.unit = source.name, first.dtype, table.width
        self.rows: int | None = None
        self._done = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Lines, and cells in each."""
        return (self.count() if self.rows is None else self.rows), self.unit

    def count(self) -> int:
        """Count the lines."""
        self.rows = len(self._ahead) + self._table.lines_left()
        return self.rows

    def assume(self, rows: int) -> None:
        """Expect that many lines."""
        self.rows = rows

    def make_buffer(self, count: int) -> None:
        """None: numbers are parsed into an array of their own."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next lines."""
        lines = count // self.unit
        rows, self._ahead = self._ahead[:lines], self._ahead[lines:]
        if len(rows) < lines:
            rest = _narrowed(self._table.read(lines - len(rows)), self.dtype, self.name)
            rows = np.concatenate([rows, rest]) if len(rows) else rest
        self._done += len(rows)
        if len(rows) < lines:
            self._source.verify()
            raise FormatError(self.name, f"has {self._done} rows, {self.rows} are needed")
        return rows.reshape(-1)

    def skip(self, count: int) -> None:
        """Skip the next lines; they are parsed and checked anyway."""
        while count:
            some = min(count, AHEAD // self.unit * self.unit or self.unit)
            self.read(some)
            count -= some

    def finish(self) -> None:
        """Check that no line follows."""
        self._source.verify()
        if len(self._ahead) or len(self._table.read(1)):
            raise FormatError(self.name, f"has more than {self.rows} rows")

    def chunks(self) -> Iterator[Array]:
        """The whole table in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole table."""
        return np.concatenate(list(self.chunks())).reshape(self.shape)
