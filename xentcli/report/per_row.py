"""One line per row that counts, in a file: CSV, a structured .npy array, or Parquet."""

from __future__ import annotations

import io
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.fields import Field
from xentcli.engine.problem import Problem
from xentcli.errors import OptionError, UnavailableError, visible
from xentcli.files.outputs import Outputs
from xentcli.files.sink import Sink
from xentcli.report.compute import Groups
from xentcli.report.scores import Scores

# The columns in order; those about the target class are left out for probability targets.
COLUMNS = {
    "row": "i8",
    "target": "i8",
    "prediction": "i8",
    "nll": "f8",
    "p_target": "f8",
    "confidence": "f8",
    "rank": "i8",
    "correct": "?",
    "entropy": "f8",
}
OF_CLASSES = ("target", "p_target", "rank", "correct")
SUFFIXES = ".csv, .npy and .parquet"


class RowWriter(Protocol):
    """Takes tables of rows: arrays by the names of the columns."""

    def write(self, table: dict[str, Array]) -> None:
        """Write the next rows."""

    def finish(self) -> None:
        """Write what comes after the last row."""


class PerRowFile:
    """The file of `per_row`, which gets the scores of every piece in order."""

    def __init__(self, writer: RowWriter, groups: Groups | None) -> None:
        self._writer, self._labels = writer, groups.labels if groups else None

    def write(self, scores: Scores) -> None:
        """Write the next rows."""
        table: dict[str, Array] = {
            "row": scores.rows,
            "prediction": _whole(scores[Field.PREDICTION]),
            "nll": scores[Field.NLL],
            "confidence": scores[Field.CONFIDENCE],
            "entropy": scores[Field.ENTROPY],
        }
        if scores.targets is not None:
            table["target"] = scores.targets
            table["p_target"] = scores[Field.P_TARGET]
            table["rank"] = _whole(scores[Field.ABOVE])
            table["correct"] = scores.correct
        if self._labels is not None:
            table["group"] = self._labels[scores.group]
        ordered = [name for name in (*COLUMNS, "group") if name in table]
        self._writer.write({name: table[name] for name in ordered})

    def finish(self) -> None:
        """Write what comes after the last row."""
        self._writer.finish()


def _whole(values: Array) -> Array:
    """Integers, −1 where there is none because the row is NaN."""
    return np.nan_to_num(values, nan=-1.0).astype(np.int64)


def open_per_row(
    path: str | None, outputs: Outputs, problem: Problem, groups: Groups | None
) -> PerRowFile | None:
    """The file at a path, in the format of its suffix; None from None."""
    if path is None:
        return None
    suffix = PurePath(path).suffix.lower()
    if suffix not in (".csv", ".npy", ".parquet"):
        what = f"{visible(path)}: unknown suffix; expected {SUFFIXES}"
        raise OptionError("per_row", what)
    dtypes = {n: c for n, c in COLUMNS.items() if not (problem.probs and n in OF_CLASSES)}
    if groups:
        dtypes["group"] = groups.labels.dtype.str
    rows = problem.layout.rows - problem.ignored
    sink = outputs.open(path)
    writer: RowWriter
    if suffix == ".npy":
        writer = _NpyRows(sink, np.dtype(list(dtypes.items())), rows)
    elif suffix == ".parquet":
        writer = _ParquetRows(sink, dtypes)
    else:
        writer = _CsvRows(sink, list(dtypes))
    return PerRowFile(writer, groups)


class _CsvRows:
    """A header, and numbers with the shortest digits that give the same bits."""

    def __init__(self, sink: Sink, names: list[str]) -> None:
        self._sink = sink
        sink.write(f"{','.join(names)}\n".encode())

    def write(self, table: dict[str, Array]) -> None:
        columns = [
            column.astype(np.int64) if column.dtype == bool else column for column in table.values()
        ]
        lines = zip(*(column.tolist() for column in columns), strict=True)
        self._sink.write("".join(f"{','.join(map(str, line))}\n" for line in lines).encode())

    def finish(self) -> None:
        pass


class _NpyRows:
    """A structured array; its length is known before the rows."""

    def __init__(self, sink: Sink, dtype: np.dtype[Any], rows: int) -> None:
        self._sink, self._dtype = sink, dtype
        header = io.BytesIO()
        facts = {"descr": dtype.descr, "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_1_0(header, facts)
        sink.write(header.getvalue())

    def write(self, table: dict[str, Array]) -> None:
        rows = np.empty(len(table["row"]), self._dtype)
        for name, column in table.items():
            rows[name] = column
        self._sink.write(rows.tobytes())

    def finish(self) -> None:
        pass


class _ParquetRows:
    """A Parquet file, by pyarrow; one row group for each piece."""

    def __init__(self, sink: Sink, dtypes: dict[str, str]) -> None:
        try:
            from importlib import import_module

            self._arrow = import_module("pyarrow")
            parquet = import_module("pyarrow.parquet")
        except ImportError as error:
            hint = "pip install pyarrow, or write .csv or .npy"
            raise UnavailableError("per_row", "Parquet needs pyarrow", hint) from error
        kinds = [
            (name, self._arrow.from_numpy_dtype(np.dtype(code))) for name, code in dtypes.items()
        ]
        self._schema = self._arrow.schema(kinds)
        self._sink, self._buffer = sink, self._arrow.BufferOutputStream()
        self._writer = parquet.ParquetWriter(self._buffer, self._schema)

    def write(self, table: dict[str, Array]) -> None:
        arrays = [self._arrow.array(column) for column in table.values()]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))

    def finish(self) -> None:
        self._writer.close()
        self._sink.write(self._buffer.getvalue().to_pybytes())
