"""Where bytes come from: a file, a FIFO, standard input, or a member of an archive."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import IO, TYPE_CHECKING

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FileError, OptionError, visible
from xentcli.files.descriptor import Descriptor, descriptor_of, file_errors
from xentcli.files.seekable import Seekable

if TYPE_CHECKING:
    from xentcli.files.store import Store

CHUNK = 1 << 24
COPY = 1 << 20  # bytes of a pipe that are copied at a time


class Source:
    """A stream of bytes with a name for messages and, for a plain file, a size.

    Unlike a pipe, it has a `peek`. `compression` is the name of that which was taken off it, `path`
    that of a plain file.
    """

    compression: str | None = None
    store: Store | None = None  # where it is a folder, and has no bytes

    def __init__(self, stream: IO[bytes], name: str, path: str | None = None) -> None:
        self._stream = stream
        self._ahead = b""  # bytes that were peeked at and not read
        self.path = path
        self._state = os.fstat(stream.fileno()) if path else None
        self._recording: IO[bytes] | None = None  # gets a copy of what is read
        self._recorded: IO[bytes] | None = None
        self._ended = False  # a terminal or FIFO may have more to read after its end
        self.name = name
        self.position = 0

    @property
    def size(self) -> int | None:
        """The size of a plain file in bytes; None for anything else."""
        return self._state.st_size if self._state else None

    @property
    def file(self) -> Seekable | None:
        """The stream for seeking, where it is a plain file."""
        return Seekable(self._stream, self.name) if self._state else None

    @property
    def stream(self) -> IO[bytes]:
        """The stream itself, for what reads by itself."""
        return self._stream

    @property
    def can_be_opened_again(self) -> bool:
        """Whether its path is that of a plain file."""
        return self.path is not None

    def close(self) -> None:
        """Remove the temporary copy; the stream itself is closed by whoever opened it."""
        if self._recorded:
            with suppress(OSError):  # it was a copy
                self._recorded.close()

    def peek(self, count: int) -> bytes:
        """The next bytes, without consuming them."""
        while len(self._ahead) < count:
            data = self._read_some(count - len(self._ahead))
            if not data:
                break
            self._ahead += data
        return self._ahead[:count]

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end."""
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
        """The next `count` bytes as a writable array; memory grows with the bytes that come."""
        if self.size is not None and self.size - self.position >= count:
            return self.fill(np.empty(count, np.uint8))
        parts = [np.empty(0, np.uint8)]
        while count:
            wanted = min(count, CHUNK)
            parts.append(self.fill(np.empty(wanted, np.uint8)))
            if len(parts[-1]) < wanted:
                break
            count -= wanted
        return np.concatenate(parts)

    def fill(self, buffer: Array) -> Array:
        """Read into a buffer of bytes; the part of it that was filled, less only at the end."""
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

    def skip(self, count: int) -> int:
        """Skip `count` bytes, fewer only at the end; returns how many."""
        start = self.position
        count -= len(self.read(min(len(self._ahead), count)))
        if self._state:
            with file_errors(self.name, "reading"):
                self._stream.seek(count, os.SEEK_CUR)
            self.position += count
            return self.position - start
        buffer = np.empty(min(count, CHUNK), np.uint8)
        while count:
            got = len(self.fill(buffer[: min(count, CHUNK)]))
            if not got:
                break
            count -= got
        return self.position - start

    def seek(self, position: int) -> None:
        """Go on at any byte of a plain file, after others have moved in its stream."""
        assert self._state
        with file_errors(self.name, "reading"):
            self._stream.seek(position)
        self._ahead, self.position = b"", position

    def read_at(self, view: memoryview, offset: int) -> int:
        """Read a plain file from an offset, keeping the position; returns the number of bytes."""
        assert self._state
        with file_errors(self.name, "reading"):
            return os.preadv(self._stream.fileno(), [view], offset)

    @contextmanager
    def lookahead(self) -> Iterator[None]:
        """What is read inside is read again afterwards; a pipe is copied to a file for that."""
        ahead, position = self._ahead, self.position
        if self._state:
            with file_errors(self.name, "reading"):
                start = self._stream.tell()
            yield
            with file_errors(self.name, "reading"):
                self._stream.seek(start)
        else:
            self._recording = self._recorded = _temporary_file()
            yield
            self._stream, self._recording, self._ended = self._recorded, None, False
            with file_errors("temporary file", "writing"):
                self._stream.seek(0)  # which also writes the end of the copy
        self._ahead, self.position = ahead, position

    def make_seekable(self) -> None:
        """Copy what is not a plain file to a temporary file, from which it is read from now on."""
        if self._state:
            return
        self._recorded = _temporary_file()
        data: bytes | memoryview = self.read(len(self._ahead))
        buffer = memoryview(bytearray(COPY))
        while data:
            with file_errors("temporary file", "writing"):
                self._recorded.write(data)
            data = buffer[: self._into(buffer)]
        with file_errors("temporary file", "writing"):
            self._recorded.seek(0)
            self._state = os.fstat(self._recorded.fileno())
        self._stream, self.position, self._ended = self._recorded, 0, False

    def verify(self) -> None:
        """An error where a plain file has changed since it was opened."""
        if self._state is None or self.path is None:
            return
        with file_errors(self.name, "reading"):
            now = os.fstat(self._stream.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            raise FileError(self.name, "changed while it was read")
        with suppress(OSError):  # a file that was removed could be read to its end
            there = os.stat(self.path)  # noqa: PTH116 (Path would change the name)
            if (there.st_dev, there.st_ino) != (now.st_dev, now.st_ino):
                raise FileError(self.name, "was replaced while it was read")

    def _into(self, view: memoryview) -> int:
        if self._ended:
            return 0
        with file_errors(self.name, "reading"):
            count: int = self._stream.readinto(view)  # type: ignore[attr-defined] # every binary stream here has it
        self._record(view[:count])
        self._ended = not (count or self._state)
        return count

    def _read_some(self, count: int) -> bytes:
        if self._ended:
            return b""
        with file_errors(self.name, "reading"):
            data = self._stream.read(count)
        self._record(data)
        self._ended = not (data or self._state)
        return data

    def _record(self, data: bytes | memoryview) -> None:
        if self._recording:
            with file_errors("temporary file", "writing"):
                self._recording.write(data)


def _temporary_file() -> IO[bytes]:
    from tempfile import TemporaryFile  # files do not need it

    with file_errors("temporary file", "writing"):
        return TemporaryFile(prefix=".xent-")


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a path, or standard input for `-`; the source's name is safe to print."""
    name = visible(path)
    if not path:
        raise OptionError("command line", "an input's name is empty")
    if path == "-":
        with closing(Source(_stdin(), "<stdin>")) as source:
            yield source
        return
    stream = _opened(path, name)
    try:
        with file_errors(name, "opening"):
            regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
            source = Source(stream, name, path if regular else None)
        with closing(source):
            yield source
    except BaseException:
        with suppress(OSError):  # the first error counts
            stream.close()
        raise
    with file_errors(name, "closing"):
        stream.close()


def _opened(path: str, name: str) -> IO[bytes]:
    number = descriptor_of(path)
    with file_errors(name, "opening"):
        if number is not None and not stat.S_ISREG(os.fstat(number).st_mode):
            return Descriptor(number, "rb", closefd=False)  # a socket cannot be opened by its path
        try:
            return Descriptor(path, "rb")
        except FileNotFoundError as error:
            raise OptionError(name, "no such file") from error


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise OptionError("<stdin>", "standard input is closed")
    if sys.stdin.isatty():
        raise OptionError(
            "<stdin>", "'-' reads standard input, which is a terminal", "pipe data into it"
        )
    with file_errors("<stdin>", "opening"):
        return Descriptor(sys.stdin.fileno(), "rb", closefd=False)
