"""NumPy's .npz archives: a zip of .npy members."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any, cast

from xentcli.dtypes import Array
from xentcli.errors import FormatError, OptionError, XentError, plural, visible
from xentcli.formats import npy
from xentcli.formats.sink import Writable
from xentcli.formats.source import Source

# What zipfile raises on damaged archives, besides the error that it has for them.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)

MOST_DEFLATED = 1032  # the largest ratio that deflate can reach


def members(source: Source) -> tuple[zipfile.ZipFile, list[str]]:
    """The archive and the names of its arrays."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(source.read_all()))
    except _BROKEN as error:
        raise FormatError(source.name, f"not an .npz file: {error}") from error
    return archive, [name[:-4] for name in archive.namelist() if name.endswith(".npy")]


def open_member(archive: zipfile.ZipFile, key: str, where: str) -> Source:
    """One member as a source of its own, of its declared size."""
    info = archive.getinfo(f"{key}.npy")
    try:
        stream = archive.open(info)
    except _BROKEN as error:
        raise FormatError(where, f"member '{visible(key)}' cannot be read: {error}") from error
    name = f"{where}[{visible(key)}]"
    if info.file_size > info.compress_size * MOST_DEFLATED + 64:
        what = f"declares {info.file_size} bytes, which {info.compress_size} cannot inflate to"
        raise FormatError(name, what)
    return Source(stream, name, info.file_size, declared=True)


def choose(names: list[str], key: str | None, where: str, option: str | None) -> str:
    """The array named `key`; the only one where none is named. `option` is what names it."""
    listed = ", ".join(map(visible, names[:10])) or "none"
    if key is None and len(names) != 1:
        hint = f"choose one with {option} NAME" if option else "an archive of one array is needed"
        raise OptionError(where, f"holds {plural(len(names), 'array')}: {listed}", hint)
    if key is not None and key not in names:
        raise OptionError(where, f"no array '{visible(key)}'; it holds {listed}")
    return key or names[0]


def read(source: Source, key: str | None, option: str | None) -> Array:
    """The array named `key`; the only one where none is named."""
    archive, names = members(source)
    return read_member(archive, choose(names, key, source.name, option), source.name)


def read_member(archive: zipfile.ZipFile, key: str, where: str) -> Array:
    """One array of an archive."""
    member = open_member(archive, key, where)
    try:
        return npy.read(member)
    except XentError:
        raise
    except _BROKEN as error:
        raise FormatError(member.name, f"the archive is damaged: {error}") from error


def write(stream: Writable, array: Array, name: str) -> None:
    """One array as an archive with one member."""
    with (
        zipfile.ZipFile(cast(Any, stream), "w") as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as member,
    ):
        npy.write(member, array)
