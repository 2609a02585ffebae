"""Outputs that are folders: old or new but never half, as files are.

On this machine the folder is written under a temporary name beside its own, and exchanged with the
old one at once where the system can do that (Linux, macOS); elsewhere by two renames, between which
the name is free. At an address nothing can be renamed: there must be no array there before, and the
metadata, without which there is none, are written at the very end.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING

from xentcli import signals
from xentcli.errors import FileError, OptionError, Setting, XentError, visible
from xentcli.files.descriptor import file_errors
from xentcli.files.exchange import exchange, move
from xentcli.files.paths import is_address, local_path
from xentcli.files.permissions import Permissions
from xentcli.files.sink import Sink
from xentcli.files.store import LocalStore, RemoteStore, Store

if TYPE_CHECKING:
    from typing_extensions import Buffer

METADATA = ("zarr.json", ".zarray", ".zgroup")  # what makes a folder an array or a group


def open_folder(path: str, *, no_clobber: bool = False, fsync: bool = False) -> FolderSink:
    """The output at a path or an address."""
    if path in ("", "-"):
        what = "a folder of chunks cannot go to standard output; name one"
        raise OptionError("command line", what, ("with ", Setting("output"), " NAME.zarr"))
    if is_address(path):
        return RemoteSink(path)
    return LocalSink(path, no_clobber=no_clobber, fsync=fsync)


class FolderSink(Sink):
    """An output that is a folder: files are written to its `store`, and it has no bytes itself.

    `publish` writes the metadata, which make it an array.
    """

    is_file = True  # it is replaced at the end and not written in place
    was_moved = False

    def __init__(self, path: str, store: Store) -> None:
        self.path, self.name, self.store = path, visible(path), store
        self._identity = None

    def write(self, data: Buffer, /) -> int:
        """An error: a folder has no bytes."""
        raise OptionError(self.name, "is a folder of chunks, which only an array can be written to")

    def flush(self) -> None:
        """Nothing is buffered."""

    def publish(self, key: str, data: bytes) -> None:
        """Write the metadata."""
        self.store.write(key, data)

    def is_at(self, path: str) -> bool:
        """Whether a path is that of this output."""
        return path == self.path

    def would_overwrite(self, path: str, state: os.stat_result) -> bool:
        """Whether it replaces the folder at a path, or one that holds it."""
        return False

    def finish(self) -> None:
        """Write everything out; the target is still the old folder."""

    def back_up(self) -> None:
        """Nothing: the old folder is there until `remove_backup`."""

    def replace_target(self) -> None:
        """Put the folder in its place."""

    def remove_backup(self) -> None:
        """All targets are replaced: remove the old folder."""

    def restore(self) -> None:
        """Another target cannot be replaced: put the old folder back, or remove the new one."""

    def discard(self) -> None:
        """Remove what is temporary."""


class LocalSink(FolderSink):
    """A folder on this machine."""

    def __init__(self, path: str, *, no_clobber: bool, fsync: bool) -> None:
        self._target = os.path.realpath(local_path(path))  # a symlink stays, its target changes
        self._no_clobber, self._fsync = no_clobber, fsync
        super().__init__(path, LocalStore(self._target))
        self._old = self._checked()
        parent = os.path.dirname(self._target)  # noqa: PTH120 (Path would change the name)
        name = f".xent-{os.urandom(6).hex()}.tmp"
        self._temporary = os.path.join(parent, name)  # noqa: PTH118 (likewise)
        self._replaced = False
        self.store = LocalStore(self._temporary, self.name)
        with file_errors(self.name, "writing"), signals.deferred():
            os.mkdir(self._temporary)  # noqa: PTH102 (likewise)
            signals.temporary_folders.add(self._temporary)

    def would_overwrite(self, path: str, state: os.stat_result) -> bool:
        """Whether it replaces the folder at a path, or one that holds it."""
        real = PurePath(os.path.realpath(path))
        return path != "-" and PurePath(self._target) in (real, *real.parents)

    def _checked(self) -> Permissions | None:
        """The permissions of the array that is there; an error for what must not be replaced."""
        parent = os.path.dirname(self._target)  # noqa: PTH120 (Path would change the name)
        if not os.path.isdir(parent):  # noqa: PTH112 (likewise)
            raise FileError(self.name, f"there is no folder {visible(parent)}")
        with file_errors(self.name, "opening"):
            try:
                state = os.stat(self._target)  # noqa: PTH116 (likewise)
            except FileNotFoundError:
                return None
            if self._no_clobber:
                raise self._exists()
            if not stat.S_ISDIR(state.st_mode):
                raise FileError(self.name, "is a file, and not a folder of chunks")
            held = set(os.listdir(self._target))  # noqa: PTH208 (likewise)
            if held and not self._is_array(held):
                what = "is a folder that holds something else than one array; it is not replaced"
                raise FileError(self.name, what, "give another name, or remove it first")
            return Permissions.of(self._target, state)

    def _is_array(self, held: set[str]) -> bool:
        if METADATA[1] in held:
            return True
        with suppress(ValueError, AttributeError, RecursionError):
            found = json.loads(LocalStore(self._target).read(METADATA[0]) or b"{}")
            return bool(found.get("node_type") == "array")
        return False

    def _exists(self) -> FileError:
        return FileError(self.name, ("already exists (", Setting("no_clobber", True), ")"))

    def is_at(self, path: str) -> bool:
        """Whether a path is that of this output, or leads to the same folder."""
        return path == self.path or os.path.realpath(local_path(path)) == self._target

    def finish(self) -> None:
        """Give it the permissions of the old folder, and wait for the disk."""
        with file_errors(self.name, "writing"):
            if self._old and os.name == "posix":
                number = os.open(self._temporary, os.O_RDONLY)
                try:
                    os.fchmod(number, self._old.keep(number))
                finally:
                    os.close(number)
            if self._old or self._fsync:
                _sync(self._temporary)

    def replace_target(self) -> None:
        """Exchange it with the old folder, which then has the temporary name."""
        with file_errors(self.name, "writing"):
            try:
                if self._old and os.path.isdir(self._target):  # noqa: PTH112 (Path would change the name)
                    exchange(self._temporary, self._target)
                else:
                    move(self._temporary, self._target)
                    signals.temporary_folders.discard(self._temporary)
            except FileExistsError as error:
                raise self._exists() if self._no_clobber else error from error
            self._replaced = True

    def restore(self) -> None:
        """Put the old folder back, or remove the new one."""
        if not self._replaced:
            return
        with suppress(OSError):
            if self._old:
                exchange(self._temporary, self._target)
            else:
                signals.remove_folder(self._target)

    def discard(self) -> None:
        """Remove what has the temporary name: the old folder, or a new one that failed."""
        signals.remove_folder(self._temporary)
        signals.temporary_folders.discard(self._temporary)


class RemoteSink(FolderSink):
    """A folder at an address; the metadata are held back until all outputs are complete."""

    def __init__(self, path: str) -> None:
        self._remote = RemoteStore(path)
        super().__init__(path, self._remote)
        self._metadata: dict[str, bytes] = {}
        self._published = False
        if any(self.store.exists(name) for name in METADATA):
            what = "is there already; at an address an array cannot be replaced at once"
            raise FileError(self.name, what, "remove it first, or give another name")

    def publish(self, key: str, data: bytes) -> None:
        """Keep the metadata for the end."""
        self._metadata[key] = data

    def replace_target(self) -> None:
        """Write the metadata: the array is there from now on."""
        for key, data in self._metadata.items():
            self.store.write(key, data)
        self._published = True

    def restore(self) -> None:
        """Remove the array."""
        self._published = False

    def discard(self) -> None:
        """Remove the chunks of an array that is not complete."""
        if not self._published:
            with suppress(XentError):  # the first error counts; without metadata it is no array
                self._remote.remove()


def _sync(top: str) -> None:
    """Wait until all files of a folder are on the disk."""
    for folder, _, names in os.walk(top):
        for name in [*names, "."]:
            path = os.path.join(folder, name)  # noqa: PTH118 (Path would change the name)
            if name == "." and os.name != "posix":
                continue  # Windows has no way to open a folder for this
            number = os.open(path, os.O_RDONLY if name == "." else os.O_RDWR)
            try:
                os.fsync(number)
            finally:
                os.close(number)
