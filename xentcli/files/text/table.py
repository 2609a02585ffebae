"""Tables of numbers in text as readers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow
from xentcli.errors import FormatError
from xentcli.files.reader import Held, Reader, chunks
from xentcli.files.source import Source
from xentcli.files.text import reader as text

AHEAD = 1 << 20  # numbers that are read to see whether that is all


def of_table(table: text.Reader, source: Source, format: str, dtype: str) -> Reader:
    """The reader for a table: one that holds it where it is short."""
    kind = NAMES.get(dtype, NAMES["f64"])
    lines = max(2, AHEAD // table.width + 1)  # one line alone, however long, is held
    first = narrow(table.read(lines), kind)
    if len(first) < lines:
        source.verify()
        return Held(first, source.name, format)
    reader = TableReader(table, source, first)
    reader.format = format
    if source.file is not None:
        reader.count()
    return reader


class TableReader:
    """A table that is longer than what is held; it has two axes.

    How many lines it has is counted in a file. In a pipe nobody knows: `assume` takes the number
    from an array that has to fit; where nobody can tell, all is put into a temporary file.
    """

    format = "csv"
    best = 1

    def __init__(self, table: text.Reader, source: Source, first: Array) -> None:
        self._table, self._source, self._ahead = table, source, first
        self.name, self.dtype, self.unit = source.name, first.dtype, table.width
        self.rows: int | None = None
        self._done = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Lines and cells in each."""
        return (self.count() if self.rows is None else self.rows), self.unit

    def count(self) -> int:
        """Count the lines."""
        self.rows = len(self._ahead) + self._table.lines_left()
        return self.rows

    def assume(self, rows: int) -> None:
        """There have to be so many lines."""
        self.rows = rows

    def room(self, count: int) -> None:
        """None: the numbers are made elsewhere."""

    def read(self, count: int, room: Array | None = None) -> Array:
        """The next lines."""
        lines = count // self.unit
        rows, self._ahead = self._ahead[:lines], self._ahead[lines:]
        if len(rows) < lines:
            rest = narrow(self._table.read(lines - len(rows)), self.dtype)
            rows = np.concatenate([rows, rest]) if len(rows) else rest
        self._done += len(rows)
        if len(rows) < lines:
            self._source.verify()
            raise FormatError(self.name, f"has {self._done} rows, {self.rows} are needed")
        return rows.reshape(-1)

    def skip(self, count: int) -> None:
        """Go over the next lines; they are read all the same."""
        while count:
            some = min(count, AHEAD // self.unit * self.unit or self.unit)
            self.read(some)
            count -= some

    def finish(self) -> None:
        """No line may follow."""
        self._source.verify()
        if len(self._ahead) or len(self._table.read(1)):
            raise FormatError(self.name, f"has more than {self.rows} rows")

    def chunks(self) -> Iterator[Array]:
        """Everything, in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """Everything."""
        return np.concatenate(list(self.chunks())).reshape(self.shape)
