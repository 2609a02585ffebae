"""Reading numbers in text: CSV, TSV and any other one-character delimiter.

Blank lines, comments, `1_000` and `1e400` are errors. Nearly every cell is parsed and checked by
`parsing`, thousands at a time, in pieces that end with a cell, however long a line is. The others
are parsed one by one.
"""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError, Words, plural
from xentcli.files.class_names import ClassNames
from xentcli.files.options import DEFAULT, ReadOptions
from xentcli.files.source import Source
from xentcli.files.text.cells import parse_names, parse_rest
from xentcli.files.text.columns import TextColumns, find_columns, is_header_of_r
from xentcli.files.text.dialect import Dialect, Marked
from xentcli.files.text.lines import Chunk, Lines
from xentcli.files.text.look import cells_of, rows_of
from xentcli.files.text.parsing import LONGEST, Cells, Place, cell_count, parse

if TYPE_CHECKING:
    from xentcli.files.text.mistakes import Mistakes
    from xentcli.files.text.style import TextStyle

_LOOK = 4096  # bytes that are checked before more are read
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # what text does not have
_KNOWN = b"\x93NUMPY", b"PK\x03\x04", b"PAR1", b"ARROW1", b"\x89HDF"  # under a text suffix
_LONGEST_TEXT = 1 << 22  # bytes of a cell that is not read


