"""Folders of files, on this machine or at an address that fsspec opens, such as s3://bucket/x.

Files are small or are read in parts; a key is the path of one, relative to the folder.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

from xentcli.errors import FileError, OptionError, UnavailableError, XentError, reason, visible
from xentcli.files.descriptor import Descriptor, file_errors
from xentcli.files.paths import is_address, local_path, secrets_of
from xentcli.files.source import Source

if TYPE_CHECKING:
    from typing_extensions import Buffer

State: TypeAlias = "tuple[int, int]"
NO_STATE = (0, 0)
MAX_FILE = 100_000_000  # bytes of a file that is read whole


class Store(Protocol):
    """A folder."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def place(self) -> str:
        """Its path or address."""

    def read(self, key: str) -> bytes | None:
        """A whole file; None if it is not there."""

    def exists(self, key: str) -> bool:
        """Whether a file is there."""

    def folders(self, key: str) -> list[str]:
        """The names of the folders in a folder."""

    def files(self, key: str, depth: int) -> Iterable[tuple[str, State]] | None:
        """The keys of the files below a folder, relative to it, with size and time of change.

        Chunks may be so many folders deep. None where they cannot be had.
        """

    def write(self, key: str, data: Buffer) -> None:
        """Write a whole file, or replace it."""


def open_folder(path: str) -> FolderSource:
    """The folder at a path or an address, as an input."""
    if is_address(path):
        return FolderSource(RemoteStore(path))
    return FolderSource(LocalStore(local_path(path), visible(path)))


class LocalStore:
    """A folder on this machine."""

    def __init__(self, place: str, name: str = "") -> None:
        self.place, self.name = place, name or visible(place)

    def path(self, key: str) -> str:
        """The path of a file."""
        return os.path.join(self.place, *key.split("/"))  # noqa: PTH118 (Path would change the name)

    def read(self, key: str) -> bytes | None:
        """A whole file; None if it is not there."""
        with file_errors(f"{self.name}/{key}", "reading"):
            try:
                with open(self.path(key), "rb") as file:  # noqa: PTH123 (Path would change the name)
                    return _whole(file, f"{self.name}/{key}")
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        return os.path.isfile(self.path(key))  # noqa: PTH113 (Path would change the name)

    def folders(self, key: str) -> list[str]:
        """The names of the folders in a folder."""
        with file_errors(self.name, "reading"), os.scandir(self.path(key)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def files(self, key: str, depth: int) -> Iterator[tuple[str, State]]:
        """The keys of the files below a folder, relative to it, with size and time of change."""
        with file_errors(self.name, "reading"), os.scandir(self.path(key)) as entries:
            for entry in entries:
                if not entry.is_dir():
                    with suppress(FileNotFoundError):  # it was removed, or leads nowhere
                        found = entry.stat()
                        yield entry.name, (found.st_size, found.st_mtime_ns)
                elif depth and (entry.name == "c" or entry.name.isdecimal()):  # as keys of chunks
                    inner = f"{key}/{entry.name}" if key else entry.name
                    for name, state in self.files(inner, depth - 1):
                        yield f"{entry.name}/{name}", state

    def write(self, key: str, data: Buffer) -> None:
        """Write a whole file, or replace it."""
        path = self.path(key)
        folder = os.path.dirname(path)  # noqa: PTH120 (Path would change the name)
        with file_errors(self.name, "writing"):
            if not os.path.isdir(folder):  # noqa: PTH112 (likewise)
                self._make_folders(key)
            with Descriptor(path, "wb") as file:
                view = memoryview(data).cast("B")
                while view:
                    view = view[file.write(view) :]

    def _make_folders(self, key: str) -> None:
        """Make the folders that a file needs, but never this one: it may have been removed."""
        names = key.split("/")[:-1]
        for count in range(1, len(names) + 1):
            with suppress(FileExistsError):
                os.mkdir(self.path("/".join(names[:count])))  # noqa: PTH102 (likewise)


class RemoteStore:
    """A folder at an address."""

    def __init__(self, place: str) -> None:
        self.place, self.name = place, visible(place)
        with remote_errors(self.place, "opening"):
            self._files, self._root = _url_to_fs(self.name)(place)

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else self._root

    def read(self, key: str) -> bytes | None:
        """A whole file; None if it is not there."""
        with remote_errors(self.place, "reading"):
            try:
                found: bytes = self._files.cat_file(self._path(key))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            return found

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        with remote_errors(self.place, "reading"):
            return bool(self._files.isfile(self._path(key)))

    def folders(self, key: str) -> list[str]:
        """The names of the folders in a folder; none where folders cannot be listed."""
        with remote_errors(self.place, "listing"):
            try:
                entries = self._files.ls(self._path(key), detail=True)
            except (FileNotFoundError, NotImplementedError):
                return []
        found = (entry for entry in entries if entry["type"] == "directory")
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in found)

    def files(self, key: str, depth: int) -> list[tuple[str, State]] | None:
        """The keys of all files below a folder; None where they cannot be listed."""
        if "http" in self._files.protocol:
            return None  # its listings are links of web pages
        top = self._files._strip_protocol(self._path(key)).rstrip("/") + "/"
        with remote_errors(self.place, "listing"):
            try:
                found = self._files.find(top)
            except (FileNotFoundError, NotImplementedError):
                return None
        return [(name.removeprefix(top), NO_STATE) for name in found if name.startswith(top)]

    def write(self, key: str, data: Buffer) -> None:
        """Write a whole file, or replace it."""
        with remote_errors(self.place, "writing"):
            self._files.pipe_file(self._path(key), bytes(data))

    def remove(self) -> None:
        """Remove everything in the folder."""
        with remote_errors(self.place, "removing"):
            self._files.rm(self._root, recursive=True)


