"""Where bytes go: a file that is old or new but never half, a special file, standard output.

A plain file is written under a temporary name in the same folder, and renamed to its own name when
everything has succeeded. Devices and pipes are written in place: a rename would replace them.
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
from xentcli.errors import FileError, OptionError, Setting, visible
from xentcli.files.source import file_errors

if TYPE_CHECKING:
    from typing_extensions import Buffer

BUFFER = 1 << 20


class Writable(Protocol):
    """What a format needs to write to."""

    def write(self, data: Buffer, /) -> int:
        """Write the next bytes."""

    def flush(self) -> None:
        """Write what is buffered."""


class Sink:
    """One output; opening one that cannot be written is an error."""

    def __init__(self, path: str, *, no_clobber: bool = False, fsync: bool = False) -> None:
        if not path:
            raise OptionError("command line", "an output's name is empty")
        self.path = path
        self.name = "<stdout>" if path == "-" else visible(path)
        self._identity: tuple[int, int] | None = None
        self._temporary: Path | None = None
        self._backup: Path | None = None  # a second name of the file that is replaced
        self._replaced = False
        self._discarded = False
        self._target = Path(path)
        self._mode: int | None = None
        self._fsync = fsync
        self._no_clobber = no_clobber
        try:
            with self._errors():
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
            raise FileError(self.name, "is a folder")
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
        if state and self._no_clobber:
            raise self._exists()
        self._target = Path(os.path.realpath(self.path))  # a symlink stays, its target changes
        if state:
            self._mode, self._identity = stat.S_IMODE(state.st_mode), _identity(state)
        return self._open_temporary()

    def _open_temporary(self) -> IO[bytes]:
        folder = self._target.parent
        if not folder.is_dir():
            raise FileError(self.name, f"there is no folder {visible(str(folder))}")
        with signals.deferred():  # a signal must find the file listed
            number, name = tempfile.mkstemp(prefix=".xent-", suffix=".tmp", dir=folder)
            signals.temporary_files.add(name)
            self._temporary = Path(name)
        return os.fdopen(number, "wb", BUFFER)

    def _errors(self) -> AbstractContextManager[None]:
        return file_errors(self.name, "writing")

    def write(self, data: Buffer, /) -> int:
        """Write the next bytes; an error names this output."""
        if self._discarded:  # an archive that was not finished writes its end when it is freed
            return memoryview(data).nbytes
        with self._errors():
            return self._stream.write(data)

    def flush(self) -> None:
        """Write what is buffered; `zipfile` calls this."""
        with self._errors():
            self._stream.flush()

    def finish(self) -> None:
        """Write everything out; the target is still the old file."""
        self.flush()
        with self._errors():
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
        """Whether to wait for the disk: a crash of the machine must not lose a replaced file."""
        return self._fsync or self._mode is not None

    def is_at(self, path: str) -> bool:
        """Whether a path is that of this output, or leads to the same file."""
        leads_here = path != "-" and os.path.realpath(path) == str(self._target)
        return path == self.path or leads_here

    def shares_stream(self, other: Sink) -> bool:
        """Whether both are the same file or pipe, and one of them is written in place."""
        in_place = not (self.is_file and other.is_file)
        return in_place and self._identity is not None and self._identity == other._identity

    def would_overwrite(self, state: os.stat_result) -> bool:
        """Whether it is written in place into the plain file with this `os.stat`."""
        plain = stat.S_ISREG(state.st_mode)
        return plain and not self.is_file and self._identity == _identity(state)

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file, which is replaced at the end and not written in place."""
        return self._temporary is not None

    def back_up(self) -> None:
        """Give a file that will be replaced a second name, for `restore`."""
        if self._temporary and self._mode is not None:
            backup = self._temporary.with_name(f"{self._temporary.stem}-old.tmp")
            with suppress(OSError):  # a file system without hard links
                os.link(self._target, backup)
                signals.temporary_files.add(str(backup))
                self._backup = backup

    def replace_target(self) -> None:
        """Rename the temporary file to the target's name."""
        if self._temporary:
            with self._errors():
                self._rename(self._temporary)
            signals.temporary_files.discard(str(self._temporary))
            self._temporary = None

    def remove_backup(self) -> None:
        """All targets are replaced: remove the old file's second name, and wait for the disk."""
        with self._errors():
            if self._backup:
                self._backup.unlink()
                signals.temporary_files.discard(str(self._backup))
                self._backup = None
            if self._replaced and self._durable:
                _sync_folder(self._target.parent)

    def restore(self) -> None:
        """Another target cannot be replaced: put the old file back, or remove the new one."""
        with suppress(OSError):
            if self._replaced and self._backup:
                self._backup.replace(self._target)
            elif self._replaced and self._mode is None:
                self._target.unlink()

    def _rename(self, temporary: Path) -> None:
        if not self._no_clobber:
            temporary.replace(self._target)
            self._replaced = True
            return
        try:
            os.link(temporary, self._target)  # unlike a rename, it never replaces
        except FileExistsError as error:
            raise self._exists() from error
        except OSError:  # a file system without hard links
            if os.path.lexists(self._target):
                raise self._exists() from None
            temporary.replace(self._target)
            self._replaced = True
            return
        self._replaced = True
        temporary.unlink()

    def _exists(self) -> FileError:
        return FileError(self.name, ("already exists (", Setting("no_clobber", True), ")"))

    def discard(self) -> None:
        """Close the stream and remove the temporary files."""
        self._discarded = True
        with suppress(OSError):
            self._stream.close()
        self._remove()

    def _remove(self) -> None:
        for path in filter(None, (self._temporary, self._backup)):
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
    """Device and inode of a file or pipe; None for a character device, which may be shared."""
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
