"""NumPy's .npz archives: a zip of .npy members."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any, cast

from xentcli.errors import FormatError, OptionError, plural, visible
from xentcli.files import foreign
from xentcli.files.source import Member, Source

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
    """The archive and the names of its arrays. What cannot be searched is read whole."""
    start = source.peek(4)
    if start not in (b"PK\x03\x04", b"PK\x05\x06"):  # before a stream without an end is read
        raise FormatError(source.name, f"not an .npz file: it starts with {start!r}")
    stream = source.file or io.BytesIO(source.read_all())
    try:
        archive = zipfile.ZipFile(cast(Any, stream))
    except _BROKEN as error:
        raise FormatError(source.name, f"not an .npz file: {error}") from error
    foreign.refuse_archive(archive.namelist(), source.name)
    return archive, [name[:-4] for name in archive.namelist() if name.endswith(".npy")]


def open_member(archive: zipfile.ZipFile, key: str, where: str) -> Member:
    """One member as a source of its own, of its declared size."""
    info = archive.getinfo(f"{key}.npy")
    name = f"{where}[{visible(key)}]"
    try:
        stream = archive.open(info)
    except _BROKEN as error:
        raise FormatError(where, f"member '{visible(key)}' cannot be read: {error}") from error
    if info.file_size > info.compress_size * MOST_DEFLATED + 64:
        what = f"declares {info.file_size} bytes, which {info.compress_size} cannot inflate to"
        raise FormatError(name, what)
    return Member(stream, name, info.file_size, _BROKEN)


def choose(names: list[str], key: str | None, where: str, option: str | None) -> str:
    """The array named `key`; the only one where none is named. `option` is what names it."""
    listed = ", ".join(map(visible, names[:10])) or "none"
    if key is None and len(names) != 1:
        hint = f"choose one with {option} NAME" if option else "an archive of one array is needed"
        raise OptionError(where, f"holds {plural(len(names), 'array')}: {listed}", hint)
    if key is not None and key not in names:
        raise OptionError(where, f"no array '{visible(key)}'; it holds {listed}")
    return key or names[0]
