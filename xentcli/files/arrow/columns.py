"""The columns of an Arrow table as arrays: lists of numbers, or one column per class."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError, visible
from xentcli.files.class_names import ClassNames
from xentcli.records import dataclass

FLOATS = {"halffloat": "<f2", "float": "<f4", "double": "<f8"}
INTEGERS = {f"{u}int{8 * n}": f"<{u or 'i'}{n}" for u in ("", "u") for n in (1, 2, 4, 8)}
DTYPES = {name: np.dtype(text) for name, text in (FLOATS | INTEGERS).items()}
TEXT = ("string", "string_view", "large_string")
NULLS = "fill or drop nulls first; pandas writes NaN as null"


@dataclass(frozen=True)
class Column:
    """One column: its number in the file, its name, and what stands in a row.

    `shape` is that of a row, () for a number, with None where only the rows tell a list's length;
    `dtype` is None for what is no number. `type` is Arrow's name of it; words are looked up in
    `words`.
    """

    number: int
    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any] | None
    type: str
    inner: str  # the same, of what a dictionary holds
    words: ClassNames | None = None

    @property
    def is_text(self) -> bool:
        """Whether a row holds a word."""
        return not self.shape and self.inner in TEXT


def columns_of(schema: Any) -> list[Column]:
    """The columns of a schema."""
    found = []
    for number, field in enumerate(schema):
        shape, name = _row_of(field.type)
        found.append(Column(number, field.name, shape, DTYPES.get(name), str(field.type), name))
    return found


def _row_of(type: Any) -> tuple[tuple[int | None, ...], str]:
    """The shape of what stands in a row, and Arrow's name of its numbers."""
    if hasattr(type, "permutation"):  # a fixed-shape tensor
        in_order = type.permutation in (None, list(range(len(type.shape))))
        return tuple(type.shape), str(type.value_type) if in_order else "permuted"
    if hasattr(type, "storage_type"):  # another extension
        return _row_of(type.storage_type)
    if hasattr(type, "value_field"):  # a list, of fixed size or not
        shape, name = _row_of(type.value_type)
        return (getattr(type, "list_size", None), *shape), name
    if hasattr(type, "index_type"):  # a dictionary
        return _row_of(type.value_type)
    return (), str(type)


def lengths_of(array: Any, axes: int) -> tuple[int, ...]:
    """The lengths of the lists in the first row; 0 where there is none."""
    found: list[int] = []
    array = getattr(array, "storage", array)
    while len(found) < axes:
        value = array[:1]
        array = value.flatten() if len(value) else value.values
        found.append(len(array) if len(value) else 0)
    return tuple(found)


def numbers_of(array: Any, column: Column, first: int, where: str) -> Array:
    """The numbers of some rows, flat; `first` is the number of the first row.

    `flatten` respects slices, as `.values` does not; it drops nulls, which are errors before.
    """
    depth, per_row = 0, 1
    place = f"{where}[{visible(column.name)}]"
    while True:
        if array.null_count:
            row = first + _first_null(array) // per_row
            raise FormatError(place, f"row {row} is null or holds a null", NULLS)
        if hasattr(array, "storage"):
            array = array.storage
        elif hasattr(array, "dictionary_decode"):
            array = array.dictionary_decode()
        elif hasattr(array.type, "value_field"):
            length = getattr(array.type, "list_size", column.shape[depth]) or 0
            _require_length(array, length, (first, per_row), place)
            array, per_row, depth = array.flatten(), per_row * max(1, length), depth + 1
        else:
            if column.words:
                return _indices_of(array, column.words, first, place)
            flat: Array = array.to_numpy(zero_copy_only=False)
            return flat


def _indices_of(array: Any, words: ClassNames, first: int, place: str) -> Array:
    """The class indices that words name."""
    encoded = array.dictionary_encode()
    found = [words.index(word) for word in encoded.dictionary.to_pylist()]
    numbers: Array = encoded.indices.to_numpy()
    if None in found:
        unknown = found.index(None)
        row = first + int(np.argmax(numbers == unknown))
        raise words.unknown(encoded.dictionary[unknown].as_py(), place, f"row {row}: ")
    return np.asarray(np.array(found, np.int64)[numbers])


def _first_null(array: Any) -> int:
    return int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))


def _require_length(array: Any, length: int, rows: tuple[int, int], place: str) -> None:
    """An error unless all lists have a length; `rows`: the first row, and the lists per row."""
    if hasattr(array.type, "list_size"):  # whatever stands in the rows
        return
    is_view = hasattr(array, "sizes")
    found = array.sizes.to_numpy() if is_view else np.diff(array.offsets.to_numpy())
    if (found == length).all():
        return
    wrong = int(np.argmax(found != length))
    row = rows[0] + wrong // rows[1]
    what = f"row {row} has a list of {found[wrong]}, the first row one of {length}"
    raise FormatError(place, what, "lists must have the same length in all rows")


@dataclass(frozen=True)
class Selection:
    """The columns of one array: one, or several of numbers that are its last axis."""

    columns: tuple[Column, ...]
    shape: tuple[int, ...]  # of a row
    dtype: np.dtype[Any]

    def flat(self, batch: Any, first: int, where: str) -> Array:
        """The numbers of some rows in C order, from Arrow's record batch of the columns."""
        if len(self.columns) == 1:
            return numbers_of(batch.column(0), self.columns[0], first, where)
        if self._is_plain and not any(array.null_count for array in batch.columns):
            tensor: Array = batch.to_tensor(row_major=True).to_numpy()
            return tensor.reshape(-1)
        table = np.empty((batch.num_rows, len(self.columns)), self.dtype)
        for number, column in enumerate(self.columns):
            table[:, number] = numbers_of(batch.column(number), column, first, where)
        return table.reshape(-1)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether Arrow can transpose the columns: all are of one type."""
        return len({column.type for column in self.columns}) == 1 and all(
            column.type in DTYPES for column in self.columns
        )

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return prod(self.shape) * self.dtype.itemsize
