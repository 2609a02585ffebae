"""Where bytes go: a file that is old or new but never half, a special file, standard output.

A plain file is written under a temporary name in the same folder, and renamed to its own name when
everything has succeeded. Devices, pipes and what is open already are written in place: a rename
would replace them.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import AbstractContextManager, suppress
from typing import IO, TYPE_CHECKING, Protocol

from xentcli.errors import FileError, OptionError, Setting, visible
from xentcli.files.descriptor import (
    Descriptor,
    descriptor_of,
    file_errors,
    identity_of,
    is_writable,
    require_writable,
    standard_stream_of,
)
from xentcli.files.permissions import Permissions
from xentcli.files.replacement import BUFFER, Replacement

if TYPE_CHECKING:
    from typing_extensions import Buffer


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
        self._replacement: Replacement | None = None
        self._discarded = False
        self._target = path
        self._fsync = fsync
        self._no_clobber = no_clobber
        try:
            with self._errors():
                self._stream = self._open()
                if not self._replacement:
                    self._identity = identity_of(os.fstat(self._stream.fileno()))
        except BaseException:
            self._remove()
            raise

    def _open(self) -> IO[bytes]:
        if self.path == "-":
            if sys.stdout is None or not is_writable(1):
                raise FileError("<stdout>", "standard output is closed")
            return self._in_place(1)
        number = descriptor_of(self.path)
        if number is None:
            number = standard_stream_of(self.path)
        return self._file() if number is None else self._in_place(number)

    def _in_place(self, number: int) -> IO[bytes]:
        require_writable(number)
        return io.BufferedWriter(Descriptor(number, "wb", closefd=False), BUFFER)

    def _file(self) -> IO[bytes]:
        if self.path.endswith(os.sep):
            raise FileError(self.name, "is a folder")
        try:
            state = os.stat(self.path)  # noqa: PTH116 (Path would change the name)
        except FileNotFoundError:
            state = None
        if state and stat.S_ISDIR(state.st_mode):
            raise FileError(self.name, "is a folder")
        if state and not os.access(self.path, os.W_OK):
            raise FileError(self.name, "is read-only")
        if state and not stat.S_ISREG(state.st_mode):
            return io.BufferedWriter(Descriptor(self.path, "wb"), BUFFER)
        if state and self._no_clobber:
            raise self._exists()
        self._target = os.path.realpath(self.path)  # a symlink stays, its target changes
        folder = os.path.dirname(self._target)  # noqa: PTH120 (Path would change the name)
        if not os.path.isdir(folder):  # noqa: PTH112 (likewise)
            raise FileError(self.name, f"there is no folder {visible(folder)}")
        old = None
        if state:
            self._identity = identity_of(state)
            old = Permissions.of(self._target, state)
        self._replacement = Replacement(self._target, old)
        return self._replacement.stream

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

    def reserve(self, nbytes: int) -> tuple[str, int]:
        """Make room for so many bytes, which others write: the path of the file, and where."""
        assert self._replacement
        self.flush()
        with self._errors():
            offset = self._stream.tell()
            self._stream.truncate(offset + nbytes)
        return self._replacement.path, offset

    def finish(self) -> None:
        """Write everything out; the target is still the old file."""
        self.flush()
        with self._errors():
            if self._replacement:
                self._replacement.set_permissions()
                if self._is_durable:
                    os.fsync(self._stream.fileno())
            self._stream.close()

    @property
    def _is_durable(self) -> bool:
        """Whether to wait for the disk: a crash of the machine must not lose a replaced file."""
        return self._fsync or bool(self._replacement and self._replacement.old)

    def is_at(self, path: str) -> bool:
        """Whether a path is that of this output, or leads to the same file."""
        leads_here = path != "-" and os.path.realpath(path) == self._target
        return path == self.path or leads_here

    def shares_stream(self, other: Sink) -> bool:
        """Whether both are the same file or pipe, and one of them is written in place."""
        in_place = not (self.is_file and other.is_file)
        return in_place and self._identity is not None and self._identity == other._identity

    def would_overwrite(self, path: str, state: os.stat_result) -> bool:
        """Whether it replaces the plain file at a path, or is written into it; its `os.stat`."""
        return stat.S_ISREG(state.st_mode) and self._identity == identity_of(state)

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file, which is replaced at the end and not written in place."""
        return self._replacement is not None

    @property
    def was_moved(self) -> bool:
        """Whether the file is in a folder that was renamed while it was written."""
        return self._replacement is not None and self._replacement.was_moved

    def back_up(self) -> None:
        """Give a file that will be replaced a second name, for `restore`."""
        if self._replacement:
            self._replacement.back_up()

    def replace_target(self) -> None:
        """Rename the temporary file to the target's name."""
        if self._replacement:
            with self._errors():
                try:
                    self._replacement.replace_target(no_clobber=self._no_clobber)
                except FileExistsError as error:
                    if self._no_clobber:
                        raise self._exists() from error
                    raise

    def remove_backup(self) -> None:
        """All targets are replaced: remove the old file's second name, and wait for the disk."""
        if self._replacement:
            with self._errors():
                self._replacement.remove_backup()
                if self._is_durable:
                    self._replacement.sync()

    def restore(self) -> None:
        """Another target cannot be replaced: put the old file back, or remove the new one."""
        if self._replacement:
            self._replacement.restore()

    def _exists(self) -> FileError:
        return FileError(self.name, ("already exists (", Setting("no_clobber", True), ")"))

    def discard(self) -> None:
        """Close the stream and remove the temporary files."""
        self._discarded = True
        with suppress(OSError):
            self._stream.close()
        self._remove()

    def _remove(self) -> None:
        if self._replacement:
            self._replacement.remove()
