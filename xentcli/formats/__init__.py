"""Files and streams of numbers: which format they are in, and reading and writing an array.

A file's suffix says its format, else its first bytes do; an option overrules both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from xentcli.dtypes import BF16, NAMES, Array, narrow
from xentcli.errors import OptionError
from xentcli.formats import json, npy, npz, text
from xentcli.formats.sink import Writable
from xentcli.formats.source import Source, open_source

READABLE = ("npy", "npz", "csv", "tsv")
WRITABLE = (*READABLE, "json")


@dataclass(frozen=True)
class TextStyle:
    """How text is read and written. Without a delimiter the format's own is used."""

    delimiter: str | None = None
    header: bool = False
    decimals: int | None = None

    def between(self, format: str) -> str:
        """The delimiter for `csv` or `tsv`."""
        return self.delimiter or ("\t" if format == "tsv" else ",")


@dataclass(frozen=True)
class How:
    """How an input is read. `key_option` is what chooses an array of an archive, if anything."""

    format: str | None = None
    key: str | None = None
    style: TextStyle = TextStyle()
    key_option: str | None = None


@dataclass(frozen=True)
class Loaded:
    """An array, the format that it came in, and the name it has in messages."""

    array: Array
    format: str
    name: str

    @property
    def is_text(self) -> bool:
        """Whether it came as text, which has no dtype and always two axes."""
        return self.format in ("csv", "tsv")


def suffix_format(path: str) -> str | None:
    """The format that a file's name promises."""
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    return suffix if suffix in WRITABLE else None


def sniff(source: Source) -> str:
    """The format that a stream's first bytes show."""
    start = source.peek(6)
    if start == npy.MAGIC:
        return "npy"
    return "npz" if start[:4] == b"PK\x03\x04" else "csv"


def load(path: str, how: How = How()) -> Loaded:
    """Read one array from a path, or from standard input for `-`."""
    with open_source(path) as source:
        format = how.format or suffix_format(path) or sniff(source)
        if format not in READABLE:
            raise OptionError(source.name, f"{format} is written by xent, and not read")
        if how.key is not None and format != "npz":
            raise OptionError(source.name, f"this is {format}, and {how.key_option} is for .npz")
        if format == "npy":
            array = npy.read(source)
        elif format == "npz":
            array = npz.read(source, how.key, how.key_option)
        else:
            delimiter = how.style.between(format)
            array = text.read(source, delimiter, how.style.header)
        return Loaded(array, format, source.name)


def as_dtype(loaded: Loaded, dtype: str) -> Array:
    """Logits as `--dtype` reads them: text gets that dtype, two nameless bytes are bfloat16."""
    array = loaded.array
    if array.dtype == np.dtype("V2") and dtype == "bf16":
        return array.view(BF16)
    if loaded.is_text and dtype != "auto":
        return narrow(array, NAMES[dtype])
    return array


def save(stream: Writable, array: Array, format: str, style: TextStyle, name: str) -> None:
    """Write one array; `name` is what an archive calls it."""
    if format == "npy":
        npy.write(stream, array)
    elif format == "npz":
        npz.write(stream, array, name)
    elif format == "json":
        json.write(stream, array, style.decimals)
    else:
        text.write(stream, array, style.between(format), style.decimals)
