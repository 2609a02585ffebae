"""An array that can be read only once, from a pipe, and is to be read again: kept in a file."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import TemporaryFile

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files.descriptor import file_errors
from xentcli.files.reader import InMemoryReader, Reader, chunks


class RecordingReader:
    """Reads an array, and copies what it reads to a temporary file; then `replay` reads that."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.name, self.format, self.dtype = reader.name, reader.format, reader.dtype
        self.unit, self.best_count = reader.unit, reader.best_count
        self.remarks = reader.remarks
        with file_errors("temporary file", "writing"):
            self._copy = TemporaryFile(prefix=".xent-")  # noqa: SIM115 (`close` closes it)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self._reader.shape

    def make_buffer(self, count: int) -> Array | None:
        """A buffer to read that many numbers into; None where that would save no copy."""
        return self._reader.make_buffer(count)

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers, flat, which are also copied."""
        values = self._reader.read(count, buffer)
        with file_errors("temporary file", "writing"):
            self._copy.write(np.ascontiguousarray(values).view(np.uint8).data)
        return values

    def skip(self, count: int) -> None:
        """Read the next numbers, so that they are copied."""
        self.read(count)

    def finish(self) -> None:
        """Check that nothing is left."""
        self._reader.finish()

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array."""
        return np.concatenate([np.empty(0, self.dtype), *map(np.copy, self.chunks())]).reshape(
            self.shape
        )

    def replay(self) -> Reader:
        """The same array once more, from the copy."""
        if 0 in self.shape:
            return InMemoryReader(np.empty(self.shape, self.dtype), self.name, self.format)
        with file_errors("temporary file", "reading"):
            self._copy.flush()
            array = np.memmap(self._copy, self.dtype, "r", shape=self.shape)
        return InMemoryReader(array, self.name, self.format)

    def close(self) -> None:
        """Remove the copy."""
        self._copy.close()
