"""Where bytes go: a file that is old or new but never half, a special file, standard output.

A plain file is written beside its destination under a temporary name, and renamed over it when
everything has succeeded. Devices and pipes are written to as they are: a rename would replace
them.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from xentcli import cleanup
from xentcli.errors import FileError, OptionError, visible
from xentcli.formats.source import named

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
        self._temporary: Path | None = None
        self._old: Path | None = None  # another name of the file that is replaced
        self._placed = False
        self._target = Path(path)
        self._mode: int | None = None
        self._fsync = fsync
        self._keep = no_clobber
        try:
            with self._named():
                self._stream = self._stdout() if path == "-" else self._file()
        except BaseException:
            self._remove()
            raise

    @staticmethod
    def _stdout() -> IO[bytes]:
        if sys.stdout is None:
            raise FileError("<stdout>", "standard output is closed")
        raw = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
        return io.BufferedWriter(raw, BUFFER)

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
        self._mode = stat.S_IMODE(state.st_mode) if state else None
        return self._beside()

    def _beside(self) -> IO[bytes]:
        folder = self._target.parent
        if not folder.is_dir():
            raise FileError(self.name, f"there is no folder {visible(str(folder))}")
        with cleanup.held():  # no moment at which the file is there and not listed
            number, name = tempfile.mkstemp(prefix=".xent-", suffix=".tmp", dir=folder)
            cleanup.temporaries.add(name)
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
                cleanup.temporaries.add(str(old))
                self._old = old

    def place(self) -> None:
        """Put the new file in the old one's place."""
        if self._temporary:
            with self._named():
                self._put(self._temporary)
            cleanup.temporaries.discard(str(self._temporary))
            self._temporary = None

    def settle(self) -> None:
        """All are placed: the old file is not needed any more, and the new name is kept."""
        with self._named():
            if self._old:
                self._old.unlink()
                cleanup.temporaries.discard(str(self._old))
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
            cleanup.temporaries.discard(str(path))


class Outputs:
    """All destinations of one command: every one is new afterwards, or none."""

    def __init__(self, *, no_clobber: bool = False, fsync: bool = False) -> None:
        self._how: dict[str, Any] = {"no_clobber": no_clobber, "fsync": fsync}
        self._sinks: list[Sink] = []

    def __enter__(self) -> Outputs:
        return self

    def open(self, path: str) -> Sink:
        """Another destination; the same one twice is an error."""
        for sink in self._sinks:
            if sink.path == path or (path != "-" and os.path.realpath(path) == str(sink._target)):
                raise OptionError(visible(path), "is named as output twice")
        sink = Sink(path, **self._how)
        self._sinks.append(sink)
        return sink

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                for sink in self._sinks:
                    sink.finish()
                with cleanup.held():
                    self._place()
        finally:
            for sink in self._sinks:
                sink.discard()

    def _place(self) -> None:
        if sum(sink.is_file for sink in self._sinks) > 1:
            for sink in self._sinks:
                sink.keep_old()
        try:
            for sink in self._sinks:
                sink.place()
        except BaseException:
            for sink in self._sinks:
                sink.restore()
            raise
        for sink in self._sinks:
            sink.settle()


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
