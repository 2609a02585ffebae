"""Reading numbers in text: CSV, TSV and any other one-character delimiter.

Blank lines, comments, `1_000` and `1e400` are errors. Nearly every cell is parsed and checked by
`parsing`, thousands at a time, in pieces that end with a cell, however long a line is. The others
are parsed one by one.
"""

from __future__ import annotations

import csv
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError, Setting, Words, plural, visible
from xentcli.files.source import Source
from xentcli.files.text.lines import Chunk, Lines
from xentcli.files.text.parsing import LONGEST, Cells, parse

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SPECIAL = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_LOOK = 4096  # bytes that are checked before more are read
_SHORT = 7  # characters of a cell that fit into a word beside their number


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
        self._first, chunks = self._lines.read()
        if not chunks:
            raise FormatError(self._where, "only a header line" if header else "the file is empty")
        self.width = 0
        self._ready = self._parse(self._first, chunks)

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

    def _parse(self, number: int, chunks: deque[Chunk]) -> Array:
        """Complete lines as numbers; `number` is that of the first line."""
        size = sum(map(len, chunks))
        values, place, count = np.empty(0), _Place(number), 0
        for piece in _pieces(chunks, self._delimiter.encode()):
            cells = parse(piece, self._delimiter.encode())
            bad = _parse_rest(piece, cells)
            self._check_widths(place, cells if bad is None else cells.before(bad))
            if bad is not None:
                raise self._mistake(place, piece, cells, bad)
            if len(piece) == size:  # lines that are not long
                return cells.values.reshape(-1, self.width)
            if not count:
                values = np.empty(size // 2)  # a number takes two bytes or more
            values[count : count + len(cells.values)] = cells.values
            count += len(cells.values)
            place = place.after(piece, cells)
        return values[:count].reshape(-1, self.width)

    def _check_widths(self, place: _Place, cells: Cells) -> None:
        """An error for the first line that has more or fewer cells than the first of all."""
        widths = np.diff(cells.last, prepend=-1 - place.column)
        if widths.size:
            self.width = self.width or int(widths[0])
        wrong = np.flatnonzero(widths != self.width)
        if wrong.size:
            found = plural(int(widths[wrong[0]]), "field")
            what = f"{found}, expected {self.width} as in line {self._first}"
            raise FormatError(self._where, f"line {place.line + int(wrong[0])}: {what}")

    def _mistake(self, place: _Place, piece: bytes, cells: Cells, bad: int) -> FormatError:
        """The error for a cell that is not a number."""
        place = place.after(piece[: cells.starts[bad]], cells.before(bad))
        raw = piece[cells.starts[bad] : cells.ends[bad]]
        where, line = self._where, f"line {place.line}"
        if len(raw) > LONGEST:
            what = f"column {place.column + 1}: more than {LONGEST} characters are no number"
            return FormatError(where, f"{line}, {what}")
        ends_line = piece[cells.ends[bad] :].lstrip(b" ")[:1] == b"\n"
        if ends_line and not place.column and not raw.strip(b" \r"):
            return FormatError(where, f"{line} is blank")
        if b"\r" in raw:
            return FormatError(where, f"{line}: a carriage return without a line feed")
        if b"\0" in raw:
            byte = place.byte + raw.index(0) + 1
            return FormatError(where, f"{line}: a NUL byte in column {byte} of the line")
        try:
            cell = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = place.byte + error.start + 1
            return FormatError(where, f"{line}: byte {byte} is not UTF-8")
        return _not_a_number(cell, where, f"{line}, column {place.column + 1}")


@dataclass(frozen=True)
class _Place:
    """Where a piece of text begins: the line, and the cells and bytes of it that came before."""

    line: int
    column: int = 0
    byte: int = 0

    def after(self, piece: bytes, cells: Cells) -> _Place:
        """The place where a piece with these cells ends."""
        lines, count = len(cells.last), len(cells.values)
        if not lines:
            return _Place(self.line, self.column + count, self.byte + len(piece))
        byte = len(piece) - piece.rfind(b"\n") - 1
        return _Place(self.line + lines, count - 1 - int(cells.last[-1]), byte)


def _look(source: Source) -> None:
    """An error for a stream that is not text, before all of it is read: it may be endless."""
    start = source.peek(_LOOK)
    if start[:2] == b"\x1f\x8b":  # what is compressed once was decompressed before
        raise FormatError(source.name, "the bytes are those of gzip: this is not text")
    if 2 * start.count(0) > len(start):
        raise FormatError(source.name, "most bytes are NUL: this is not text")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(source.name, "the text is UTF-16", "save it as UTF-8")
    if start[:3] == b"\xef\xbb\xbf":
        source.read(3)


def _pieces(chunks: deque[Chunk], delimiter: bytes) -> Iterator[bytes]:
    """The text in pieces of whole cells, with line feeds alone; the chunks are freed meanwhile.

    A cell that is too long for a number is cut off.
    """
    rest = b""
    while chunks:
        text = rest + chunks.popleft()[:]
        end = max(text.rfind(delimiter), text.rfind(b"\n")) + 1
        if end:
            piece = text[:end]
            if b"\r" in piece:  # searching is faster than replacing
                piece = piece.replace(b"\r\n", b"\n")
            yield piece
        rest = text[end:]
        if len(rest) > LONGEST:
            yield rest[: LONGEST + 1] + delimiter


def _parse_rest(piece: bytes, cells: Cells) -> int | None:
    """Parse the cells that are left; the first one that is not a number, or None."""
    rest = np.flatnonzero(~cells.parsed)
    if not rest.size:
        return None
    lengths = cells.ends[rest] - cells.starts[rest]
    short = (lengths > 0) & (lengths <= _SHORT)
    bad = [_parse_short(piece, cells, rest[short], lengths[short])] if short.any() else []
    for index in rest[~short].tolist():
        number = _number(piece[cells.starts[index] : cells.ends[index]])
        if number is None:
            bad.append(index)
            break
        cells.values[index] = number
    return min((index for index in bad if index is not None), default=None)


def _parse_short(piece: bytes, cells: Cells, some: Array, lengths: Array) -> int | None:
    """Parse short cells, each different text once, as there may be a nan in every second cell."""
    buffer = np.frombuffer(b"\0" * 8 + piece, np.uint8)
    words = np.ndarray((len(piece) + 1,), "V8", buffer, 0, (1,))[cells.ends[some]].view("<u8")
    words = (words >> (8 * (8 - lengths)).astype(np.uint64)) | (lengths.astype(np.uint64) << 56)
    different, which = np.unique(words, return_inverse=True)
    texts = (int(word).to_bytes(8, "little") for word in different)
    numbers = [_number(text[: text[7]]) for text in texts]
    wrong = np.array([number is None for number in numbers])[which]
    cells.values[some] = np.array([math.nan if n is None else n for n in numbers])[which]
    return int(some[wrong][0]) if wrong.any() else None


def _number(raw: bytes) -> float | None:
    """The number in a cell, None where it is not one or out of range."""
    cell = raw.decode("latin-1").strip(" ")
    if len(raw) > LONGEST or not cell.isascii():
        return None
    if _SPECIAL.fullmatch(cell):
        return float(cell)
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    return None if math.isinf(value) else value


def _not_a_number(raw: str, where: str, place: str) -> FormatError:
    """The error for a cell of at most LONGEST characters that is not a number."""
    cell = raw.strip(" ")
    if not cell:
        return FormatError(where, f"{place}: an empty field")
    if cell.isascii() and _NUMBER.fullmatch(cell):
        return FormatError(where, f"{place}: {cell[:40]} is out of the range of float64")
    shown = visible(cell[:40])
    return FormatError(where, f"{place}: '{shown}' is not a number", _hint(cell, place))


def _hint(cell: str, place: str) -> Words | None:
    for character, name in ((";", "';'"), ("\t", "tab"), (" ", "' '")):
        parts = cell.strip().split(character)
        if len(parts) > 1 and all(map(_NUMBER.fullmatch, parts)):
            return f"the delimiter seems to be {name}: ", Setting("delimiter", character)
    if place.startswith("line 1,") and (cell[:1].isalpha() or cell[:1] in "\"'_#"):
        return Setting("header", True), " skips a header line"
    return None
