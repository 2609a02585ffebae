"""Text against Python's own float, on numbers that are hard to round and on bytes of any kind.

`python tests/property/test_text.py 100` runs a hundred times as many examples.
"""

import io
import math
import re
import struct
import sys
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from xentcli.errors import FormatError
from xentcli.files.source import Source
from xentcli.files.text import lines
from xentcli.files.text.reader import TextReader
from xentcli.files.text.writer import write_table

TIMES = int(sys.argv[1]) if __name__ == "__main__" else 1

doubles = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
plain = st.floats(allow_nan=False, allow_infinity=False)


def read(data):
    return TextReader(Source(io.BytesIO(data), "a table")).read(sys.maxsize)


def bits(numbers):
    return [struct.pack("d", number) for number in numbers]


def assert_as_float(cells):
    found = read("\n".join(cells).encode())[:, 0].tolist()
    wrong = [
        c for c, f, w in zip(cells, bits(found), bits(map(float, cells)), strict=True) if f != w
    ]
    assert not wrong


def middle(number, digits):
    """The first digits of the number halfway to the next float64, which is the hardest to round."""
    following = math.nextafter(number, math.inf)
    if math.isinf(following):
        return "0"
    exact = (Fraction(number) + Fraction(following)) / 2
    exponent = len(str(abs(exact.numerator))) - len(str(exact.denominator))
    whole = exact * Fraction(10) ** (digits - exponent)
    return f"{int(whole)}e{exponent - digits}"


@st.composite
def decimals(draw):
    """Digits with a point somewhere, perhaps an exponent."""
    digits = draw(
        st.text("0123456789", min_size=1, max_size=draw(st.sampled_from([5, 17, 24, 40])))
    )
    place = draw(st.integers(0, len(digits)))
    point = draw(st.sampled_from(["", "."]))
    scale = draw(st.sampled_from(["", f"e{draw(st.integers(-330, 260))}", "E+1", "e-07", "e+007"]))
    return draw(st.sampled_from(["", "-", "+"])) + digits[:place] + point + digits[place:] + scale


@settings(max_examples=100 * TIMES, deadline=None)
@given(st.lists(decimals(), min_size=1, max_size=50))
def test_decimals_are_read_as_float_reads_them(cells):
    cells = [cell for cell in cells if abs(float(cell)) < np.inf]
    if cells:
        assert_as_float(cells)


@settings(max_examples=100 * TIMES, deadline=None)
@given(st.lists(st.tuples(plain, st.integers(14, 24)), min_size=1, max_size=50))
def test_numbers_near_a_middle_are_read_as_float_reads_them(pairs):
    assert_as_float([middle(number, digits) for number, digits in pairs])


@settings(max_examples=100 * TIMES, deadline=None)
@given(
    st.lists(doubles, min_size=1, max_size=50),
    st.sampled_from(["r", ".16e", ".17g", ".9g", ".15f"]),
)
def test_any_bits_are_read_as_float_reads_them(numbers, style):
    cells = [repr(n) if style == "r" else format(n, style) for n in numbers if np.isfinite(n)]
    if cells:
        assert_as_float(cells)


@settings(max_examples=100 * TIMES, deadline=None)
@given(st.lists(doubles, min_size=1, max_size=50), st.booleans())
def test_any_bits_are_written_as_repr_and_read_back(numbers, single):
    with np.errstate(over="ignore", invalid="ignore"):
        table = np.array([numbers], "f4" if single else "f8")
    stream = io.BytesIO()
    write_table(stream, table)
    back = read(stream.getvalue()).astype(table.dtype)
    known = ~np.isnan(table)
    assert back[known].tobytes() == table[known].tobytes()
    if not single:
        assert stream.getvalue().decode() == ",".join(map(repr, numbers)) + "\n"


NUMBER = re.compile(r" *[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|infinity) *", re.I | re.A)


def naive(data):
    """The table by split and float, or None where it is none."""
    rows = data.split(b"\n")
    while rows and not rows[-1].strip(b" \r"):
        rows.pop()
    cells = [row.removesuffix(b"\r").decode("latin-1").split(",") for row in rows]
    if not cells or any(
        len(row) != len(cells[0]) or not all(map(NUMBER.fullmatch, row)) for row in cells
    ):
        return None
    table = np.array([list(map(float, row)) for row in cells])
    named = sum("n" in cell.lower() for row in cells for cell in row)
    return table if np.count_nonzero(~np.isfinite(table)) == named else None


LINES = st.lists(
    st.lists(
        st.one_of(st.text("0123456789.eE+- naif_x\r", max_size=6), decimals(), doubles.map(repr)),
        min_size=1,
        max_size=3,
    ).map(",".join),
    max_size=5,
)
ENDS = st.sampled_from(["\n", "\r\n", "\n", "\n\n", ",\n"])


@settings(max_examples=500 * TIMES, deadline=None)
@given(
    st.lists(st.tuples(LINES.map("\n".join), ENDS).map("".join), max_size=3).map("".join),
    st.integers(1, 30),
)
def test_any_text_is_what_split_and_float_make_of_it_or_an_error(written, chunk):
    data = written.encode()
    wanted = naive(data)
    usual, lines.CHUNK = lines.CHUNK, chunk
    try:
        found = read(data)
    except FormatError:
        found = None
    finally:
        lines.CHUNK = usual
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert found.shape == wanted.shape
        assert bits(found.reshape(-1)) == bits(wanted.reshape(-1))


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("test_"):
            check()
            sys.stdout.write(f"{name}: nothing found\n")
