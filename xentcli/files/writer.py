"""Arrays that are written from their beginning to their end, some numbers at a time.

A writer is told the shape and the dtype first. It takes numbers in the C order of the shape,
whole lines of the last axis at a time.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files.json import JsonWriter
from xentcli.files.npy import header as npy
from xentcli.files.sink import Writable
from xentcli.files.text import reader as text
from xentcli.files.text.style import TextStyle


@dataclass(frozen=True)
class Format:
    """How an array is written; `key` is what an archive calls it."""

    name: str
    style: TextStyle
    key: str


class Writer(Protocol):
    """What the module docstring says, as a type."""

    def write(self, values: Array) -> None:
        """The next numbers, flat."""

    def finish(self) -> None:
        """There are no more."""


class NpyWriter:
    """An .npy file or stream."""

    def __init__(self, stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._stream = stream
        stream.write(npy.header_bytes(shape, dtype))

    def write(self, values: Array) -> None:
        """The next numbers."""
        self._stream.write(npy.data_bytes(values))

    def finish(self) -> None:
        """Nothing follows the data."""


class Archive(zipfile.ZipFile):
    """An archive that is not finished is thrown away; ZipFile would complain on stderr."""

    def __del__(self) -> None:
        """Do nothing."""


class NpzWriter:
    """An archive with one member."""

    def __init__(
        self, stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], name: str
    ) -> None:
        self._archive = Archive(cast(Any, stream), "w")
        self._member: IO[bytes] = self._archive.open(f"{name}.npy", "w", force_zip64=True)
        self._npy = NpyWriter(cast(Any, self._member), shape, dtype)

    def write(self, values: Array) -> None:
        """The next numbers."""
        self._npy.write(values)

    def finish(self) -> None:
        """The directory of the archive comes last."""
        self._member.close()
        self._archive.close()


class TextWriter:
    """Lines of numbers; an array of one axis has one number on each line."""

    def __init__(self, stream: Writable, shape: tuple[int, ...], how: Format) -> None:
        self._stream = stream
        self._style = how.style.between(how.name), how.style.decimals
        self._width = shape[-1] if len(shape) == 2 else 1

    def write(self, values: Array) -> None:
        """The next lines."""
        text.write(self._stream, values.reshape(-1, self._width), *self._style)

    def finish(self) -> None:
        """Nothing follows the last line."""


def create_writer(
    stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], how: Format
) -> Writer:
    """The writer for a format."""
    if how.name == "npy":
        return NpyWriter(stream, shape, dtype)
    if how.name == "npz":
        return NpzWriter(stream, shape, dtype, how.key)
    if how.name == "json":
        return JsonWriter(stream, shape, dtype, how.style.decimals)
    return TextWriter(stream, shape, how)