class TextReader:
    """Rows of float64 from lines of text, some lines at a time.

    `columns` are those that are read, where not all are or they have names.
    """

    def __init__(
        self,
        source: Source,
        delimiter: str = ",",
        header: bool = False,
        options: ReadOptions = DEFAULT,
    ) -> None:
        look_at(source, options.style)
        self._where, self._options = source.name, options
        self._dialect = Dialect(delimiter.encode(), options.style.decimal.encode())
        self._classes = ClassNames(options.class_names)
        self._lines, self.has_header = Lines(source), header
        names = self._header(delimiter) if header else ()
        self._first, chunks = self._lines.read()
        if not chunks:
            what = "line 1 is a header, and nothing follows" if header else "the file is empty"
            raise FormatError(self._where, what)
        self.columns = self._find_columns(names, chunks)
        self._wanted = self._order = None
        if self.columns and not self.columns.are_all:
            self._wanted, self._order = self.columns.wanted, self.columns.order
        self._fields = 0  # of a line
        self.width = 0  # of what is read
        self._ready = self._parse(self._first, chunks)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns that are read, if there is a header."""
        return self.columns.names if self.columns else ()

    @property
    def remarks(self) -> tuple[Words, ...]:
        """What is noteworthy about the columns."""
        return self.columns.remarks if self.columns else ()

    def read(self, lines: int) -> Array:
        """The next lines as float64, (lines, width); fewer only at the end."""
        parts = []
        while lines and len(self._ready):
            parts.append(self._ready[:lines])
            lines -= len(parts[-1])
            self._ready = self._ready[len(parts[-1]) :]
            if not len(self._ready):
                number, chunks = self._lines.read()
                if chunks:
                    self._ready = self._parse(number, chunks)
        if len(parts) == 1:
            return parts[0]  # one line may be long: it is not copied
        return np.concatenate([np.empty((0, self.width)), *parts])

    def lines_left(self) -> int:
        """The number of lines that are not read yet; they can still be read afterwards."""
        return len(self._ready) + self._lines.left()

    def _header(self, delimiter: str) -> tuple[str, ...]:
        """The names in the first line; none where it is no CSV."""
        line = self._lines.skip().decode("utf-8-sig", "replace")
        return tuple(cells_of(line, delimiter))

    def _find_columns(self, names: tuple[str, ...], chunks: deque[Chunk]) -> TextColumns | None:
        """The columns to read, where there are names or some are chosen."""
        if not names and self._options.columns == DEFAULT.columns:
            return None
        width = 0
        for _, marked in _pieces(deque(chunks), self._dialect, _LONGEST_TEXT):
            count, ended = cell_count(marked, width)
            width += count
            if ended:
                break
        start = b"".join(chunk[:] for chunk in islice(chunks, max(1, _LOOK // len(chunks[0]))))
        is_comment = names[:1] != () and names[0][:1] == "#"
        cells = [row[0] for row in rows_of(start, self._dialect.delimiter.decode())]
        fits = len(names) == width or (not is_comment and is_header_of_r(names, cells, width))
        if names and self._options.style.header == "auto" and not fits:
            line = start.split(b"\n", 1)[0].decode("utf-8", "replace")
            raise self._mistakes(names).of_header(len(names), width, line)
        names = (names[0].lstrip("# "), *names[1:]) if is_comment else names
        return find_columns(names, cells, width, self._options, self._where)

    def _mistakes(self, names: tuple[str, ...]) -> Mistakes:
        """The errors of this table, whose columns have these names."""
        from xentcli.files.text.mistakes import Mistakes  # a good table needs none

        return Mistakes(self._where, self._options.style, self._dialect, self._classes, names)

    def _parse(self, number: int, chunks: deque[Chunk]) -> Array:
        """Complete lines as numbers; `number` is that of the first line."""
        size = sum(map(len, chunks))
        longest = LONGEST if self._wanted is None else _LONGEST_TEXT
        values, place, count = np.empty(0), Place(number), 0
        for piece, marked in _pieces(chunks, self._dialect, longest):
            cells = parse(marked, self._wanted, place.column)
            bad = self._parse_rest(piece, marked, cells)
            self._check_widths(place, cells if bad is None else cells.before(bad), piece, marked)
            if bad is not None:
                names = self.columns.header if self.columns else ()
                raise self._mistakes(names).of(place, piece, cells, bad)
            if len(piece) == size:  # lines that are not long
                return self._shaped(cells.values)
            if not count:
                values = np.empty(size // 2)  # a number takes two bytes or more
            values[count : count + len(cells.values)] = cells.values
            count += len(cells.values)
            place = place.after(piece, cells)
        return self._shaped(values[:count])

    def _parse_rest(self, piece: bytes, marked: Marked, cells: Cells) -> int | None:
        """Parse what is left; the first cell that is not a number, or None."""
        if self._classes.names:
            return parse_names(piece, marked.text, cells, self._classes)
        return parse_rest(marked.text, cells)

    def _shaped(self, values: Array) -> Array:
        """Numbers as lines of the columns that are read."""
        table = values.reshape(-1, self.width)
        return table if self._order is None else table[:, self._order]

    def _check_widths(self, place: Place, cells: Cells, piece: bytes, marked: Marked) -> None:
        """An error for the first line that has more or fewer cells than the first of all."""
        widths = np.diff(cells.last, prepend=-1 - place.column)
        if widths.size and not self._fields:
            self._fields = int(widths[0])
            self.width = len(self.columns.indices) if self.columns else self._fields
        wrong = np.flatnonzero(widths != self._fields)
        if wrong.size:
            found = plural(int(widths[wrong[0]]), "field")
            what = f"{found}, expected {self._fields} as in line {self._first}"
            ends = [
                end.start() for end in re.finditer(b"\n", marked.text)
            ]  # in quotes none is left
            start = ends[wrong[0] - 1] + 1 if wrong[0] else 0
            number = place.line + piece.count(b"\n", 0, start)
            raise FormatError(self._where, f"line {number}: {what}")


def look_at(source: Source, style: TextStyle) -> None:
    """An error for a stream that is not text, before all of it is read: it may be endless."""
    start = source.peek(_LOOK)
    if start[:2] == b"\x1f\x8b":  # what is compressed once was decompressed before
        raise FormatError(source.name, "the bytes are those of gzip: this is not text")
    is_utf_16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    if 2 * start.count(0) > len(start):
        raise FormatError(source.name, "most bytes are NUL: this is not text", _as_raw(style))
    if not is_utf_16 and _CONTROL.search(start) and not _is_utf_8(start):
        known = start.startswith(_KNOWN)
        hint = "its first bytes are those of another format" if known else _as_raw(style)
        raise FormatError(source.name, "this is binary, not text", hint)
    if is_utf_16:
        raise FormatError(source.name, "the text is UTF-16", "save it as UTF-8")
    if b"\n" not in start and start.count(b"\r") > 1:
        what = "line 1: a carriage return without a line feed"
        raise FormatError(source.name, what, "save it with line feeds at the ends of lines")
    if start[:3] == b"\xef\xbb\xbf":
        source.read(3)


def _is_utf_8(start: bytes) -> bool:
    """Whether these are the first bytes of text; its last character may be cut."""
    try:
        utf_8_decode(start, "strict", False)  # not final
    except UnicodeDecodeError:
        return False
    return True


def _as_raw(style: TextStyle) -> Words | None:
    """How to read numbers that have no header, where there are options for that."""
    if not style.has_columns:
        return None
    return (
        "numbers without a header: ",
        style.option("raw", "f32"),
        " ",
        style.option("shape", "N,C"),
    )


def _pieces(chunks: deque[Chunk], dialect: Dialect, longest: int) -> Iterator[tuple[bytes, Marked]]:
    """The text in pieces of whole cells, with line feeds alone; the chunks are freed meanwhile.

    A cell of more than `longest` bytes is cut off.
    """
    rest = b""
    while chunks:
        text = rest + chunks.popleft()[:]
        if b"\r" in text:  # searching is faster than replacing
            text = text.replace(b"\r\n", b"\n")
        marked = dialect.marked(text)
        end = max(marked.text.rfind(marked.end), marked.text.rfind(b"\n")) + 1
        if end == len(text):
            yield text, marked
        elif end:
            piece = text[:end]
            part = piece if marked.text is text else marked.text[:end]
            yield piece, Marked(part, marked.end, marked.runs)
        rest = text[end:]
        if len(rest) > longest:
            ended = dialect.marked(b"_" * (LONGEST + 1) + dialect.delimiter)
            yield rest[: LONGEST + 1] + dialect.delimiter, ended
    if rest:  # a quote is open
        yield rest, replace(dialect.marked(b""), text=b"_" * (len(rest) - 1) + b"\n")
