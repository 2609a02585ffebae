"""Zip archives of arrays: opened from anywhere, their members as sources."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import Any, cast

from xentcli.errors import FormatError, visible
from xentcli.files.member import Member
from xentcli.files.source import Source

# What zipfile raises on damaged archives, besides its own error for them.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)

MAX_RATIO = 1032  # of inflated to deflated bytes, the limit of the deflate format


def open_archive(source: Source, what: str) -> zipfile.ZipFile:
    """The archive in a source; a pipe is copied to a file, as zip needs to seek."""
    start = source.peek(4)
    if start not in (b"PK\x03\x04", b"PK\x05\x06"):  # before an endless stream is copied
        raise FormatError(source.name, f"not {what}: it starts with {start!r}")
    source.make_seekable()
    try:
        return zipfile.ZipFile(cast(Any, source.file))
    except DAMAGED as error:
        raise FormatError(source.name, f"not {what}: {error}") from error


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str, where: str) -> Member:
    """One member as a source with the size that the archive declares."""
    name = f"{where}[{visible(key)}]"
    try:
        stream = archive.open(info)
    except DAMAGED as error:
        raise FormatError(where, f"member '{visible(key)}' cannot be read: {error}") from error
    if info.file_size > info.compress_size * MAX_RATIO + 64:
        what = f"declares {info.file_size} bytes, which {info.compress_size} cannot inflate to"
        raise FormatError(name, what)
    return Member(stream, name, info.file_size, DAMAGED)
