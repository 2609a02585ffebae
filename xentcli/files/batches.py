"""An array whose rows come in batches, of sizes that the file decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError, Words
from xentcli.files.reader import chunks
from xentcli.files.source import Source

Batches = Callable[[int, int], Iterator[Array]]  # (first row, wanted rows per batch) -> flat rows


class BatchReader:
    """The rows of an array, flat, from an iterator that starts with the first read."""

    format = ""  # the registry sets it
    best_count = 1 << 18
    remarks: tuple[Words, ...] = ()
    column_names: tuple[str, ...] = ()

    def __init__(
        self, source: Source, shape: tuple[int, ...], dtype: np.dtype[Any], batches: Batches
    ) -> None:
        self._source, self.name = source, source.name
        self.shape, self.dtype = shape, dtype
        self.unit = max(1, prod(shape[1:]))
        self._batches: Batches = batches
        self._iterator: Iterator[Array] | None = None
        self._left = np.empty(0, dtype)  # of the last batch
        self._skipped = 0  # rows, before the first read

    def make_buffer(self, count: int) -> None:
        """None: the library allocates what it decodes."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next rows, flat."""
        parts = []
        while count:
            if not self._left.size:
                self._left = self._next(count // self.unit)
            parts.append(self._left[:count])
            self._left = self._left[count:]
            count -= parts[-1].size
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.dtype), *parts])

    def _next(self, rows: int) -> Array:
        """The next batch; an error at the end."""
        if self._iterator is None:
            self._iterator = self._batches(self._skipped, rows)
        for batch in self._iterator:
            if batch.size:
                return batch
        raise FormatError(self.name, f"ends before the {self.shape[0]} rows that it announces")

    def skip(self, count: int) -> None:
        """Skip the next rows; before the first read nothing is decoded for that."""
        if self._iterator is None:
            self._skipped += count // self.unit
            return
        step = max(1, self.best_count // self.unit) * self.unit
        while count:
            count -= self.read(min(count, step)).size

    def finish(self) -> None:
        """Check that no row is left and that the file has not changed."""
        left = self._left.size or (
            self._iterator is not None and any(batch.size for batch in self._iterator)
        )
        if left:
            raise FormatError(self.name, f"more rows follow the {self.shape[0]} that it announces")
        self._source.verify()

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array."""
        parts = [np.empty(0, self.dtype), *self.chunks()]
        return np.concatenate(parts).reshape(self.shape)
