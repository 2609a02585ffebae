"""Numbers in text: CSV, TSV and any other one-character delimiter.

NumPy's reader is exact and fast, and it lets pass what a person would call a mistake: blank
lines, comments, `1_000`, `1e400`. So the characters are checked first, NumPy does the work, and
when anything is wrong the lines are read again, slowly, to say where.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np

from xentcli.dtypes import BF16, Array, widen
from xentcli.errors import FormatError, visible
from xentcli.formats.sink import Writable

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SPECIAL = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WORDS = re.compile(rb"nan|inf", re.IGNORECASE)
_LETTERS = b"0123456789+-.eEnaifNAIFtyTY \r\n"
_BLANK_LINE = re.compile(rb"\A[ \r]*\n|\n[ \r]*\n")
_LONE_CR = re.compile(rb"\r(?!\n)")
LOOK = 4096  # bytes that are looked at before all are read
_LONGEST = 1000  # characters in a cell


def read(data: bytes, where: str, delimiter: str = ",", header: bool = False) -> Array:
    """A table of numbers as float64, (lines, cells)."""
    data = _without_mark(data, where)
    first = 1
    if header:
        _, _, data = data.partition(b"\n")
        first = 2
    if not data.strip():
        raise FormatError(where, "the file is empty" if first == 1 else "only a header line")
    data = data.rstrip(b" \r\n")
    clean = not data.translate(None, _LETTERS + delimiter.encode())
    longest = max(map(len, data.replace(b"\n", delimiter.encode()).split(delimiter.encode())))
    if not clean or longest > _LONGEST or _BLANK_LINE.search(data) or _LONE_CR.search(data):
        _complain(data, where, delimiter, first)
    try:
        table = np.loadtxt(
            io.StringIO(data.decode("ascii")), delimiter=delimiter, comments=None, ndmin=2
        )
    except ValueError:
        _complain(data, where, delimiter, first)
    special = np.count_nonzero(~np.isfinite(table))
    if special and special != len(_WORDS.findall(data)):
        _complain(data, where, delimiter, first)  # nan and inf are numbers here, 1e400 is not
    return table


def refuse_binary(start: bytes, where: str) -> None:
    """Stop before a stream of other bytes, perhaps one without an end, is read as text."""
    if start[:2] == b"\x1f\x8b":
        raise FormatError(where, "the data are compressed with gzip", "gunzip -c FILE | xent … -")
    if 2 * start.count(0) > len(start):
        raise FormatError(where, "most bytes are NUL: this is no text")


def _without_mark(data: bytes, where: str) -> bytes:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(where, "the text is UTF-16", "save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf")


def _complain(data: bytes, where: str, delimiter: str, first: int) -> None:
    for _ in _cells(data, where, delimiter, first):
        pass
    raise FormatError(where, "the text is not a table of numbers")


def _cells(data: bytes, where: str, delimiter: str, first: int) -> Iterator[float]:
    """Read cell by cell; raise where the first one is wrong."""
    width = None
    lines = data.split(b"\n")
    for number, raw in enumerate(lines, first):
        line = _line(raw.removesuffix(b"\r"), f"line {number}", where)
        cells = line.split(delimiter)
        for column, cell in enumerate(cells, 1):
            yield _value(cell.strip(" "), where, f"line {number}, column {column}", line)
        width = width or len(cells)
        if len(cells) != width:
            found = f"{len(cells)} field{'s' if len(cells) > 1 else ''}"
            raise FormatError(where, f"line {number}: {found}, expected {width} as in line {first}")


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


def _value(cell: str, where: str, place: str, line: str) -> float:
    if not cell:
        raise FormatError(where, f"{place}: an empty field")
    if len(cell) > _LONGEST:
        raise FormatError(where, f"{place}: {len(cell)} characters are no number")
    if _SPECIAL.fullmatch(cell):
        return float(cell)
    if not (cell.isascii() and _NUMBER.fullmatch(cell)):
        raise FormatError(
            where, f"{place}: '{visible(cell[:40])}' is not a number", _hint(cell, place)
        )
    value = float(cell)
    if np.isinf(value):
        raise FormatError(where, f"{place}: {cell[:40]} is out of the range of float64")
    return value


def _hint(cell: str, place: str) -> str | None:
    for character, name in ((";", "';'"), ("\t", "tab"), (" ", "' '")):
        parts = cell.strip().split(character)
        if len(parts) > 1 and all(map(_NUMBER.fullmatch, parts)):
            option = r"$'\t'" if name == "tab" else name
            return f"the delimiter seems to be {name}: -d {option}"
    if place.startswith("line 1,") and (cell[:1].isalpha() or cell[:1] in "\"'_#"):
        return "--header skips a first line of names"
    return None


def write(
    stream: Writable, array: Array, delimiter: str = ",", decimals: int | None = None
) -> None:
    """A table of 1 or 2 axes, one number per line if 1; the shortest digits for the same bits."""
    if array.dtype == BF16:
        array = widen(array, np.dtype(np.float32))
    table = array.reshape(-1, array.shape[-1]) if array.ndim == 2 else array.reshape(-1, 1)
    for row in table:
        stream.write((delimiter.join(digits(row, decimals)) + "\n").encode("ascii"))


def digits(values: Array, decimals: int | None) -> list[str]:
    """Numbers as text: the shortest that give the same bits, or rounded to `decimals`.

    >>> digits(np.float32([0.1, 1e-8, np.inf]), None), digits(np.float64([0.125]), 2)
    (['0.1', '1e-08', 'inf'], ['0.12'])
    """
    if decimals is not None:
        return [f"{value:.{decimals}f}" for value in values.tolist()]
    if values.dtype == np.float64:
        return [repr(value) for value in values.tolist()]
    return [str(value) for value in values]
