"""Where bytes come from: a file, a FIFO, standard input, or a member of an archive."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from xentcli.dtypes import Array
from xentcli.errors import FileError, OptionError, visible

CHUNK = 1 << 24


class Source:
    """A stream of bytes with a name for messages and, for a plain file, a size.

    A few bytes can be looked at before they are read, which pipes do not offer. Nothing is
    allocated because of a size that is only `declared`, as by an archive for its members.
    """

    def __init__(
        self, stream: IO[bytes], name: str, size: int | None = None, *, declared: bool = False
    ) -> None:
        self._stream = stream
        self._ahead = b""
        self._declared = declared
        self.name = name
        self.size = size
        self.position = 0

    def peek(self, count: int) -> bytes:
        """The next bytes, without consuming them."""
        while len(self._ahead) < count:
            data = self._read_some(count - len(self._ahead))
            if not data:
                break
            self._ahead += data
        return self._ahead[:count]

    def read(self, count: int) -> bytes:
        """That many bytes, fewer only at the end."""
        data = self.peek(count)
        self._ahead = self._ahead[count:]
        self.position += len(data)
        return data

    def read_all(self) -> bytes:
        """Everything that is left."""
        parts = [self._ahead]
        self._ahead = b""
        while data := self._read_some(CHUNK):
            parts.append(data)
        self.position += sum(map(len, parts))
        return b"".join(parts)

    def read_buffer(self, count: int) -> Array:
        """That many bytes as a writable array; nothing is allocated before it is there."""
        if not self._declared and self.size is not None and self.size - self.position >= count:
            return self._fill(np.empty(count, np.uint8))
        parts = [np.empty(0, np.uint8)]
        while count:
            wanted = min(count, CHUNK)
            parts.append(self._fill(np.empty(wanted, np.uint8)))
            if len(parts[-1]) < wanted:
                break
            count -= wanted
        return np.concatenate(parts)

    def _fill(self, buffer: Array) -> Array:
        first = self.read(min(len(self._ahead), len(buffer)))
        buffer[: len(first)] = np.frombuffer(first, np.uint8)
        filled = len(first)
        view = buffer.data
        while filled < len(buffer):
            count = self._into(view[filled : filled + CHUNK])
            if not count:
                break
            filled += count
            self.position += count
        return buffer[:filled]

    def _into(self, view: memoryview) -> int:
        try:
            return self._stream.readinto(view) or 0  # type: ignore[attr-defined] # every binary stream here has it
        except OSError as error:
            raise failed(self.name, "reading", error) from error

    def _read_some(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except OSError as error:
            raise failed(self.name, "reading", error) from error


def failed(where: str, doing: str, error: OSError) -> FileError:
    """The operating system's error as ours."""
    return FileError(where, f"{doing} failed: {error.strerror or error}")


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a path, or standard input for `-`; its name is safe to print."""
    name = visible(path)
    if not path:
        raise OptionError("command line", "an input's name is empty")
    if path == "-":
        yield Source(_stdin(), "<stdin>")
        return
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 (Path would change the name)
            state = os.fstat(stream.fileno())
            regular = stat.S_ISREG(state.st_mode)
            yield Source(stream, name, state.st_size if regular else None)
    except FileNotFoundError as error:
        if error.filename != path:
            raise
        raise OptionError(name, "no such file") from error
    except OSError as error:
        if error.filename != path:
            raise
        raise failed(name, "opening", error) from error


def _stdin() -> Any:
    if sys.stdin is None:
        raise OptionError("<stdin>", "standard input is closed")
    if sys.stdin.isatty():
        raise OptionError(
            "<stdin>", "'-' reads standard input, which is a terminal", "pipe data into it"
        )
    return io.FileIO(sys.stdin.fileno(), "rb", closefd=False)
