"""Files and streams of numbers: which format they are in, and reading and writing an array.

A file's suffix says its format, else its first bytes do; an option overrules both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

from xentcli.arrays.dtypes import Array
from xentcli.errors import OptionError
from xentcli.files import foreign, npz
from xentcli.files.npy import header as npy
from xentcli.files.reader import Reader, of_npy
from xentcli.files.sink import Writable
from xentcli.files.source import Source, open_source
from xentcli.files.text import reader as text
from xentcli.files.text.style import TextStyle
from xentcli.files.text.table import of_table
from xentcli.files.writer import Format, create_writer

READABLE = ("npy", "npz", "csv", "tsv")
WRITABLE = (*READABLE, "json")
PLAIN = TextStyle()


@dataclass(frozen=True)
class How:
    """How an input is read.

    `key_option` is what chooses an array of an archive, if anything. Text gets the `dtype`, and
    two nameless bytes are bfloat16 if it is that; other arrays have their own.
    """

    format: str | None = None
    key: str | None = None
    style: TextStyle = PLAIN
    key_option: str | None = None
    dtype: str = "auto"

    @property
    def bfloat16(self) -> bool:
        """Whether two nameless bytes are a bfloat16."""
        return self.dtype == "bf16"


def suffix_format(path: str) -> str | None:
    """The format that a file's name promises."""
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    return suffix if suffix in WRITABLE else None


def sniff(source: Source) -> str:
    """The format that a stream's first bytes show."""
    start = source.peek(foreign.LOOK)
    if start[:6] == npy.MAGIC:
        return "npy"
    if start[:4] == b"PK\x03\x04":
        return "npz"
    foreign.refuse(start, source.name)
    return "csv"


@contextmanager
def open_reader(path: str, how: How = How()) -> Iterator[Reader]:
    """An array that a path holds, or standard input for `-`, to be read piece by piece."""
    with open_source(path) as source:
        format = how.format or suffix_format(path) or sniff(source)
        if format not in READABLE:
            raise OptionError(source.name, f"{format} is written by xent, and not read")
        if how.key is not None and format != "npz":
            raise OptionError(source.name, f"this is {format}, and {how.key_option} is for .npz")
        if format == "npy":
            yield of_npy(source, how.bfloat16)
        elif format == "npz":
            archive, names = npz.members(source)
            key = npz.choose(names, how.key, source.name, how.key_option)
            yield of_npy(npz.open_member(archive, key, source.name), how.bfloat16)
        else:
            yield of_text(source, format, how)


def of_text(source: Source, format: str, how: How) -> Reader:
    """The reader for a table of numbers in text."""
    table = text.Reader(source, how.style.between(format), how.style.header)
    return of_table(table, source, format, how.dtype)


def load(path: str, how: How = How()) -> Array:
    """A whole array from a path, or from standard input for `-`."""
    with open_reader(path, how) as reader:
        return reader.whole()


def is_text(reader: Reader) -> bool:
    """Whether an array came as text, which has no dtype and always two axes."""
    return reader.format in ("csv", "tsv")


def save(stream: Writable, array: Array, how: Format) -> None:
    """Write one whole array."""
    writer = create_writer(stream, array.shape, array.dtype, how)
    if array.size:
        writer.write(array.reshape(-1))
    writer.finish()
