"""Reading numbers in text: CSV, TSV and any other one-character delimiter.

Blank lines, comments, `1_000` and `1e400` are errors. Nearly every cell is parsed and checked by
`parsing`, thousands at a time. The others are parsed one by one, and when anything is wrong the
lines are parsed again, slowly, to say where.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError, Setting, Words, plural, visible
from xentcli.files import foreign
from xentcli.files.source import Source
from xentcli.files.text.lines import CHUNK, Lines
from xentcli.files.text.parsing import LONGEST, Cells, parse

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SPECIAL = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_KNOWN = {word: float(word) for word in (b"nan", b"inf", b"-inf")}
_LOOK = 4096  # bytes that are checked before more are read
_PIECE = 2 * CHUNK  # bytes that are parsed at a time, however long a line is


def _names(line: bytes, delimiter: str) -> tuple[str, ...]:
    """The names in a header line; none where it is not CSV, as it is skipped anyway."""
    text = line.decode("utf-8-sig", "replace").strip("\r\n")
    try:
        rows = list(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        return ()
    return tuple(cell.strip() for row in rows for cell in row)


class TextReader:
    """Rows of float64 from lines of text, some lines at a time."""

    def __init__(self, source: Source, delimiter: str = ",", header: bool = False) -> None:
        _look(source)
        self._where = source.name
        self._delimiter = delimiter
        self._lines = Lines(source)
        self.column_names = _names(self._lines.skip(), delimiter) if header else ()
        self._first, text = self._lines.read()
        if not text:
            raise FormatError(self._where, "only a header line" if header else "the file is empty")
        self.width = 0
        self._ready = self._parse(self._first, text)
        self.width = self._ready.shape[1]

    def read(self, lines: int) -> Array:
        """The next lines as float64, (lines, width); fewer only at the end."""
        parts = [np.empty((0, self.width))]
        while lines and len(self._ready):
            parts.append(self._ready[:lines])
            lines -= len(parts[-1])
            self._ready = self._ready[len(parts[-1]) :]
            if not len(self._ready):
                number, text = self._lines.read()
                if text:
                    self._ready = self._parse(number, text)
        return np.concatenate(parts)

    def lines_left(self) -> int:
        """The number of lines that are not read yet; they can still be read afterwards."""
        return len(self._ready) + self._lines.left()

    def _parse(self, number: int, text: bytes) -> Array:
        """Complete lines as numbers; `number` is that of the first line."""
        parts, lasts, count = [], [], 0
        for piece in _pieces(text, self._delimiter.encode()):
            cells = parse(piece, self._delimiter.encode())
            if not _complete(piece, cells):
                raise self._mistake(number, text)
            parts.append(cells.values)
            lasts.append(cells.last + count)
            count += len(cells.values)
        widths = np.diff(np.concatenate(lasts), prepend=-1)
        if np.any(widths != (self.width or widths[0])):
            raise self._mistake(number, text)
        return np.concatenate(parts).reshape(len(widths), -1)

    def _mistake(self, number: int, text: bytes) -> FormatError:
        """The error for the first mistake in lines that cannot be parsed."""
        width = self.width
        for place, raw in enumerate(text.removesuffix(b"\n").split(b"\n"), number):
            try:
                found = sum(1 for _ in _cells(raw, f"line {place}", self._where, self._delimiter))
            except FormatError as error:
                return error
            width = width or found
            if found != width:
                what = f"{plural(found, 'field')}, expected {width} as in line {self._first}"
                return FormatError(self._where, f"line {place}: {what}")
        return FormatError(self._where, "the text is not a table of numbers")


def _look(source: Source) -> None:
    """An error for a stream that is not text, before all of it is read: it may be endless."""
    start = source.peek(_LOOK)
    if foreign.GZIP.recognises(start):
        raise foreign.refusal(foreign.GZIP, source.name)
    if 2 * start.count(0) > len(start):
        raise FormatError(source.name, "most bytes are NUL: this is not text")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(source.name, "the text is UTF-16", "save it as UTF-8")
    if start[:3] == b"\xef\xbb\xbf":
        source.read(3)


def _pieces(text: bytes, delimiter: bytes) -> Iterator[bytes]:
    """The text in pieces of whole cells, each of at most `_PIECE` bytes or one cell."""
    start = 0
    while start < len(text):
        stop = len(text)
        if stop - start > _PIECE:
            ends = (text.rfind(end, start, start + _PIECE) for end in (delimiter, b"\n"))
            later = (text.find(end, start) for end in (delimiter, b"\n"))
            stop = max(ends) + 1 or min(place for place in later if place >= 0) + 1
        yield text[start:stop]
        start = stop


def _complete(piece: bytes, cells: Cells) -> bool:
    """Parse the cells that are left, one by one; false where one is not a number."""
    rest = np.flatnonzero(~cells.parsed)
    places = zip(cells.starts[rest].tolist(), cells.ends[rest].tolist(), strict=True)
    texts = (piece[start:end] for start, end in places)
    numbers = [_KNOWN.get(text) or _number(text) for text in texts]
    if None in numbers:
        return False
    cells.values[rest] = numbers
    return True


def _number(raw: bytes) -> float | None:
    """The number in a cell, None where it is not one or out of range."""
    cell = raw.decode("latin-1").strip(" ")
    if len(raw) > LONGEST or not cell.isascii():
        return None
    if _SPECIAL.fullmatch(cell):
        return float(cell)
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    return None if math.isinf(value) else value


def _cells(raw: bytes, place: str, where: str, delimiter: str) -> Iterator[float]:
    """The numbers of a line; an error for the first cell that is not one."""
    line = _line(raw, place, where)
    for column, cell in enumerate(line.split(delimiter), 1):
        yield _value(cell, where, f"{place}, column {column}")


def _line(raw: bytes, place: str, where: str) -> str:
    if b"\r" in raw:
        raise FormatError(where, f"{place}: a carriage return without a line feed")
    if b"\0" in raw:
        raise FormatError(where, f"{place}: a NUL byte in column {raw.index(0) + 1} of the line")
    if not raw.strip():
        raise FormatError(where, f"{place} is blank")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(where, f"{place}: byte {error.start + 1} is not UTF-8") from error


def _value(raw: str, where: str, place: str) -> float:
    cell = raw.strip(" ")
    value = _number(raw.encode("utf-8"))
    if value is not None:
        return value
    if not cell:
        raise FormatError(where, f"{place}: an empty field")
    if len(raw) > LONGEST:
        raise FormatError(where, f"{place}: {len(raw)} characters are no number")
    if cell.isascii() and _NUMBER.fullmatch(cell):
        raise FormatError(where, f"{place}: {cell[:40]} is out of the range of float64")
    shown = visible(cell[:40])
    raise FormatError(where, f"{place}: '{shown}' is not a number", _hint(cell, place))


def _hint(cell: str, place: str) -> Words | None:
    for character, name in ((";", "';'"), ("\t", "tab"), (" ", "' '")):
        parts = cell.strip().split(character)
        if len(parts) > 1 and all(map(_NUMBER.fullmatch, parts)):
            return f"the delimiter seems to be {name}: ", Setting("delimiter", character)
    if place.startswith("line 1,") and (cell[:1].isalpha() or cell[:1] in "\"'_#"):
        return Setting("header", True), " skips a header line"
    return None
