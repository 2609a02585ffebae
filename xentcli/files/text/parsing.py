"""Parse decimal numbers to float64, thousands at a time and correctly rounded, as strtod does.

Eight digits are one 64-bit word, and a word becomes a number in three multiplications. A cell
that this cannot parse (a word like nan, more than 24 digits, a result too near the middle between
two float64) is left to the caller, who parses it with Python's float.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files.text.dialect import Marked
from xentcli.files.text.powers_of_ten import ERROR_BOUND, power, times_power
from xentcli.records import dataclass

_NOTHING = np.empty(0), np.empty(0, np.bool_)
LONGEST = 1000  # characters in a cell
_WORDS = 3  # of eight digits, behind the point
_PAD = b"\n" * 8 * _WORDS  # so that words may begin before the text
_SCALES = (-250, 270)  # powers of ten that keep every product in range
_MOST = 8 * _WORDS  # bytes of digits and a point
_FRONT = 18 * 10**10  # before eight more digits: below 2**64

_POINT, _E, _MINUS, _PLUS, _LINE, _BLANK = b".e-+\n "
_ONES = 0x0101010101010101
# Which bytes of a word belong to the last n of some words, from 16 words' bytes on.
_LAST = np.array(
    [2**64 - 2 ** (64 - 8 * min(max(n - 8 * (_WORDS - 1), 0), 8)) for n in range(2 * _MOST)],
    np.uint64,
)


@dataclass(frozen=True)
class Cells:
    """Cells of a piece of text: their numbers, which are parsed, and where they are.

    Some columns may be left out: `count` and `last` are of all cells, `index` says which of them
    these are, None if they are all.
    """

    values: Array
    parsed: Array
    starts: Array
    ends: Array
    last: Array  # the index of the last cell of each line
    count: int
    index: Array | None = None

    def before(self, place: int) -> Cells:
        """The cells before one of these, which are all that is read of them."""
        count = place if self.index is None else int(self.index[place])
        return Cells(
            self.values[:place],
            self.parsed[:place],
            self.starts[:place],
            self.ends[:place],
            self.last[: np.searchsorted(self.last, count)],
            count,
            None if self.index is None else self.index[:place],
        )


@dataclass(frozen=True)
class Place:
    """Where a piece of text begins: the line, and the cells and bytes of it that came before."""

    line: int
    column: int = 0
    byte: int = 0

    def after(self, piece: bytes, cells: Cells) -> Place:
        """The place where a piece with these cells ends."""
        feeds = piece.count(b"\n") if b"\n" in piece else 0  # counting is slow; some may be quoted
        byte = len(piece) - piece.rfind(b"\n") - 1 if feeds else self.byte + len(piece)
        if len(cells.last):
            return Place(self.line + feeds, cells.count - 1 - int(cells.last[-1]), byte)
        return Place(self.line + feeds, self.column + cells.count, byte)


@dataclass(frozen=True)
class _Marks:
    """Where the parts of every cell are."""

    starts: Array
    ends: Array
    last: Array
    point: Array  # the position of the point, or of what ends the mantissa
    has_point: Array
    has_exponent: Array
    stop: Array  # the end of the mantissa
    plain: Array  # at most one point, then at most one exponent

    def of(self, index: Array) -> _Marks:
        """Those of some cells; the lines are the same."""
        parts = {name: part[index] for name, part in vars(self).items() if name != "last"}
        return replace(self, **parts)


def parse(marked: Marked, wanted: Array | None = None, column: int = 0) -> Cells:
    """Parse cells that each end in a delimiter or a line feed; the first is in `column`.

    Only the columns that are `wanted` are parsed, by default all.
    """
    buffer = np.frombuffer(_PAD + marked.text, np.uint8)
    marks, index = _find(buffer, ord(marked.end)), None
    if marked.runs:
        marks = _without_empty(marks, column)
    count = len(marks.ends)
    if wanted is not None:
        index = _columns(marks.last, count, wanted, column)
        marks = marks.of(index)
    if marked.end != b" " and b" " in marked.text:
        marks = _trimmed(buffer, marks)
    values, parsed = _values(buffer, marks) if len(marks.ends) else _NOTHING
    pad = len(_PAD)
    return Cells(values, parsed, marks.starts - pad, marks.ends - pad, marks.last, count, index)


def cell_count(marked: Marked, column: int = 0) -> tuple[int, bool]:
    """How many cells of the first line are in a text, and whether the line ends in it."""
    marks = _find(np.frombuffer(_PAD + marked.text, np.uint8), ord(marked.end))
    marks = _without_empty(marks, column) if marked.runs else marks
    return (int(marks.last[0]) + 1, True) if len(marks.last) else (len(marks.ends), False)


def _columns(last: Array, count: int, wanted: Array, column: int) -> Array:
    """The indices of the cells that are in columns that are wanted."""
    width = len(wanted)
    if not column and np.array_equal(last, np.arange(width - 1, count, width)):
        starts = np.arange(0, count, width)
        if len(starts) == len(last):
            return np.asarray(starts[:, None] + np.flatnonzero(wanted)).reshape(-1)
    index = np.arange(count)
    begins = np.append(-column, last + 1)
    columns = index - begins[np.searchsorted(last, index)]
    return np.flatnonzero((columns < width) & wanted.take(columns, mode="clip"))


def _without_empty(marks: _Marks, column: int) -> _Marks:
    """The same without empty cells: several blanks in a row part as one does.

    A line of blanks alone keeps one cell, unless its other cells came before this text.
    """
    kept = marks.ends > marks.starts
    filled = np.append(0, np.cumsum(kept))[marks.last + 1]
    blank = np.diff(filled, prepend=-column) == 0
    kept[marks.last[blank]] = True
    return replace(marks.of(np.flatnonzero(kept)), last=np.cumsum(kept)[marks.last] - 1)


def _find(buffer: Array, delimiter: int) -> _Marks:
    ends = (buffer == delimiter) | (buffer == _LINE)
    special = ends | (buffer == _POINT) | ((buffer | 0x20) == _E)
    places = np.flatnonzero(special[len(_PAD) - 1 :]) + (len(_PAD) - 1)
    kinds = buffer[places]
    index = np.flatnonzero((kinds == delimiter) | (kinds == _LINE))
    first, final = index[:-1] + 1, index[1:]
    has_point = kinds[first] == _POINT
    second = first + has_point
    has_exponent = (kinds[second] | 0x20) == _E
    return _Marks(
        starts=places[index[:-1]] + 1,
        ends=places[final],
        last=np.flatnonzero(kinds[final] == _LINE),
        point=places[first],
        has_point=has_point,
        has_exponent=has_exponent,
        stop=places[second],
        plain=final == second + has_exponent,
    )


def _trimmed(buffer: Array, marks: _Marks) -> _Marks:
    """The same without the blanks around each cell."""
    starts, ends = marks.starts.copy(), marks.ends.copy()
    some = np.flatnonzero(ends - starts <= LONGEST)
    some = some[buffer[starts[some]] == _BLANK]
    while some.size:
        starts[some] += 1
        some = some[buffer[starts[some]] == _BLANK]
    some = np.flatnonzero((ends - starts <= LONGEST) & (ends > starts))
    some = some[buffer[ends[some] - 1] == _BLANK]
    while some.size:
        ends[some] -= 1
        some = some[buffer[ends[some] - 1] == _BLANK]
    stop = np.where(marks.has_exponent, marks.stop, ends)
    return replace(marks, starts=starts, ends=ends, stop=stop)


def _values(buffer: Array, marks: _Marks) -> tuple[Array, Array]:
    sign = buffer[marks.starts]
    begin = marks.starts + ((sign == _MINUS) | (sign == _PLUS))
    count = marks.stop - begin - marks.has_point
    parsed = marks.plain & (count > 0) & (count < _MOST)
    behind = marks.stop - 1 - np.where(marks.has_point, marks.point, begin - 1)
    if not parsed.all():
        count, behind = np.where(parsed, count, 1), np.where(parsed, behind, 1)
    mantissa, good = _digits(buffer, marks.stop, count, behind)
    exponent, fine = _exponents(buffer, marks)
    exponent -= behind * marks.has_point
    parsed &= good & fine & (exponent >= _SCALES[0]) & (exponent <= _SCALES[1])
    if not parsed.all():
        mantissa, exponent = np.where(parsed, mantissa, 0), np.where(parsed, exponent, 0)
    values, rounded = _scaled(mantissa, exponent)
    return np.where(sign == _MINUS, -values, values), parsed & rounded


def _scaled(mantissa: Array, exponent: Array) -> tuple[Array, Array]:
    """mantissa · 10**exponent, and where that is correctly rounded for certain."""
    high = mantissa.astype(np.float64)
    if mantissa.max() < 2**53 and exponent.max() <= 0 and exponent.min() >= -22:
        return high / power(-exponent), np.ones(len(high), np.bool_)  # both are exact
    low = (mantissa - high.astype(np.uint64)).view(np.int64).astype(np.float64)
    high, low = times_power(high, low, exponent)
    slack = high * ERROR_BOUND
    return high, (high + (low + slack) == high) & (high + (low - slack) == high)


def _exponents(buffer: Array, marks: _Marks) -> tuple[Array, Array]:
    """The exponents after an e, else 0, and where they are at most three digits."""
    exponents, plain = np.zeros(len(marks.ends), np.int64), np.ones(len(marks.ends), np.bool_)
    some = np.flatnonzero(marks.has_exponent)
    if some.size:
        start, end = marks.stop[some] + 1, marks.ends[some]
        sign = buffer[start]
        length = end - start - ((sign == _MINUS) | (sign == _PLUS))
        count = np.clip(length, 1, 3)
        number, good = _digits(buffer, end, count, count)
        size = number.astype(np.int64)
        exponents[some] = np.where(sign == _MINUS, -size, size)
        plain[some] = good & (length == count)
    return exponents, plain


def _digits(buffer: Array, ends: Array, count: Array, behind: Array) -> tuple[Array, Array]:
    """The integers of the `count` digits that end at `ends`, and where all of these are digits.

    `behind` is the number of digits after a decimal point, which is skipped.
    """
    words = min(_WORDS, -(-(int(count.max()) + 1) // 8))
    size = 8 * words
    every = np.ndarray((len(buffer) - size + 1,), f"V{size}", buffer, 0, (1,))
    raw = every[ends - size].view("<u8").reshape(-1, words)
    total, wrong = np.zeros(len(ends), np.uint64), np.zeros(len(ends), np.uint64)
    for word in range(words):
        last = _LAST[8 * word + 8 * (_WORDS - words) :]
        moved = raw[:, word] << 8
        if word:
            moved |= raw[:, word - 1] >> 56
        moved ^= (raw[:, word] ^ moved) & last.take(behind)
        digits = (moved ^ (0x30 * _ONES)) & last.take(count)
        wrong |= (digits + 0x76 * _ONES) | digits  # a byte above 9 gets its highest bit
        if word == 2:
            wrong |= np.where(total < _FRONT, np.uint64(0), np.uint64(0x80 * _ONES))
        total = total * 10**8 + _eight(digits)
    return total, (wrong & (0x80 * _ONES)) == 0


def _eight(digits: Array) -> Array:
    """Eight bytes of 0 to 9, the first in the lowest byte, as an integer; by pairs, then fours."""
    pairs = digits * 10 + (digits >> 8)
    lower, upper = pairs & 0x000000FF000000FF, (pairs >> 16) & 0x000000FF000000FF
    fours = lower * (100 + (1000000 << 32)) + upper * (1 + (10000 << 32))
    result: Array = fours >> 32
    return result
