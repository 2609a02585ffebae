"""Numbers as text: the very characters that repr and NumPy's str give, for every bit pattern.

`python tests/test_files_text_printing.py 1000000` compares that many random numbers of each kind.
"""

import io
import sys
import tracemalloc

import numpy as np
import pytest

from xentcli.arrays.dtypes import BF16, widen
from xentcli.files.text import printing
from xentcli.files.text.writer import write_table

LARGE = {2: 1e3, 4: 1e6, 8: 1e16}
PATTERNS = {"f2": "u2", "f4": "u4", "f8": "u8"}


def expected(value):
    """Shortest digits, with an exponent where NumPy's str uses one since 2.3."""
    if not np.isfinite(value):
        return str(float(value))
    if value == 0 or 1e-4 <= abs(float(value)) < LARGE[value.itemsize]:
        return np.format_float_positional(value, unique=True, trim="0")
    return np.format_float_scientific(value, unique=True, trim="-", exp_digits=2)


def assert_digits(values):
    found = printing.digits(values, None)
    wanted = (
        list(map(repr, values.tolist())) if values.itemsize == 8 else list(map(expected, values))
    )
    wrong = [pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1]]
    assert not wrong, f"{len(wrong)} of {len(values)} differ: {wrong[:5]}"
    assert len(found) == len(wanted)


def random_bits(dtype, count, rng):
    kind = PATTERNS[dtype]
    return rng.integers(0, np.iinfo(kind).max, count, kind, endpoint=True).view(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_random_bits_have_the_digits_of_repr(dtype, rng):
    assert_digits(random_bits(dtype, 20_000, rng))


def test_every_float16_has_its_digits():
    assert_digits(np.arange(2**16, dtype="u2").view("f2"))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [1, 1e-3, 1e-9, 1e-30, 1e8, 1e20])
def test_numbers_of_one_size_have_the_digits_of_repr(dtype, size, rng):
    assert_digits((rng.standard_normal(3000) * size).astype(dtype))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_edges_have_the_digits_of_repr(dtype):
    info = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        twos = np.ldexp(1.0, np.arange(-1074, 1024)).astype(dtype)
        tens = np.array([float(f"1e{e}") for e in range(-323, 309)]).astype(dtype)
        short = (
            (np.arange(1.0, 1000)[:, None] * 10.0 ** np.arange(-12, 12)).astype(dtype).reshape(-1)
        )
        middle = np.concatenate([twos, tens, short, [info.max, info.tiny, info.smallest_subnormal]])
        near = [np.nextafter(middle, middle.dtype.type(end)) for end in (0, np.inf)]
    assert_digits(np.concatenate([middle, *near, -middle[:100], [0.0, -0.0]]).astype(dtype))


def test_few_numbers_are_left_to_numpy(rng):
    size = np.abs(rng.standard_normal(10_000))
    for kind in printing._FLOATS.values():
        assert np.count_nonzero(~printing._shortest(size, kind).certain) < 5


def test_bfloat16_is_written_as_its_float32():
    values = np.arange(2**16, dtype="<u2").view(BF16)
    stream = io.BytesIO()
    write_table(stream, values.reshape(-1, 256))
    found = stream.getvalue().decode().replace("\n", ",").split(",")
    assert found[:-1] == list(map(expected, widen(values, np.dtype("f4"))))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("decimals", [0, 3, 20])
def test_decimals_are_those_of_python(dtype, decimals, rng):
    values = random_bits(dtype, 300, rng)
    values = np.concatenate([values, rng.standard_normal(300).astype(dtype)])
    wanted = "".join(f"{value:.{decimals}f}\n" for value in values.tolist())
    stream = io.BytesIO()
    write_table(stream, values, ",", decimals)
    assert stream.getvalue().decode() == wanted


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (7, 3), (1, 40_000), (40_000, 1), (5, 16_385)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_lines_and_delimiters_are_where_they_belong(shape, order, rng):
    table = np.asarray(rng.standard_normal(shape), order=order)
    stream = io.BytesIO()
    write_table(stream, table, ";")
    wanted = "".join(";".join(map(repr, row)) + "\n" for row in table.tolist())
    assert stream.getvalue().decode() == wanted


class Nowhere:
    """Counts the bytes that are written, and the most at once."""

    def __init__(self):
        self.count = self.most = 0

    def write(self, data):
        self.count += len(data)
        self.most = max(self.most, len(data))
        return len(data)


@pytest.mark.slow
@pytest.mark.parametrize(("decimals", "columns"), [(None, 10**6), (3, 400_000)])
def test_a_long_line_is_written_in_pieces(decimals, columns):
    table = np.full((1, columns), 1.25)
    stream = Nowhere()
    tracemalloc.start()
    try:
        write_table(stream, table, ",", decimals)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stream.count == columns * (5 if decimals is None else 6)
    assert stream.most < 1 << 20
    assert peak < 16 << 20


if __name__ == "__main__":
    for name in PATTERNS:
        numbers = np.random.default_rng()
        for _ in range(0, int(sys.argv[1]), 100_000):
            assert_digits(random_bits(name, 100_000, numbers))
            assert_digits(numbers.standard_normal(100_000).astype(name))
            assert_digits(numbers.lognormal(0, 9, 100_000).clip(0, 6e4).astype(name))
        sys.stdout.write(f"{name}: {sys.argv[1]} numbers of three sorts, no difference\n")
