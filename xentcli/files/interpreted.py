"""Readers whose numbers stand for others: the bits of bfloat16, or probabilities for logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, HALVES, NAMES, Array, as_logits, name_of, native, widen
from xentcli.errors import DataError, Words
from xentcli.files.options import ReadOptions
from xentcli.files.reader import Reader, chunks


def interpreted(reader: Reader, options: ReadOptions) -> Reader:
    """The reader itself, or what its numbers stand for by the options."""
    two_bytes = reader.dtype.kind in "iuV" and reader.dtype.itemsize == 2
    if options.bfloat16 and two_bytes and reader.dtype != BF16:
        reader = Bfloat16Reader(reader)
    return LogReader(reader) if options.probabilities else reader


def underlying(reader: Reader) -> Reader:
    """The reader of the file itself."""
    while isinstance(reader, _Wrapper):
        reader = reader.inner
    return reader


class _Wrapper:
    """A reader around another, with another dtype."""

    def __init__(self, reader: Reader, dtype: np.dtype[Any], remarks: tuple[Words, ...]) -> None:
        self.inner = reader
        self.dtype = dtype
        self.name, self.format = reader.name, reader.format
        self.unit, self.best_count = reader.unit, reader.best_count
        self.remarks = (*reader.remarks, *remarks)
        self.column_names: tuple[str, ...] = getattr(reader, "column_names", ())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self.inner.shape

    def skip(self, count: int) -> None:
        """Skip the next numbers."""
        self.inner.skip(count)

    def finish(self) -> None:
        """Check that nothing is left."""
        self.inner.finish()


class Bfloat16Reader(_Wrapper):
    """Numbers of two bytes, taken as the bits of bfloat16, as users of PyTorch store them."""

    def __init__(self, reader: Reader) -> None:
        what = f"dtype {name_of(reader.dtype)} was read as the bits of bfloat16"
        remarks: tuple[Words, ...] = () if reader.dtype.kind == "V" else (what,)
        super().__init__(reader, BF16, remarks)

    def make_buffer(self, count: int) -> Array | None:
        """A buffer to read that many numbers into; None where that would save no copy."""
        return self.inner.make_buffer(count)

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers, flat; into `buffer` where that saves a copy."""
        return self._bits(self.inner.read(count, buffer))

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return map(self._bits, self.inner.chunks())

    def whole(self) -> Array:
        """The whole array."""
        return self._bits(self.inner.whole())

    def _bits(self, values: Array) -> Array:
        known = values if values.dtype.kind == "V" else values.astype("<u2", copy=False)
        return known.view(BF16)


class LogReader(_Wrapper):
    """The logarithms of probabilities, which are logits: −inf for 0."""

    def __init__(self, reader: Reader) -> None:
        dtype = native(as_logits(np.empty(0, reader.dtype)).dtype)
        super().__init__(reader, NAMES["f32"] if dtype in HALVES else dtype, ())
        self._done = 0

    def make_buffer(self, count: int) -> Array | None:
        """A buffer to read that many numbers into; None where that would save no copy."""
        return self.inner.make_buffer(count)

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The logarithms of the next numbers, flat."""
        values = widen(as_logits(self.inner.read(count, buffer)), self.dtype)
        wrong = values < 0
        if wrong.any():
            first = int(np.argmax(wrong))
            what = f"probability {values[first]:g} at number {self._done + first} is negative"
            raise DataError(self.name, what)
        self._done += count
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(values))

    def skip(self, count: int) -> None:
        """Skip the next numbers."""
        super().skip(count)
        self._done += count

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array."""
        parts = [np.empty(0, self.dtype), *self.chunks()]
        return np.concatenate(parts).reshape(self.shape)
