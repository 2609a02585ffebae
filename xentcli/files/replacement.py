"""The new version of a plain file, under a temporary name until it is complete.

The temporary file is in the same folder as its target, and everything is done relative to the
folder's descriptor, where the platform has that: a folder that is renamed meanwhile is still the
same folder. Without it (Windows) names are looked up by their paths.
"""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress

from xentcli import signals
from xentcli.files.descriptor import Descriptor
from xentcli.files.permissions import Permissions

BUFFER = 1 << 20
HAS_DIR_FD = {os.open, os.unlink, os.rename, os.link, os.stat} <= os.supports_dir_fd


class Folder:
    """The folder of an output, held open: permission to list it is not needed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._number: int | None = None
        if HAS_DIR_FD:
            how = getattr(os, "O_PATH", os.O_RDONLY)  # Linux opens what may only be passed through
            with suppress(PermissionError):
                self._number = os.open(path, how | os.O_DIRECTORY)

    def at(self, name: str) -> tuple[str, int | None]:
        """A file in the folder, as a path and the descriptor that the path is relative to."""
        if self._number is None:
            return os.path.join(self.path, name), None  # noqa: PTH118 (Path would change the name)
        return name, self._number

    def create(self, name: str) -> int:
        """Create a private file that must not be there, and register it for removal."""
        path, folder = self.at(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with signals.deferred():  # a signal must find the file listed
            number = os.open(path, flags, 0o600, dir_fd=folder)
            signals.temporary_files.add((path, folder))
        return number

    def replace(self, old: str, new: str) -> None:
        """Rename a file; whatever had the new name is gone."""
        (source, folder), (target, _) = self.at(old), self.at(new)
        os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name; an error if something has that name."""
        (source, folder), (target, _) = self.at(old), self.at(new)
        os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder)

    def unlink(self, name: str) -> None:
        """Remove a file, which is no temporary any more."""
        path, folder = self.at(name)
        os.unlink(path, dir_fd=folder)
        signals.temporary_files.discard((path, folder))

    def exists(self, name: str) -> bool:
        """Whether something has that name."""
        path, folder = self.at(name)
        try:
            os.stat(path, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Wait until names are on the disk; a folder that may not be read cannot be waited for."""
        if os.name != "posix":
            return  # Windows has no way to open a folder for this
        path, folder = self.at(".")
        try:
            number = os.open(path, os.O_RDONLY, dir_fd=folder)
        except PermissionError:
            return
        try:
            os.fsync(number)
        finally:
            os.close(number)

    @property
    def was_moved(self) -> bool:
        """Whether its path leads to it no more."""
        if self._number is None:
            return False
        try:
            there, here = os.stat(self.path), os.fstat(self._number)  # noqa: PTH116 (Path would change the name)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def close(self) -> None:
        """Release the descriptor."""
        if self._number is not None:
            number, self._number = self._number, None
            with suppress(OSError):  # nothing was written to it
                os.close(number)


class Replacement:
    """A file that takes its target's name at the end; `old` is the file that is there."""

    def __init__(self, target: str, old: Permissions | None) -> None:
        path, self._name = os.path.split(target)
        self.old = old
        self.was_moved = False
        self._folder = Folder(path)
        self._temporary: str | None = f".xent-{os.urandom(6).hex()}.tmp"
        self._backup: str | None = None  # a second name of the file that is replaced
        self._replaced = False
        try:
            number = self._folder.create(self._temporary)
            self.stream = io.BufferedWriter(Descriptor(number, "wb"), BUFFER)
        except BaseException:
            self.remove()
            raise

    @property
    def path(self) -> str:
        """Where the unfinished file is."""
        assert self._temporary
        return os.path.join(self._folder.path, self._temporary)  # noqa: PTH118 (Path would change the name)

    def set_permissions(self) -> None:
        """Those of the old file, if possible; for a new one the mode that the umask leaves."""
        if self.old is not None:
            self._chmod(self.old.keep(self.stream.fileno()))
            return
        with suppress(PermissionError):  # FAT has no modes; the temporary's is private
            self._chmod(_new_mode())

    def _chmod(self, mode: int) -> None:
        assert self._temporary
        by_number = os.chmod in os.supports_fd  # not on Windows
        file = self.stream.fileno() if by_number else self._folder.at(self._temporary)[0]
        os.chmod(file, mode)  # noqa: PTH101 (Path has no descriptors)

    def back_up(self) -> None:
        """Give a file that will be replaced a second name, for `restore`."""
        if self.old is None or self._temporary is None:
            return
        backup = f"{self._temporary.removesuffix('.tmp')}-old.tmp"
        with suppress(OSError):  # a file system without hard links
            self._folder.link(self._name, backup)
            signals.temporary_files.add(self._folder.at(backup))
            self._backup = backup

    def replace_target(self, *, no_clobber: bool) -> None:
        """Rename the temporary file to the target's name; FileExistsError with `no_clobber`."""
        assert self._temporary
        temporary = self._temporary
        if not (no_clobber and self._linked(temporary)):
            self._folder.replace(temporary, self._name)
            signals.temporary_files.discard(self._folder.at(temporary))
            self._replaced = True
        self._temporary = None
        self.was_moved = self._folder.was_moved

    def _linked(self, temporary: str) -> bool:
        """Give the file its name by a link, which, unlike a rename, never replaces."""
        try:
            self._folder.link(temporary, self._name)
        except FileExistsError:
            raise
        except OSError as error:  # a file system without hard links
            if self._folder.exists(self._name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            return False
        self._replaced = True
        self._folder.unlink(temporary)
        return True

    def remove_backup(self) -> None:
        """Remove the old file's second name."""
        if self._backup:
            self._folder.unlink(self._backup)
            self._backup = None

    def sync(self) -> None:
        """Wait until the new name is on the disk."""
        if self._replaced:
            self._folder.sync()

    def restore(self) -> None:
        """Another target cannot be replaced: put the old file back, or remove the new one."""
        with suppress(OSError):
            if self._replaced and self._backup:
                self._folder.replace(self._backup, self._name)
            elif self._replaced and self.old is None:
                self._folder.unlink(self._name)

    def remove(self) -> None:
        """Remove what is left of the temporary files."""
        for name in filter(None, (self._temporary, self._backup)):
            with suppress(OSError):
                self._folder.unlink(name)
            signals.temporary_files.discard(self._folder.at(name))
        self._folder.close()


def _new_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
