"""A source for libraries that read a file by themselves, and their errors as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from xentcli.errors import FormatError, UnavailableError, XentError, reason
from xentcli.files.descriptor import file_errors
from xentcli.files.source import Source

IMPOSSIBLE = 1 << 40  # bytes at once that only a damaged file asks for


class RandomAccess:
    """The bytes of a source as a file in Python; a pipe is copied to a temporary file first.

    What a damaged file announces is not allocated: no read is longer than what is left.
    """

    closed = False

    def __init__(self, source: Source) -> None:
        source.make_seekable()
        assert source.size is not None
        self._stream, self._name, self._size = source.stream, source.name, source.size
        self._position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte; nothing is asked of the system before the next read."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def seekable(self) -> bool:
        """True."""
        return True

    def read(self, count: int = -1) -> bytes:
        """The next bytes, fewer only at the end."""
        left = max(0, self._size - self._position)
        wanted = left if count < 0 else min(count, left)
        with file_errors(self._name, "reading"):
            self._stream.seek(self._position)
            data = self._stream.read(wanted)
            while len(data) < wanted and (more := self._stream.read(wanted - len(data))):
                data += more
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer; fewer only at the end."""
        view, filled = memoryview(buffer).cast("B"), 0
        with file_errors(self._name, "reading"):
            self._stream.seek(self._position)
            while filled < len(view):
                count: int = self._stream.readinto(view[filled:])  # type: ignore[attr-defined] # every binary stream here has it
                if not count:
                    break
                filled += count
        self._position += filled
        return filled

    def readable(self) -> bool:
        """True."""
        return True

    def flush(self) -> None:
        """Nothing: it is only read."""

    def close(self) -> None:
        """Nothing: whoever opened the source closes it."""


def require(module: str, extra: str, what: str) -> Any:
    """A library that an extra installs; an error that says how where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        words = f"{what} files need the extra {extra}"
        raise UnavailableError(extra, words, f"pip install 'xentcli[{extra}]'") from error


@contextmanager
def library_errors(where: str, what: str) -> Iterator[None]:
    """Turn what a library raises on a damaged file into a FormatError."""
    try:
        yield
    except XentError:
        raise
    except MemoryError as error:
        asked = re.search(r"size (\d+)", str(error))
        if asked is None or int(asked[1]) < IMPOSSIBLE:
            raise
        raise FormatError(where, f"damaged: it asks for {asked[1]} bytes of memory") from error
    except Exception as error:  # a damaged file makes them raise anything: KeyError, OSError, …
        raise FormatError(where, f"cannot read this {what} file: {reason(error)}") from error
