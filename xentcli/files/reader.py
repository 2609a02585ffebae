"""Arrays that are read from beginning to end, some numbers at a time.

A reader knows the shape and the dtype before it reads any number. It returns numbers in the C
order of the shape, `unit` or a multiple of it at a time, and checks at the end that nothing is
left over and that the file has not changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import Words

CHUNK = 1 << 20  # numbers per piece, where the caller does not say how many


class Reader(Protocol):
    """One array as the module docstring describes it; `format` is the name of its format.

    `remarks` are sentences about what may have been meant otherwise than it was read.
    """

    name: str
    format: str
    remarks: tuple[Words, ...]
    dtype: np.dtype[Any]
    unit: int
    best_count: int  # numbers per read below which reading is slow

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""

    def make_buffer(self, count: int) -> Array | None:
        """A buffer to read that many numbers into; None where that would save no copy."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers, flat; into `buffer` where that saves a copy."""

    def skip(self, count: int) -> None:
        """Skip the next numbers."""

    def finish(self) -> None:
        """Check that nothing is left and that the file has not changed."""

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""

    def whole(self) -> Array:
        """The whole array."""


def chunks(reader: Reader) -> Iterator[Array]:
    """An array in pieces, to its end, which is checked."""
    yield from pieces(reader)
    reader.finish()


def pieces(reader: Reader) -> Iterator[Array]:
    """An array in pieces, without a look at what follows it."""
    left, step = prod(reader.shape), max(reader.unit, CHUNK // reader.unit * reader.unit)
    while left:
        count = min(step, left)
        yield reader.read(count)
        left -= count


def read_strided(reader: Reader, start: int, count: int, step: int) -> Array:
    """`flat[start : start + count * step : step]` of the array; what is between is skipped."""
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


class InMemoryReader:
    """An array in memory as a reader; `column_names` stood above it, if any did."""

    best_count = 1
    remarks: tuple[Words, ...] = ()

    def __init__(
        self, array: Array, name: str, format: str, column_names: tuple[str, ...] = ()
    ) -> None:
        self.array, self.name, self.format, self.column_names = array, name, format, column_names
        self.shape, self.dtype = array.shape, array.dtype
        self.unit = 1 if array.flags.c_contiguous else prod(array.shape[1:])
        self._flat = array.reshape(-1) if array.flags.c_contiguous else None
        self._done = 0

    def make_buffer(self, count: int) -> None:
        """None: the array is the buffer."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers: a view, or a copy where the memory is in another order."""
        start, self._done = self._done, self._done + count
        if self._flat is not None:
            return self._flat[start : self._done]
        return self.array[start // self.unit : self._done // self.unit].reshape(-1)

    def skip(self, count: int) -> None:
        """Skip the next numbers."""
        self._done += count

    def finish(self) -> None:
        """Nothing to check."""

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The array itself."""
        return self.array
