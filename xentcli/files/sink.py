"""Where bytes go: a file that is old or new but never half, a special file, standard output.

A plain file is written beside its destination under a temporary name, and renamed over it when
everything has succeeded. Devices and pipes are written to as they are: a rename would replace
them.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from xentcli import signals
from xentcli.errors import FileError, OptionError, visible
from xentcli.files.source import named

if TYPE_CHECKING:
    from typing_extensions import Buffer

BUFFER = 1 << 20


class Writable(Protocol):
    """What formats need of a destination."""

    def write(self, data: Buffer, /) -> int:
        """Take the next bytes."""

    def flush(self) -> None:
        """Hand on what is waiting."""


class Sink:
    """One destination; opening it shows at once whether it can be written."""

    def __init__(self, path: str, *, no_clobber: bool = False, fsync: bool = False) -> None:
        if not path:
            raise OptionError("command line", "an output's name is empty")
        self.path = path
        self.name = "<stdout>" if path == "-" else visible(path)
        self._identity: tuple[int, int] | None = None
        self._temporary: Path | None = None
        self._old: Path | None = None  # another name of the file that is replaced
        self._placed = False
        self._target = Path(path)
        self._mode: int | None = None
        self._fsync = fsync
        self._keep = no_clobber
        try:
            with self._named():
                self._stream = self._open()
                if not self._temporary:
                    self._identity = _identity(os.fstat(self._stream.fileno()))
        except BaseException:
            self._remove()
            raise

    def _open(self) -> IO[bytes]:
        if self.path == "-" and sys.stdout is None:
            raise FileError("<stdout>", "standard output is closed")
        number = 1 if self.path == "-" else _descriptor(self.path)
        if number is None:
            return self._file()
        return io.BufferedWriter(io.FileIO(number, "wb", closefd=False), BUFFER)

    def _file(self) -> IO[bytes]:
        if self.path.endswith(os.sep):
            raise FileError(self.name, "is the name of a folder")
        try:
            state = self._target.stat()
        except FileNotFoundError:
            state = None
        if state and stat.S_ISDIR(state.st_mode):
            raise FileError(self.name, "is a folder")
        if state and not os.access(self.path, os.W_OK):
            raise FileError(self.name, "is read-only")
        if state and not stat.S_ISREG(state.st_mode):
            return self._target.open("wb", BUFFER)
        if state and self._keep:
            raise self._exists()
        self._target = Path(os.path.realpath(self.path))  # a symlink stays, its target changes
        if state:
            self._mode, self._identity = stat.S_IMODE(state.st_mode), _identity(state)
        return self._beside()

    def _beside(self) -> IO[bytes]:
        folder = self._target.parent
        if not folder.is_dir():
            raise FileError(self.name, f"there is no folder {visible(str(folder))}")
        with signals.deferred():  # no moment at which the file is there and not listed
            number, name = tempfile.mkstemp(prefix=".xent-", suffix=".tmp", dir=folder)
            signals.temporary_files.add(name)
            self._temporary = Path(name)
        return os.fdopen(number, "wb", BUFFER)

    def _named(self) -> AbstractContextManager[None]:
        return named(self.name, "writing")

    def write(self, data: Buffer, /) -> int:
        """Take the next bytes; an error names this destination."""
        with self._named():
            return self._stream.write(data)

    def flush(self) -> None:
        """Hand on what is waiting in the buffer; `zipfile` asks for it."""
        with self._named():
            self._stream.flush()

    def finish(self) -> None:
        """Everything is on its way to the disk; the destination is still the old one."""
        self.flush()
        with self._named():
            if self._temporary:
                self._set_mode(self._temporary)
                if self._durable:
                    os.fsync(self._stream.fileno())
            self._stream.close()

    def _set_mode(self, temporary: Path) -> None:
        if self._mode is not None:
            temporary.chmod(self._mode)
            return
        with suppress(PermissionError):  # FAT has no modes; the temporary's is private
            temporary.chmod(_new_mode())

    @property
    def _durable(self) -> bool:
        """A file that is replaced must not be lost in a crash of the machine."""
        return self._fsync or self._mode is not None

    def is_called(self, path: str) -> bool:
        """Whether a path is this one's, or leads to the same place."""
        leads_here = path != "-" and os.path.realpath(path) == str(self._target)
        return path == self.path or leads_here

    def same(self, other: Sink) -> bool:
        """Whether one is written in place into the file or pipe that the other is too."""
        in_place = not (self.is_file and other.is_file)
        return in_place and self._identity is not None and self._identity == other._identity

    def spoils(self, state: os.stat_result) -> bool:
        """Whether it is written in place into this plain file."""
        plain = stat.S_ISREG(state.st_mode)
        return plain and not self.is_file and self._identity == _identity(state)

    @property
    def is_file(self) -> bool:
        """Whether it is replaced at the end, and nothing is written in place."""
        return self._temporary is not None

    def keep_old(self) -> None:
        """Give a file that will be replaced a second name, to have it back if others fail."""
        if self._temporary and self._mode is not None:
            old = self._temporary.with_name(f"{self._temporary.stem}-old.tmp")
            with suppress(OSError):  # a file system without hard links
                os.link(self._target, old)
                signals.temporary_files.add(str(old))
                self._old = old

    def place(self) -> None:
        """Put the new file in the old one's place."""
        if self._temporary:
            with self._named():
                self._put(self._temporary)
            signals.temporary_files.discard(str(self._temporary))
            self._temporary = None

    def settle(self) -> None:
        """All are placed: the old file is not needed any more, and the new name is kept."""
        with self._named():
            if self._old:
                self._old.unlink()
                signals.temporary_files.discard(str(self._old))
                self._old = None
            if self._placed and self._durable:
                _sync_folder(self._target.parent)

    def restore(self) -> None:
        """Another destination cannot be placed: this one becomes what it was."""
        with suppress(OSError):
            if self._placed and self._old:
                self._old.replace(self._target)
            elif self._placed and self._mode is None:
                self._target.unlink()

    def _put(self, temporary: Path) -> None:
        if not self._keep:
            temporary.replace(self._target)
            self._placed = True
            return
        try:
            os.link(temporary, self._target)  # unlike a rename, it never replaces
        except FileExistsError as error:
            raise self._exists() from error
        except OSError:  # a file system without hard links
            if os.path.lexists(self._target):
                raise self._exists() from None
            temporary.replace(self._target)
            self._placed = True
            return
        self._placed = True
        temporary.unlink()

    def _exists(self) -> FileError:
        return FileError(self.name, "exists, and --no-clobber keeps it")

    def discard(self) -> None:
        """Leave no trace."""
        with suppress(OSError):
            self._stream.close()
        self._remove()

    def _remove(self) -> None:
        for path in filter(None, (self._temporary, self._old)):
            with suppress(OSError):
                path.unlink()
            signals.temporary_files.discard(str(path))


def _descriptor(path: str) -> int | None:
    """The number of the open file that a path like /dev/fd/3 is.

    To open the path would begin at the start of that file, and a rename would replace it: what
    others have written there before would be lost.
    """
    if path in ("/dev/stdout", "/dev/stderr"):
        return 1 if path == "/dev/stdout" else 2
    match = re.fullmatch(r"(?:/dev|/proc/self)/fd/([0-9]{1,9})", path)
    return int(match[1]) if match and os.name == "posix" else None


def _identity(state: os.stat_result) -> tuple[int, int] | None:
    """What is equal for two names of one file or pipe; None for a device, which may be shared."""
    return None if stat.S_ISCHR(state.st_mode) else (state.st_dev, state.st_ino)


def _new_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows has no way to open a folder for this
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
