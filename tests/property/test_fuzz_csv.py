"""Bytes that claim to be a table, in random pieces: what a split and `float` make of them, or
our error.

`python tests/fuzz.py` runs the same for minutes.
"""

import codecs
import io
import math
import re
from contextlib import closing, contextmanager

import numpy as np
import pytest
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli.errors import XentError
from xentcli.files.columns import ColumnOptions
from xentcli.files.options import ReadOptions
from xentcli.files.source import Source
from xentcli.files.text import lines, table
from xentcli.files.text.style import TextStyle

NUMBER = re.compile(r" *[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|infinity) *", re.I | re.A)
SPECIAL = re.compile(r" *[+-]?(nan|inf|infinity) *", re.I)
LONGEST = 1000  # characters of a cell

ODD = [
    *("nan", "-NaN", "+inf", "-Infinity", "1e400", "-1e-400", "", " ", "0x1", "1_0", "１", "1e"),
    *(
        "'1'",
        '"1"',
        ' "1"',
        '"1" ',
        '"1""',
        '""',
        '"1,2"',
        '"',
        "1\r",
        "\r",
        "\0",
        "1\x0b",
        "\ufeff1",
        "-",
        "+-1",
        "1" * 1000,
        "1" * 1001,
    ),
    *(" 1", "1 ", "\t1", "\xa01", "01", "1.", ".5", ".", "e5", "in", "infin", "nan(1)", "1d5"),
]
CELLS = st.one_of(
    st.integers(-20, 20).map(str),
    st.floats().map(repr),
    st.floats(width=32).map(lambda x: f"{x:.9g}"),
    st.tuples(st.integers(0, 10**22), st.integers(-345, 310)).map(lambda p: f"{p[0]}e{p[1]}"),
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**12)).map(lambda p: f"{p[0]}.{p[1]}"),
    st.sampled_from(ODD),
)
RIGHT = st.one_of(st.floats().map(repr), st.integers(-99, 99).map(str))
ENDS = st.sampled_from(["\n", "\n", "\n", "\n", "\r\n", "\r", "\n\n", "\n \r\n", ""])


@st.composite
def bodies(draw, delimiter):
    """Lines of cells of one width, all right but for a few odd cells and ends of lines."""
    width, end = draw(st.integers(1, 4)), draw(st.sampled_from(["\n", "\r\n"]))
    rows = [[draw(RIGHT) for _ in range(width)] for _ in range(draw(st.integers(1, 12)))]
    ends = [end for _ in rows]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 9]))):
        row = draw(st.integers(0, len(rows) - 1))
        where = draw(st.integers(-1, 2 * width))
        if where < 0:
            del rows[row][-1:]
        elif where < width:
            rows[row][where : where + 1] = [draw(CELLS)]
        else:
            ends[row] = draw(ENDS)
    lines_of_text = (delimiter.join(row) + end for row, end in zip(rows, ends, strict=True))
    return "".join(lines_of_text).encode("utf-8", "surrogatepass")


@st.composite
def examples(draw):
    """Bytes, a delimiter, whether there is a header, columns left out, and sizes of pieces."""
    delimiter = draw(st.sampled_from(",,,,\t; |"))
    data = draw(st.one_of(bodies(delimiter), bodies(delimiter), st.binary(max_size=30)))
    data = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"a,b\n", b"\xff\r\n"])) + data
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=2)) + data[place + draw(st.integers(0, 2)) :]
    cuts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    sizes = draw(st.integers(1, 60)), draw(st.integers(1, 12))
    skipped = draw(st.sampled_from([0, 0, 1]))
    return data, delimiter, draw(st.booleans()), skipped, (cuts, sizes, draw(st.integers(1, 5)))


EXAMPLES = examples()


class Pieces(io.RawIOBase):
    """A stream that hands out so many bytes at a time, by turns."""

    def __init__(self, data, cuts):
        self.data, self.cuts, self.place, self.turn = data, cuts, 0, 0

    def read(self, count=-1):
        self.turn += 1
        size = self.cuts[self.turn % len(self.cuts)]
        size = size if count < 0 else min(size, count)
        found = self.data[self.place : self.place + size]
        self.place += len(found)
        return found


