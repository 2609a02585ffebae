"""A folder that nobody else can write to: opened, and then used by its descriptor only.

What is read here is run. So each folder from the root down to this one must belong to the user or
to root, and be writable by nobody else, as OpenSSH demands for its keys. They are opened one by
one, each relative to the one before and not through links, and what was opened is checked: it does
not matter who exchanges a folder in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xentcli.signals import temporary_files

LARGEST = 1 << 26  # bytes of a file that is read

# Folders that may be searched and not listed are opened too, where the system has a flag for it.
_FOLDER = (
    getattr(os, "O_PATH", os.O_RDONLY)
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BY_DESCRIPTOR = os.name == "posix"


class UntrustedError(Exception):
    """Somebody else could write here; the message says what, and how to change it."""


class DamagedError(Exception):
    """Something is here that is no file, or cannot be read."""


class PrivateFolder:
    """An open folder; on Windows its name, as folders of a user are private there."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path, self._descriptor = path, descriptor

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else str(self._path / name)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a file in the folder, which is closed when the process runs another."""
        return os.open(self._at(name), flags | _FILE, mode, dir_fd=self._descriptor)

    def read(self, name: str) -> bytes | None:
        """A whole file, or None if there is none."""
        try:
            descriptor = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedError(error.strerror) from error
        try:
            _require_regular(os.fstat(descriptor))
            return _all_of(descriptor)
        except OSError as error:
            raise DamagedError(error.strerror) from error
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which replaces an old one as a whole."""
        with self._temporary(name, data) as temporary:
            self._replace(temporary, name)

    def require_room(self, size: int) -> None:
        """An OSError if no file of this size can be written."""
        with self._temporary("room", bytes(size)):
            pass

    @contextmanager
    def _temporary(self, name: str, data: bytes) -> Iterator[str]:
        """A new file; afterwards it is gone, also after signals and errors."""
        temporary = f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
        found = self._at(temporary), self._descriptor
        temporary_files.add(found)
        try:
            _fill(self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), data)
            yield temporary
        finally:
            with suppress(OSError):  # usually it is renamed
                os.unlink(found[0], dir_fd=found[1])
            temporary_files.discard(found)

    def _replace(self, temporary: str, name: str) -> None:
        at = self._descriptor
        try:
            os.replace(self._at(temporary), self._at(name), src_dir_fd=at, dst_dir_fd=at)
        except IsADirectoryError:
            os.rmdir(self._at(name), dir_fd=at)
            os.replace(self._at(temporary), self._at(name), src_dir_fd=at, dst_dir_fd=at)


def _fill(descriptor: int, data: bytes) -> None:
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def _all_of(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(LARGEST + 1)


def _require_regular(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise DamagedError("not a regular file")
    if _BY_DESCRIPTOR:
        try:
            require_private(state, "a file")
        except UntrustedError as error:
            raise DamagedError(str(error)) from error


def require_private(state: os.stat_result, what: str, sticky: bool = False) -> None:
    """An error if somebody but the user and root owns this, or may write to it.

    With `sticky`, all may write to it if nobody may remove what others have there, as in /tmp.
    """
    if state.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"{what} belongs to another user")
    if state.st_mode & 0o022 and not (sticky and state.st_mode & stat.S_ISVTX):
        raise UntrustedError(f"others may write to {what}; chmod go-w forbids it")


@contextmanager
def open_private(path: Path, create: bool = False) -> Iterator[PrivateFolder]:
    """Open a folder; `create` makes it, and those around it, with mode 0700."""
    if not _BY_DESCRIPTOR:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        yield PrivateFolder(path, None)
        return
    descriptor = _open_chain(Path(os.path.realpath(path)), create)
    try:
        yield PrivateFolder(path, descriptor)
    finally:
        os.close(descriptor)


def _open_chain(path: Path, create: bool) -> int:
    """A descriptor of a folder; `path` has no links, unless one was put there since."""
    descriptor = os.open(path.anchor, _FOLDER)
    try:
        require_private(os.fstat(descriptor), path.anchor, sticky=True)
        for depth, name in enumerate(path.parts[1:], 2):
            inner = _open_inside(descriptor, name, create)
            os.close(descriptor)
            descriptor = inner
            last = depth == len(path.parts)
            require_private(os.fstat(descriptor), str(Path(*path.parts[:depth])), sticky=not last)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_inside(descriptor: int, name: str, create: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=descriptor)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=descriptor)
    return os.open(name, _FOLDER, dir_fd=descriptor)
