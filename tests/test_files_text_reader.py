"""Text read block by block: the same numbers and the same errors however the bytes arrive."""

import io
import sys
import tracemalloc

import numpy as np
import pytest
from helpers import assert_same_bits
from test_files_text import HOSTILE, TARGET_TEXTS

from xentcli.errors import FormatError
from xentcli.files.source import Source
from xentcli.files.text import lines
from xentcli.files.text import reader as text_reader
from xentcli.files.text.reader import TextReader
from xentcli.files.text.writer import write_table

SIZES = [*range(1, 65), 4095, 4096, 4097]
BOM = b"\xef\xbb\xbf"


class Trickle(io.RawIOBase):
    """A stream that hands out few bytes at a time, as a pipe may."""

    def __init__(self, data, size):
        self.data, self.size, self.place = data, size, 0

    def read(self, count=-1):
        count = min(self.size, count if count >= 0 else self.size)
        self.place += count
        return self.data[self.place - count : self.place]


class Endless(io.RawIOBase):
    """A stream that starts with some bytes and then repeats others, so many times."""

    def __init__(self, start, again, times):
        self.start, self.again, self.left = start, again, times

    def read(self, count=-1):
        if self.start:
            data, self.start = self.start[:count], self.start[count:]
            return data
        times = min(max(1, count // len(self.again)), self.left)
        self.left -= times
        self.start = self.again * times
        return self.read(count) if times else b""


def outcome(data, size=1 << 30, **options):
    """The table, or what the error says."""
    try:
        return TextReader(Source(Trickle(data, size), "a table"), **options).read(sys.maxsize)
    except FormatError as error:
        return str(error)


def assert_same(a, b):
    if isinstance(a, str) or isinstance(b, str):
        assert str(a) == str(b)
    else:
        assert_same_bits(a, b)


GOOD = {
    "LF": b"1,-2.5\n3e-5,4.25\n",
    "BOM, CRLF, no end": BOM + b"1.5,-2\r\n3,4\r\n5,6e2",
    "blank lines at the end": b"1,2\r\n3,4\n\n \r\n\r\n \n",
    "blanks": b"  1 , 2\n3, -4  \r\n",
    "words": b"nan,-inf\n+Infinity,NaN\n",
    "long": b"0.1234567890123456789,12345678901234567890123456789\n1e-310,0.00001234567890123\n",
    "column": b"1\n" * 40 + b"2\r\n" * 40,
    "line": b",".join(b"%d.5" % i for i in range(300)),
    "lines of 17 digits": b"0.12345678901234567,-1.2345678901234567e-05\n" * 100,
}
BAD = {name: data for name, (data, _) in HOSTILE.items() if len(data) < 10_000} | {
    "late": b"1,2\n" * 1500 + b"3,x\n" + b"\n\n4\n",
    "late blank": b"1,2\r\n" * 1500 + b"\r\n \n\n" + b"1,2\r\n",
    "late width": b"1,2\n" * 1500 + b"3\n1,x\n",
    "late NUL": b"1,2\n" * 1500 + b"3,\x004\n",
    "CR CR LF": b"1,2\r\r\n3,4\n",
    "blank then bad": b"1,2\n\n\n3,x\n",
    "blank then CR": b"1,2\n \r \n3,4\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("data", [*GOOD.values(), *BAD.values()], ids=[*GOOD, *BAD])
@pytest.mark.parametrize("header", [False, True])
def test_b93_the_bytes_may_arrive_in_any_pieces(data, header, monkeypatch):
    whole = outcome(data, header=header)
    sizes = [size for size in SIZES if size <= len(data)]
    for size in sizes if len(data) < 4000 else (1, 7, 4095, 4096, 4097):
        assert_same(outcome(data, size, header=header), whole)
        monkeypatch.setattr(lines, "CHUNK", size)  # what is read and parsed at a time
        assert_same(outcome(data, header=header), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("name", GOOD)
def test_good_text_is_what_python_reads(name):
    rows = GOOD[name].removeprefix(BOM).decode().rstrip(" \r\n").split("\n")
    wanted = [[float(cell) for cell in row.split(",")] for row in rows]
    assert_same(outcome(GOOD[name]), np.array(wanted))


@pytest.mark.parametrize("data", TARGET_TEXTS.values(), ids=TARGET_TEXTS)
def test_whole_numbers_are_what_python_reads(data):
    rows = data.rstrip().split("\n")
    assert_same(
        outcome(data.encode()), np.array([list(map(float, row.split(","))) for row in rows])
    )


def reader(data, **options):
    return TextReader(Source(io.BytesIO(data), "a table"), **options)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 99, 100, 101])
@pytest.mark.parametrize("chunk", [16, 1000, 1 << 19])
def test_blocks_of_lines_are_the_table(count, chunk, monkeypatch, rng):
    monkeypatch.setattr(lines, "CHUNK", chunk)
    table = rng.standard_normal((100, 7))
    stream = io.BytesIO()
    write_table(stream, table)
    ours = reader(stream.getvalue() + b"\n")
    assert ours.width == 7
    blocks = [ours.read(count) for _ in range(-(-100 // count))]
    assert [len(block) for block in blocks[:-1]] == [count] * (len(blocks) - 1)
    assert_same_bits(np.concatenate(blocks), table)
    for _ in range(2):
        assert_same_bits(ours.read(count), np.empty((0, 7)))
    assert ours.read(0).shape == (0, 7)


def test_a_mistake_is_found_when_its_line_is_read():
    ours = reader(b"1,2\n" * 300_000 + b"3\n")
    assert ours.read(1000).shape == (1000, 2)
    with pytest.raises(FormatError, match="line 300001: 1 field, expected 2 as in line 1"):
        ours.read(300_000)


@pytest.mark.parametrize("length", [999, 1000, 1001])
@pytest.mark.parametrize("fill", ["0", " ", "1"])
def test_b90_a_cell_has_at_most_a_thousand_characters(length, fill):
    cell = "5.".rjust(length, fill) if fill != "1" else "1." + "1" * (length - 2)
    found = outcome(f"1,2\n3,{cell}\n".encode())
    if length <= 1000:
        assert_same(found, np.array([[1, 2], [3, float(cell)]]))
    else:
        assert found == "a table: line 2, column 2: more than 1000 characters are no number"


def peak(act):
    """The most memory that something takes meanwhile."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def drain(source):
    ours = TextReader(source)
    total = 0
    while len(block := ours.read(1000)):
        total += len(block)
    return total


@pytest.mark.parametrize("again", [b"0.125,-3.75e-5,12345.678\r\n", b"1\n", b"nan,-inf\n"])
def test_memory_is_bounded_by_the_block(again):
    found = []
    few, many = (3 << 18, 15 << 18) if b"nan" in again else (2 << 20, 8 << 20)
    sizes = [
        peak(lambda n=n: found.append(drain(Source(Endless(b"", again, n), "x"))))
        for n in (few // len(again), many // len(again))
    ]
    assert found == [few // len(again), many // len(again)]
    assert sizes[1] < 1.1 * sizes[0] < 128 << 20


@pytest.mark.parametrize("again", [b"1", b"1,", b" ", b"x", b"\xff", b"\0"])
def test_b91_a_line_without_an_end_is_an_error(again):
    limit = 128 << 20
    source = Source(Endless(b"1,2\n\r\n" if again != b" " else b"1\n", again, 10**12), "a table")

    def act():
        with pytest.raises(FormatError, match=rf"line [23] is longer than {limit} bytes|NUL"):
            TextReader(source).read(sys.maxsize)

    assert peak(act) < 3 * limit


def test_b91_the_line_that_is_too_long_is_named(monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 10_000)
    monkeypatch.setattr(lines, "CHUNK", 1000)
    assert "line 1 is longer" in outcome(b"1," * 20_000)
    assert "line 3 is longer" in outcome(b"1\n2\n" + b"1," * 20_000)
    assert "line 3 is longer" in outcome(b"a\n1\n" + b"1," * 20_000, header=True)
    assert "line 1 is longer" in outcome(b"a" * 20_000 + b"\n1\n", header=True)
    assert outcome(b"1," * 4000 + b"1\n").shape == (1, 4001)


def test_b91_a_million_columns(rng):
    table = rng.integers(-999, 999, (2, 10**6)) / 8
    data = b"".join(b",".join(map(b"%.3f".__mod__, row)) + b"\n" for row in table.tolist())
    ours = reader(data)
    assert ours.width == 10**6
    assert_same_bits(ours.read(1), table[:1])
    assert_same_bits(ours.read(5), table[1:])


CELLS = 1_000_000  # of the lines below, of which the whole has 2 to 6 million bytes
LONG = {  # a line that is long, and what is wrong with it; its cells take 8 bytes each
    "good": (b"1," * CELLS + b"1\n", None),
    "empty field at the end": (b"1," * CELLS + b"\n", f"line 1, column {CELLS + 1}: an empty"),
    "word at the end": (b"1," * CELLS + b"x\n", f"line 1, column {CELLS + 1}: 'x' is not"),
    "word in the middle": (
        b"1," * (CELLS // 2) + b"x," + b"1," * (CELLS // 2) + b"1\n",
        f"line 1, column {CELLS // 2 + 1}: 'x' is not",
    ),
    "second line": (b"1," * CELLS + b"1\n" + b"1," * CELLS + b"x\n", "line 2, column 1000001"),
    "too short": (
        b"1," * CELLS + b"1\n" + b"1," * (CELLS - 1) + b"1\n",
        "line 2: 1000000 fields, expected 1000001 as in line 1",
    ),
    "many lines": (b"1,2\n" * 20_000 + b"1,x\n", "line 20001, column 2: 'x'"),
    "carriage return": (b"1," * CELLS + b"1\r1\n", "line 1: a carriage return without"),
    "NUL": (b"1," * CELLS + b"\0\n", f"line 1: a NUL byte in column {2 * CELLS + 1} of the line"),
    "not UTF-8": (b"1," * CELLS + b"\xff\n", f"line 1: byte {2 * CELLS + 1} is not UTF-8"),
    "one field": (b"1" * 2 * CELLS + b"\n", "line 1, column 1: more than 1000 characters"),
    "semicolons": (b"1;" * CELLS + b"1\n", "line 1, column 1: more than 1000 characters"),
    "blanks": (b" " * 2 * CELLS + b"1\n", "line 1, column 1: more than 1000 characters"),
    "quotes": (b'"1",' * CELLS + b"1\n", None),
    "open quote": (b'"' + b"1," * CELLS + b"1\n", "line 1, column 1: a quote that is not closed"),
    "words": (b"nan,Inf," * (CELLS // 2) + b"1\n", None),
    "words, then none": (b"nan,Inf," * (CELLS // 2) + b"x\n", f"column {CELLS + 1}: 'x'"),
    "CRLF": (b"1," * CELLS + b"1\r\n" + b"1," * CELLS + b"1\r\n", None),
    "blank line": (b"1," * CELLS + b"1\n\n" + b"1," * CELLS + b"1\n", "line 2 is blank"),
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_line_takes_little_more_memory_than_its_numbers(name):
    """Good or bad: in 0.1 the text and lists of its cells took thirteen times the text."""
    data, words = LONG[name]
    found = []
    most = peak(lambda: found.append(outcome_of_file(data)))
    if words is None:
        assert found[0] == (data.count(b"\n"), CELLS + 1)
    else:
        assert found[0].startswith("a table: "), found
        assert words in found[0]
    numbers = 8 * len(data) // 2  # each takes two bytes of text or more
    assert most < numbers + (10 << 20)


def outcome_of_file(data):
    """The shape, read line by line, from a source that holds no copy of the data itself."""
    try:
        ours, count = TextReader(Source(io.BytesIO(data), "a table")), 0
        while len(ours.read(1)):
            count += 1
        return count, ours.width
    except FormatError as error:
        return str(error)


@pytest.mark.parametrize("name", ["good", "words", "word in the middle", "second line"])
def test_a_long_line_is_parsed_a_piece_at_a_time_and_no_cell_twice(name, monkeypatch):
    sizes = []
    real = text_reader.parse
    monkeypatch.setattr(
        text_reader,
        "parse",
        lambda text, *more: (sizes.append(len(text.text)), real(text, *more))[1],
    )
    outcome_of_file(LONG[name][0])
    assert max(sizes) <= 2 * lines.CHUNK
    assert sum(sizes) <= len(LONG[name][0])


def test_short_words_are_not_mistaken_for_each_other():
    """Cells of up to seven bytes are compared as words of eight."""
    for bad in (b"nan\0", b"\0nan", b"na", b"nann", b"\0", b"inf\0\0\0\0", b"infinit"):
        assert "NUL" in (text := outcome(b"nan,inf," + bad + b",nan\n")) or "not a number" in text
    good = b"nan,-nan,+inf,-0e-999,1e-999,-1E-400,Infinity,-inf,NAN,1e0000000000005"
    with np.errstate(all="raise"):
        assert_same(outcome(good), np.array([[float(cell) for cell in good.split(b",")]]))


def test_b92_what_is_no_text_is_refused_before_it_is_read():
    for again, words in ((b"\0", "NUL"), (b"\x1f\x8b", "gzip")):
        stream = Endless(b"", again, 10**12)
        with pytest.raises(FormatError, match=words):
            TextReader(Source(stream, "a table"))
        assert stream.left > 10**12 - 5000


@pytest.mark.parametrize("delimiter", [" ", "\t", ";", "|", ":", "'", "/", "@", "~", "\x7f"])
def test_delimiters_do_not_change_the_numbers(delimiter, rng):
    table = rng.standard_normal((30, 5))
    stream = io.BytesIO()
    write_table(stream, table, delimiter)
    assert_same_bits(reader(stream.getvalue(), delimiter=delimiter).read(30), table)


def assert_as_float(cells):
    assert_same(outcome("\n".join(cells).encode()), np.array([[float(cell)] for cell in cells]))


@pytest.mark.parametrize("halvings", range(7))
def test_exact_middles_are_rounded_to_even(halvings, rng):
    odd = rng.integers(2**52, 2**53, 500) * 2 + 1
    tail = [str(5**halvings * int(n)) for n in odd]
    assert_as_float([f"{digits}e-{halvings}" for digits in tail])


@pytest.mark.parametrize("scale", [*range(-40, 41), -300, -249, -251, 269, 271])
def test_every_power_of_ten_is_exact(scale, rng):
    assert_as_float([f"{n}e{scale}" for n in rng.integers(10**14, 10**15, 200)])
    assert_as_float([f"{n}e{scale}" for n in rng.integers(10**17, 10**18, 200)])


def test_exponents_may_have_any_number_of_digits():
    assert_as_float(["1e0000005", "2e-00000005", "3e-1005", "0e1005", "4e+0000", "5e-99999"])
    assert (
        outcome(b"1\n1e1005\n")
        == "a table: line 2, column 1: 1e1005 is out of the range of float64"
    )
