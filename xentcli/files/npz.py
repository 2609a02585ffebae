"""NumPy's .npz archives: a zip of .npy members."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import IO, Any, cast

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError, visible
from xentcli.files import foreign
from xentcli.files.format import Inspected, of_each
from xentcli.files.keys import choose_key
from xentcli.files.npy.header import MAGIC
from xentcli.files.npy.reader import inspect_npy, open_npy
from xentcli.files.npy.writer import NpyWriter
from xentcli.files.options import ReadOptions
from xentcli.files.reader import Reader
from xentcli.files.sink import Writable
from xentcli.files.source import Source
from xentcli.files.zipped import DAMAGED, open_archive, open_member


def open_npz(source: Source, options: ReadOptions) -> Reader:
    """The reader of the array that the options name, or of the only one."""
    archive, members = _open_archive(source)
    key = choose_key(list(members), options, source.name)
    return open_npy(open_member(archive, members[key], key, source.name), options)


def inspect_npz(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every array, or about the one that the options name."""
    archive, members = _open_archive(source)
    keys = list(members)
    if options.key is not None:
        keys = [choose_key(keys, options, source.name)]
    return of_each(
        keys, lambda key: inspect_npy(open_member(archive, members[key], key, source.name), stats)
    )


def member_names(source: Source) -> list[str]:
    """The names of the arrays."""
    return list(_open_archive(source)[1])


def _open_archive(source: Source) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """The archive and its arrays by name."""
    archive = open_archive(source, "an .npz file")
    foreign.refuse_archive(archive.namelist(), source.name)
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename and not _starts_like_an_array(archive, info):
            continue
        if name in members:
            what = f"holds two arrays called '{visible(name)}', of which one cannot be chosen"
            raise FormatError(source.name, what, "write it again with a name for each")
        members[name] = info
    return archive, members


def _starts_like_an_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether a member without the suffix is an array all the same, as some programs write it."""
    try:
        with archive.open(info) as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except DAMAGED:
        return False


class _Archive(zipfile.ZipFile):
    """An archive that is not finished is thrown away; ZipFile would complain on stderr."""

    def __del__(self) -> None:
        """Do nothing."""


def save_npz(stream: Writable, members: Mapping[str, Array]) -> None:
    """An archive of several arrays."""
    archive = _Archive(cast(Any, stream), "w")
    for name, array in members.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            writer = NpyWriter(cast(Any, member), array.shape, array.dtype)
            writer.write(np.ascontiguousarray(array).reshape(-1))
    archive.close()


class NpzWriter:
    """An archive with one member."""

    def __init__(
        self, stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], name: str
    ) -> None:
        self._archive = _Archive(cast(Any, stream), "w")
        self._member: IO[bytes] = self._archive.open(f"{name}.npy", "w", force_zip64=True)
        self._npy = NpyWriter(cast(Any, self._member), shape, dtype)

    def write(self, values: Array) -> None:
        """The next numbers."""
        self._npy.write(values)

    def finish(self) -> None:
        """Write the archive's directory, which comes last."""
        self._member.close()
        self._archive.close()
