"""One array of a table in a Parquet or Arrow file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from functools import partial
from typing import Any, Protocol

from xentcli.arrays.dtypes import Array, name_of
from xentcli.errors import FormatError, visible
from xentcli.files.arrow.choice import Chosen, choose, index_names
from xentcli.files.arrow.columns import Column, Selection, columns_of, lengths_of
from xentcli.files.batches import BatchReader
from xentcli.files.columns import chosen
from xentcli.files.contiguous import Extent
from xentcli.files.format import Facts, Inspected, of_each
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions
from xentcli.files.random_access import library_errors
from xentcli.files.reader import Reader
from xentcli.files.source import Source
from xentcli.records import dataclass

BATCH_BYTES = 1 << 25  # that are decoded at a time at most
BATCH = 1 << 22  # numbers of one column per class that are decoded at a time
HIDDEN = (b"ARROW:schema", b"pandas")  # metadata about the schema, of kilobytes


class TableFile(Protocol):
    """A file with a table."""

    what: str  # Parquet or Arrow
    schema: Any
    rows: int
    facts: dict[str, str]  # about the file

    def batches(self, columns: list[Column], first: int, rows: int) -> Iterator[Any]:
        """Arrow's record batches of some columns, in this order, from a row on, of at most that
        many rows."""


@dataclass(frozen=True)
class Table:
    """A file with a table, and its columns."""

    source: Source
    file: TableFile
    columns: list[Column] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, file: TableFile) -> Table:
        """The table of a file."""
        if file.rows < 0:
            raise FormatError(source.name, f"damaged: it announces {file.rows} rows")
        with library_errors(source.name, file.what):
            return cls(source, file, columns_of(file.schema))

    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def choice(self, options: ReadOptions) -> Chosen:
        """The columns that the options choose, with the lengths of their lists."""
        chosen = choose(self.columns, index_names(self.file.schema), options, self.source.name)
        if None not in chosen.columns[0].shape:
            return chosen
        return Chosen((self._with_lengths(chosen.columns[0]),), per_class=False)

    def _with_lengths(self, column: Column) -> Column:
        """A column of lists whose length the first row tells."""
        with library_errors(self.source.name, self.file.what):
            first = next(self.file.batches([column], 0, 1), None) if self.file.rows else None
            axes = len(column.shape)
            lengths = lengths_of(first.column(0), axes) if first else (0,) * axes
        return replace(column, shape=lengths)

    def reader(self, options: ReadOptions) -> Reader:
        """The reader of the array that the options choose."""
        chosen = self.choice(options)
        selection = chosen.selection()
        shape = (self.file.rows, *selection.shape)
        if Extent(shape=shape, dtype=selection.dtype).is_too_large:
            raise FormatError(self.source.name, f"shape {shape} is larger than NumPy can have")
        reader = BatchReader(self.source, shape, selection.dtype, partial(self._batches, selection))
        reader.remarks, reader.column_names = chosen.remarks, chosen.names
        if chosen.per_class:  # each batch takes a step per column
            reader.best_count = BATCH
        return reader

    def _batches(self, selection: Selection, first: int, wanted: int) -> Iterator[Array]:
        """The rows of an array from one on, flat."""
        most = max(1, BATCH_BYTES // max(1, selection.row_bytes))
        with library_errors(self.source.name, self.file.what):
            columns, rows = list(selection.columns), max(1, min(wanted, most))
            for batch in self.file.batches(columns, first, rows):
                yield selection.flat(batch, first, self.source.name)
                first += batch.num_rows

    def inspect(self, options: ReadOptions, stats: bool) -> Inspected:
        """Facts about every array, or about the one that the options choose."""
        all_names = self.names()
        kept = chosen(options.columns, all_names, len(all_names), self.source.name)
        columns = [self.columns[number] for number in kept]
        usual = [c for c in columns if c.name not in index_names(self.file.schema)]
        metadata = self.file.facts | _metadata(self.file.schema)
        if options.key is None and not any(column.shape for column in usual):
            how = ReadOptions(columns=options.columns)
            return [self._facts(how, columns, metadata, stats)]
        names = [column.name for column in columns]
        if options.key is not None:
            names = [choose_key(names, options, self.source.name)]

        def facts(name: str) -> Facts:
            found = [column for column in columns if column.name == name]
            return self._facts(ReadOptions(key=name), found, metadata, stats)

        return of_each(names, facts)

    def _facts(
        self, how: ReadOptions, found: list[Column], metadata: dict[str, str], stats: bool
    ) -> Facts:
        """Facts about the column of a name, or about the table of numbers."""
        from xentcli.files.statistics import statistics  # reading does not need it

        key = how.key
        name = self.source.name if key is None else f"{self.source.name}[{visible(key)}]"
        if not all(column.dtype for column in found):
            types = dict.fromkeys(visible(column.type) for column in found)
            shape = (self.file.rows, *(() if key is not None else (len(found),)))
            return {
                "name": name,
                "shape": shape,
                "dtype": " and ".join(types),
                "metadata": metadata,
            }
        reader = self.reader(how)
        facts: Facts = {"name": name, "shape": reader.shape, "dtype": name_of(reader.dtype)}
        if key is None:
            facts["columns"] = [column.name for column in found]
        facts["metadata"] = metadata
        return facts | (statistics(reader.chunks()) if stats else {})


def _metadata(schema: Any) -> dict[str, str]:
    """What programs have written into a file about it, without what describes the schema."""
    found = (schema.metadata or {}).items()
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in found
        if key not in HIDDEN
    }


def in_order(batch: Any, names: list[str]) -> Any:
    """A record batch with its columns in this order."""
    return batch if batch.schema.names == names else batch.select(names)
