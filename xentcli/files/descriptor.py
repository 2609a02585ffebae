"""Open files by their descriptors: every read and write of xent goes through here and waits.

Node, ssh and asyncio leave the pipes and sockets of their children non-blocking. There a read that
finds nothing yet is not the end, and a write that finds no room is not an error.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from xentcli.errors import FileError

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 1 << 20
LINKS = 40  # that are followed, as many as Linux does
PAUSE = 0.01  # seconds, where the system cannot wait


class Descriptor(io.FileIO):
    """An open file that waits for data or room, whether its descriptor is blocking or not."""

    def readinto(self, buffer: Buffer, /) -> int:
        """Read the next bytes into a buffer; 0 only at the end."""
        while (count := super().readinto(buffer)) is None:
            _wait(self.fileno(), "POLLIN")
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` of the next bytes; none only at the end."""
        if size is None or size < 0:
            return self.readall()
        while (data := super().read(size)) is None:
            _wait(self.fileno(), "POLLIN")
        return data

    def readall(self) -> bytes:
        """Everything up to the end."""
        return b"".join(iter(lambda: self.read(CHUNK), b""))

    def write(self, data: Buffer, /) -> int:
        """Write some of the bytes, at least one; returns how many."""
        while (count := super().write(data)) is None:
            _wait(self.fileno(), "POLLOUT")
        return count


def _wait(number: int, event: str) -> None:
    """Wait until a descriptor can be read or written."""
    if not hasattr(select, "poll"):
        time.sleep(PAUSE)
        return
    poll = select.poll()
    poll.register(number, getattr(select, event))
    if any(found & select.POLLNVAL for _, found in poll.poll()):
        time.sleep(PAUSE)  # macOS cannot poll a terminal


@contextmanager
def file_errors(where: str, doing: str) -> Iterator[None]:
    """Turn an OSError into a FileError that names the file.

    A BrokenPipeError stays what it is: it ends the command without a message.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(where, f"{doing} failed: {error.strerror or error}") from error


def reserve_standard_streams() -> None:
    """Give a closed descriptor 0, 1 or 2 to the null device, so that no other file gets its number.

    It is opened the wrong way round: to use it is an error, as it is for a closed one.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):  # it stays closed
                os.open(os.devnull, mode)  # the lowest number that is free is this one


def descriptor_of(path: str) -> int | None:
    """The number of this process's open file that a path leads to, as /dev/stdout does, or a link.

    To open such a path would begin at the start of that file, and a rename would replace it: what
    others have written there before would be lost.
    """
    if os.name != "posix":
        return None
    own = re.escape(os.path.realpath("/proc/self"))
    for _ in range(LINKS):
        folder, name = os.path.split(path)
        place = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 (Path would change the name)
        if match := re.fullmatch(rf"(?:/dev/fd|{own}(?:/task/[0-9]+)?/fd)/([0-9]{{1,9}})", place):
            return int(match[1])
        try:
            path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118 (Path would change the name)
        except OSError:  # no link
            return None
    return None


def standard_stream_of(path: str) -> int | None:
    """1 or 2 where standard output or error is the plain file or pipe at a path, else None."""
    with suppress(OSError, ValueError):  # opening it will say why
        identity = identity_of(os.stat(path))  # noqa: PTH116 (Path would change the name)
        for number in (1, 2):
            if identity and identity == identity_of(os.fstat(number)) and is_writable(number):
                return number
    return None


def is_writable(number: int) -> bool:
    """Whether an open descriptor can be written to."""
    try:
        import fcntl
    except ImportError:  # Windows, where writing will tell
        return True
    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def require_writable(number: int) -> None:
    """The error that writing to a descriptor would give, before any work is done for it."""
    if not is_writable(number):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def identity_of(state: os.stat_result) -> tuple[int, int] | None:
    """Device and inode of a file or pipe; None for a character device, which may be shared."""
    return None if stat.S_ISCHR(state.st_mode) else (state.st_dev, state.st_ino)