def _whole(file: IO[bytes], name: str) -> bytes:
    if os.fstat(file.fileno()).st_size > MAX_FILE:
        raise FileError(name, f"is larger than {MAX_FILE} bytes")
    return file.read()


def _url_to_fs(where: str) -> Any:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise needs_zarr(where, "addresses need fsspec") from error
    return url_to_fs


def needs_zarr(where: str, what: str) -> UnavailableError:
    """The error for something that the extra `zarr` brings."""
    hint = "pip install 'xentcli[zarr]'"
    if sys.version_info < (3, 11):
        hint += ", with Python 3.11 or later"
    return UnavailableError(where, f"{what}, of the extra zarr", hint)


@contextmanager
def remote_errors(place: str, doing: str) -> Iterator[None]:
    """Turn what file systems of fsspec raise into errors of xent, in one line without secrets."""
    where = visible(place)
    try:
        yield
    except (XentError, MemoryError, BrokenPipeError):
        raise
    except FileNotFoundError as error:
        raise OptionError(where, f"no such bucket or folder: {said(error, place)}") from error
    except PermissionError as error:
        raise FileError(where, f"access denied: {said(error, place)}") from error
    except ImportError as error:
        raise UnavailableError(where, f"a package is missing: {said(error, place)}") from error
    except Exception as error:  # of botocore, aiohttp, azure, …
        words = said(error, place)
        if isinstance(error, ValueError) and words.startswith("Protocol not known"):
            raise OptionError(where, f"no such kind of address: {words}") from error
        raise FileError(where, f"{doing} failed: {words}") from error


def said(error: BaseException, place: str) -> str:
    """What an exception says, without what the address keeps secret."""
    words = str(reason(error))
    for secret in secrets_of(place):
        words = words.replace(secret, "***")
    return words


class FolderSource(Source):
    """A folder as an input: it has no bytes of its own."""

    store: Store

    def __init__(self, store: Store) -> None:
        super().__init__(io.BytesIO(), store.name)
        self.store = store

    @property
    def can_be_opened_again(self) -> bool:
        """True."""
        return True
