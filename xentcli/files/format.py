"""What the registry knows of one file format.

To add a format: a module with its functions, and one `Format` in `registry.FORMATS`. Reading,
writing, `inspect`, the choices and help of the command line, completion and the errors that list
formats all ask the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xentcli.errors import XentError
from xentcli.records import dataclass

if TYPE_CHECKING:
    import numpy as np

    from xentcli.arrays.dtypes import Array
    from xentcli.files.options import ReadOptions, WriteOptions
    from xentcli.files.reader import Reader
    from xentcli.files.sink import Writable
    from xentcli.files.source import Source
    from xentcli.files.writer import Writer

FIRST_BYTES = 12  # of a file, which `matches` gets to see
ZIP = b"PK\x03\x04"
ZIP_BYTES = 300  # of a zip, which has the name of its first member there

Facts = dict[str, Any]  # about one array, in the order in which `inspect` prints them

Matcher = Callable[[bytes], bool]
ReaderOpener = Callable[["Source", "ReadOptions"], "Reader"]
WriterFactory = Callable[["Writable", tuple[int, ...], "np.dtype[Any]", "WriteOptions"], "Writer"]
MembersSaver = Callable[["Writable", "Mapping[str, Array]"], None]
Inspected = Iterable["Facts | XentError"]
Inspector = Callable[["Source", "ReadOptions", bool], Inspected]
MemberLister = Callable[["Source"], list[str]]


@dataclass(frozen=True)
class Format:
    """A file format: how to recognise it, what it can do, and the functions that do it.

    A format without `open_reader` cannot be read, one without `create_writer` cannot be written.
    The functions import what they need when they are called, so that help loads no NumPy.

    name          what options and messages call it
    suffixes      of its files, lower case, without the dot; formats may share one
    matches       whether a file that starts with these `FIRST_BYTES` is of this format
    open_reader   (source, options) -> a Reader of one array
    create_writer (stream, shape, dtype, options) -> a Writer of one array
    save_members  (stream, arrays by name) -> None, where one file holds several
    inspect       (source, options, stats) -> facts, or an error, per array; by default the Reader's
    member_names  (source) -> the names of its arrays, where one file holds several
    has_columns   the reader takes the columns that the options choose, and knows their names
    is_table      always two axes, lines and columns, as text is; an array of one axis is a column
    keeps_dtype   the dtype that is read is the one that was written
    streams       a file is read and written in pieces, in constant memory
    pipes         it can be read from a pipe too
    is_raw        after a header all numbers follow in C order, and nothing else
    is_folder     an array is a folder of files, which may be at an address, and not one file
    description   what an error calls a file that is recognised and cannot be read
    convert       how to make a readable file of such a file
    """

    name: str
    suffixes: tuple[str, ...] = ()
    matches: Matcher | None = None
    open_reader: ReaderOpener | None = None
    create_writer: WriterFactory | None = None
    save_members: MembersSaver | None = None
    inspect: Inspector | None = None
    member_names: MemberLister | None = None
    has_columns: bool = False
    is_table: bool = False
    keeps_dtype: bool = True
    streams: bool = True
    pipes: bool = True
    is_raw: bool = False
    is_folder: bool = False
    description: str = ""
    convert: str | None = None

    def recognises(self, start: bytes) -> bool:
        """Whether a file that starts like this is of this format."""
        return self.matches is not None and self.matches(start)

    @property
    def can_read(self) -> bool:
        """Whether arrays of this format can be read."""
        return self.open_reader is not None

    @property
    def can_write(self) -> bool:
        """Whether arrays can be written in this format."""
        return self.create_writer is not None

    @property
    def has_keys(self) -> bool:
        """Whether one file holds several arrays, each with a name."""
        return self.member_names is not None

    @property
    def max_axes(self) -> int | None:
        """How many axes an array may have; None for any number."""
        return 2 if self.is_table else None


def of_each(names: Iterable[str], facts: Callable[[str], Facts]) -> Iterator[Facts | XentError]:
    """Facts about each array of a file; an error about one does not hide the others."""
    for name in names:
        try:
            yield facts(name)
        except XentError as error:
            yield error


def starts_with(*signatures: bytes) -> Matcher:
    """A matcher for files that start with one of some bytes.

    >>> starts_with(b"PAR1")(b"PAR1 and more"), starts_with(b"PAR1")(b"1,2,3")
    (True, False)
    """
    return lambda start: start.startswith(signatures)