@contextmanager
def pieces_of(chunk, ahead):
    """Few bytes are read and parsed at a time, few numbers are held."""
    before = lines.CHUNK, table.AHEAD
    lines.CHUNK, table.AHEAD = chunk, ahead
    try:
        yield
    finally:
        lines.CHUNK, table.AHEAD = before


CONTROL = {*range(9), *range(14, 27), 28, 29, 30, 31}


def is_utf_8(start):
    """Whether bytes are text, of which the last character may be cut."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(start)
    except UnicodeDecodeError:
        return False
    return True


def by_hand(data, delimiter, header, skipped):
    """The table of numbers without some columns on its left, or None where it is none."""
    start = data[:4096]
    if start[:2] in (b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b") or 2 * start.count(0) > len(start):
        return None
    if set(start) & CONTROL and not is_utf_8(start):  # binary
        return None
    rows = list(lines_of(data.removeprefix(b"\xef\xbb\xbf")))[header:]
    while rows and not rows[-1].strip(b" \r"):
        rows.pop()
    if not all(row.strip(b" \r") for row in rows):
        return None
    cells = [split(row.removesuffix(b"\r").decode("latin-1"), delimiter) for row in rows]
    if len({len(row) for row in cells}) != 1 or len(cells[0]) <= skipped:
        return None
    numbers = [[number(cell) for cell in row[skipped:]] for row in cells]
    return None if any(None in row for row in numbers) else np.array(numbers)


def lines_of(data):
    """The lines: a line feed after an odd number of quotes ends none."""
    line = b""
    for part in data.split(b"\n"):
        line += part
        if line.count(b'"') % 2 == 0:
            yield line
            line = b""
        else:
            line += b"\n"
    if line:
        yield line


def split(line, delimiter):
    """The cells of a line: a delimiter after an odd number of quotes is part of a cell."""
    cells, quotes = [""], 0
    for sign in line:
        quotes += sign == '"'
        if sign == delimiter and quotes % 2 == 0:
            cells.append("")
        else:
            cells[-1] += sign
    return [cell for cell in cells if cell] if delimiter == " " else cells


def number(cell):
    """The number in a cell, in quotes or not, or None."""
    bare = re.fullmatch(r' ?"([^"]*)"', cell)
    text = bare[1] if bare else cell
    if len(cell) > LONGEST or not NUMBER.fullmatch(text):
        return None
    return float(text) if SPECIAL.fullmatch(text) or math.isfinite(float(text)) else None


def by_us(data, delimiter, header, skipped, pieces):
    """The table by the readers of the command line, some lines at a time; None for our error."""
    cuts, sizes, rows = pieces
    style = TextStyle(delimiter, "yes" if header else "no")
    how = ReadOptions(style=style, columns=ColumnOptions(keep=(f"{skipped + 1}-",)))
    try:
        with pieces_of(*sizes), closing(Source(Pieces(data, cuts), "a stream")) as source:
            reader = table.open_text(source, how, ",")
            count, width = reader.shape
            parts = [
                reader.read(width * min(rows, count - start)) for start in range(0, count, rows)
            ]
            reader.finish()
    except XentError as error:
        return None if str(error).isprintable() else f"control characters: {error!r}"
    return np.concatenate(parts).reshape(count, width)


def check(example):
    """Ours is that by hand, and there is one for both or for neither."""
    ours, theirs = by_us(*example), by_hand(*example[:4])
    assert not isinstance(ours, str), ours
    assert (ours is None) == (theirs is None), f"ours {ours!r}, by hand {theirs!r}"
    if ours is not None:
        assert_same_bits(ours, theirs)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(EXAMPLES)
def test_any_bytes_in_any_pieces_are_what_a_split_and_float_make_of_them(example):
    check(example)


@pytest.mark.parametrize("wrong", [None, "\x1b", np.array([[1.0, 3.0]]), np.ones((2, 1))])
def test_the_check_finds_another_table_and_none(wrong, monkeypatch):
    example = b"1,2\n", ",", False, 0, ([1], (1, 1), 1)
    check(example)
    monkeypatch.setattr("test_fuzz_csv.by_us", lambda *given: wrong)
    with pytest.raises(AssertionError):
        check(example)
