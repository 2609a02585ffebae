"""CSV, TSV and other delimiters: what is a number and what is a mistake, and exact round trips."""

import gzip
import io
import sys

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    TARGETS,
    assert_done,
    assert_error,
    assert_unchanged,
    contents,
    inside,
    npy,
    run,
    strict_json,
)
from helpers import assert_same_bits

from xentcli.files.source import Source
from xentcli.files.text.reader import TextReader
from xentcli.files.text.writer import write_table

NO_NUMBERS = {
    "abc": "abc",
    "NA": "NA",
    "null": "null",
    "minus": "-",
    "1.INF": "1.#INF",
    "nan-payload": "nan(123)",
    "half-exponent": "1e",
    "suffix-f": "0.1f",
    "fortran-exponent": "1d5",
    "hexadecimal": "0x1p-2",
    "boolean": "TRUE",
    "two-points": "1.2.3",
    "point": ".",
    "two-signs": "+-1",
    "inner-blank": "1 000",
    "complex": "1j",
}

# The second line, second column is the bad one, unless the words say otherwise.
HOSTILE = {
    "B66-empty": (b"", ["empty"]),
    "B66-blank-lines-only": (b"\n\n \n", ["empty"]),
    "B66-BOM-only": (b"\xef\xbb\xbf", ["empty"]),
    "B68-UTF-16-LE": ("\ufeff1,2\n".encode("utf-16-le"), ["UTF-16"]),
    "B68-UTF-16-BE": ("\ufeff1,2\n".encode("utf-16-be"), ["UTF-16"]),
    "B70-lone-CR": (b"1,2\r3,4\r", ["line 1", "carriage return"]),
    "B70-lone-CR-in-a-line": (b"1,2\n3,\r4\n", ["line 2", "carriage return"]),
    "B71-header-of-another-width": (b"a,b\n1,2,3,4\n", ["line 1", "2 names", "4 fields"]),
    "B71-second-header": (b"a,b\nc,d\n1,2\n", ["line 2", "'c'", "not a number"]),
    "B72-comment-in-a-line": (b"1,2,9\n1,2#,9\n", ["line 2", "column 2", "2#"]),
    "B72-comment-line": (b"#1,2\n1,2\n", ["line 1"]),
    "B73-short-row": (b"1,2\n3\n", ["line 2", "1 field", "expected 2"]),
    "B73-long-row": (b"1,2\n3,4,5\n", ["line 2", "3 fields", "expected 2"]),
    "B74-trailing-comma": (b"1,2\n3,4,\n", ["line 2", "column 3", "empty field"]),
    "B74-trailing-comma-everywhere": (b"1,2,\n3,4,\n", ["line 1", "empty field"]),
    "B75-blank-line-in-the-middle": (b"1,2\n\n3,4\n", ["line 2", "blank"]),
    "B75-blank-first-line": (b"\n1,2\n3,4\n", ["line 1", "blank"]),
    "B75-blanks-in-the-middle": (b"1,2\r\n  \r\n3,4\r\n", ["line 2", "blank"]),
    "B76-empty-cell": (b"1,2\n,4\n", ["line 2", "column 1", "empty field"]),
    "B76-blank-cell": (b"1,2\n3,  \n", ["line 2", "column 2", "empty field"]),
    **{
        f"B77-{name}": (b"1,2\n3," + cell.encode() + b"\n", ["line 2", "column 2", cell])
        for name, cell in NO_NUMBERS.items()
    },
    "B79-1e400": (b"1,2\n3,1e400\n", ["line 2", "column 2", "1e400", "range"]),
    "B79-minus-1e400": (b"1,2\n3,-1e400\n", ["line 2", "column 2", "-1e400", "range"]),
    "B81-just-too-large": (b"1,2\n3,1.7976931348623159e308\n", ["line 2", "column 2", "range"]),
    "B82-underscore": (b"1,2\n3,1_000\n", ["line 2", "column 2", "1_000"]),
    "B82-full-width-digits": ("1,2\n3,１２\n".encode(), ["line 2", "column 2"]),
    "B82-arabic-digits": ("1,2\n3,١٢\n".encode(), ["line 2", "column 2"]),
    "B83-unicode-minus": ("1,2\n3,\u22124\n".encode(), ["line 2", "column 2"]),
    "B83-no-break-space": ("1,2\n3,1\u00a0000\n".encode(), ["line 2", "column 2"]),
    "B83-quoted-thousands": (b'1,2\n3,"1,234"\n', ["line 2"]),
    "B84-decimal-comma": (b"1,5;2,5\n1,5;2,5\n", ["line 1", "--decimal ,"]),
    "B85-tabs-and-a-comma": (b"1\t2\n3,4\t4\n", ["line 1", "tab", "--delimiter"]),
    "B85-uneven-semicolons": (b"1;2\n3;4;5\n", ["line 1", "--delimiter ';'"]),
    "B85-colons": (b"1:2\n3:4\n", ["line 1", "'1:2' is not a number"]),
    "B87-open-quote": (b'1,2\n3,"4\n5,6\n', ["line 2"]),
    "B87-line-feed-in-quotes": (b'1,2\n3,"4\n4"\n', ["line 2"]),
    "B88-NUL": (b"1,2\n3,\x004\n", ["line 2", "NUL", "3"]),
    "B88-NUL-at-the-end": (b"1,2\n3,4\n\0", ["line 3", "NUL"]),
    "B89-bad-UTF-8": (b"1,2\n3,\xff4\n", ["line 2", "byte 3", "UTF-8"]),
    "B90-200000-digits": (
        b"1,2\n3," + b"1" * 200_000 + b"\n",
        ["line 2", "column 2", "more than 1000"],
    ),
    "B90-200000-zeros": (b"1,2\n3,0." + b"0" * 200_000 + b"\n", ["line 2", "column 2"]),
    "B92-gzip": (gzip.compress(gzip.compress(b"1,2\n3,4\n")), ["gzip"]),
    "control-characters": (b"1,2\n3,\x1b[31m4\x07\n", ["line 2", "column 2", r"\x1b[31m"]),
    "C1-control-characters": ("1,2\n3,\x9b31m\n".encode(), ["line 2", "column 2", r"\x9b"]),
    "direction-override": ("1,2\n3,\u202e4\n".encode(), ["line 2", "column 2", r"\u202e"]),
    "form-feed": (b"1,2\n3,4\x0c\n", ["line 2"]),
    "vertical-tab-line-end": (b"1,2\x0b3,4\n", ["line 1"]),
    "next-line-character": ("1,2\n3,4\x85\n".encode(), ["line 2"]),
    "rich-markup": (b"1,2\n3,[red]\n", ["line 2", "column 2", "[red]"]),
    "formula": (b"1,2\n3,=cmd|'/c calc'!A1\n", ["line 2", "column 2", "=cmd"]),
}


@pytest.mark.parametrize(("data", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_table_of_numbers_is_one_error_that_says_where(
    data, words, tmp_path, capfdbinary
):
    logits, targets, output = tmp_path / "l.csv", tmp_path / "t.npy", tmp_path / "g.csv"
    logits.write_bytes(data)
    targets.write_bytes(npy(TARGETS))
    output.write_bytes(b"old")
    before = contents(tmp_path)
    result = inside(capfdbinary, "grad", logits, targets, "-o", output)
    assert_error(result, 1, logits, *words)
    assert len(result.err) < 500 + 2 * len(str(logits))
    assert_unchanged(tmp_path, before)


@pytest.mark.parametrize("name", ["B66-empty", "B79-1e400", "B88-NUL", "B92-gzip"])
def test_a_bad_table_in_a_pipe_is_one_error(name, tmp_path):
    (tmp_path / "t.npy").write_bytes(npy(TARGETS))
    data, words = HOSTILE[name]
    result = run("grad", "-", "t.npy", stdin=data, cwd=tmp_path)
    assert_error(result, 1, "<stdin>", *words)


def read(data, *options):
    """A table as the library reads it."""
    return TextReader(Source(io.BytesIO(data), "a table"), *options).read(sys.maxsize)


TABLE = np.array([[1.0, 2.0], [3.0, 4.5]])


@pytest.mark.parametrize(
    "data",
    [
        b"1,2\n3,4.5\n",
        b"1,2\n3,4.5",
        b"1,2\r\n3,4.5\r\n",
        b"1,2\r\n3,4.5",
        b"\xef\xbb\xbf1,2\n3,4.5\n",
        b"1,2\n3,4.5\n\n",
        b"1,2\n3,4.5\n\n \r\n\n",
        b" 1, 2 \n 3 ,4.5\n",
        b"+1,2.\n3e0,.45E+1\n",
        b"01,0002\n3,4.50\n",
    ],
    ids=[
        "LF", "no LF at the end", "B69-CRLF", "B69-CRLF, none at the end", "B67-BOM",
        "B75-a blank line at the end", "B75-blank lines at the end", "blanks around numbers",
        "signs and points", "leading zeros",
    ],
)  # fmt: skip
def test_a_table_may_be_written_in_several_ways(data):
    assert_same_bits(read(data), TABLE)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("B78-nan", np.nan), ("B78-NaN", np.nan), ("B78--nan", np.nan), ("B78-inf", np.inf),
        ("B78-+inf", np.inf), ("B78--Infinity", -np.inf), ("B78-INF", np.inf), ("B78--0", -0.0),
        ("B80-1e-400", 0.0), ("B80--1e-400", -0.0),
        ("B80-2.4703282292062327e-324", 0.0), ("B80-2.4703282292062328e-324", 5e-324),
        ("B81-1.7976931348623158e308", 1.7976931348623157e308),
        ("B97-1.00000005960464477539062500001", float("1.00000005960464477539062500001")),
        ("B97-0.1000000000000000055511151231257827021181583404541015625", 0.1),
        ("B97-9007199254740993", 9007199254740992.0), ("B97-1e23", 1e23),
    ],
)  # fmt: skip
def test_a_number_has_the_value_that_strtod_gives(cell, value):
    cell = cell.partition("-")[2]
    assert_same_bits(read(f"1,{cell}\n".encode()), np.array([[1.0, value]]))


def test_infinite_and_nan_numbers_are_accepted_and_counted(tmp_path, capfdbinary):
    path = tmp_path / "a.csv"
    path.write_text("nan,NaN,-nan\ninf,-Infinity,1\n")
    result = inside(capfdbinary, "inspect", path, "--stats", "--json")
    facts = strict_json(result.out)["arrays"][0]
    assert (facts["nan"], facts["inf"], facts["min"], facts["max"]) == (3, 2, 1, 1)


def test_b97_a_table_read_as_float32_is_parsed_as_float64_first(tmp_path, capfdbinary):
    logits, targets, same = tmp_path / "l.csv", tmp_path / "t.csv", tmp_path / "l.npy"
    logits.write_text("1.00000005960464477539062500001,0\n")
    targets.write_text("0\n")
    np.save(same, np.float32([[1.0, 0.0]]))
    results = [
        inside(capfdbinary, "grad", path, targets, "-f", "csv", "--dtype", "f32").out
        for path in (logits, same)
    ]
    assert results[0] == results[1]


def test_random_decimals_are_read_exactly(rng):
    cells = [
        f"{rng.integers(10**17)}.{rng.integers(10**9)}e{rng.integers(-330, 280)}"
        for _ in range(3000)
    ]
    assert_same_bits(read("\n".join(cells).encode())[:, 0], np.array(list(map(float, cells))))


BITS = {"f4": "u4", "f8": "u8"}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_random_bits_survive_as_text(dtype, rng):
    bits = rng.integers(0, np.iinfo(BITS[dtype]).max, (400, 25), BITS[dtype], endpoint=True)
    array = bits.view(dtype)
    stream = io.BytesIO()
    write_table(stream, array)
    back = read(stream.getvalue()).astype(dtype)
    assert_same_bits(back[~np.isnan(array)], array[~np.isnan(array)])
    assert np.isnan(back[np.isnan(array)]).all()


def test_every_float16_survives_as_text():
    array = np.arange(2**16, dtype="u2").view("f2").reshape(-1, 64)
    stream = io.BytesIO()
    write_table(stream, array)
    with np.errstate(over="ignore"):
        assert_same_bits(read(stream.getvalue()).astype("f2"), array)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16])
def test_whole_numbers_are_written_without_a_point(dtype):
    stream = io.BytesIO()
    write_table(stream, np.array([3, 0, 100], dtype))
    write_table(stream, np.array([[1, 2]], dtype), ";")
    assert stream.getvalue() == b"3\n0\n100\n1;2\n"


@pytest.mark.parametrize(
    ("value", "digits"),
    [
        (np.float32(0.1), "0.1"), (np.float32(1 / 3), "0.33333334"),
        (np.float64(0.1), "0.1"),
        (np.float64(1 / 3), "0.3333333333333333"), (np.float64(5e-324), "5e-324"),
        (np.float64(-0.0), "-0.0"), (np.float64("-inf"), "-inf"), (np.float64("nan"), "nan"),
    ],
)  # fmt: skip
def test_text_has_the_shortest_digits_that_give_the_same_bits(value, digits):
    stream = io.BytesIO()
    write_table(stream, np.array([value]))
    assert stream.getvalue().decode() == digits + "\n"


def grad_of(capfdbinary, tmp_path, logits, *options, name="l.csv"):
    """What `xent grad` writes for logits in some text."""
    path, targets = tmp_path / name, tmp_path / "t.npy"
    path.write_bytes(logits if isinstance(logits, bytes) else logits.encode())
    np.save(targets, TARGETS)
    result = inside(capfdbinary, "grad", path, targets, *options)
    assert_done(result)
    return result.out


CSV = "".join(",".join(map(repr, row)) + "\n" for row in LOGITS.tolist())


def test_csv_gives_csv_of_float64(tmp_path, capfdbinary):
    out = grad_of(capfdbinary, tmp_path, CSV)
    lines = out.decode().split("\n")
    assert lines.pop() == ""
    rows = np.array([[float(cell) for cell in row.split(",")] for row in lines])
    np.testing.assert_allclose(rows, GRADIENT, rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "options", "delimiter"),
    [
        ("l.tsv", [], "\t"),
        ("l.txt", ["--input-format", "tsv"], "\t"),
        ("l.csv", ["-d", ";"], ";"),
        ("l.csv", ["-d", " "], " "),
        ("l.csv", ["-d", "|"], "|"),
        ("l.csv", ["-d", "\t"], "\t"),
        ("l.csv", ["-d", r"\t"], "\t"),
        ("l.dat", [], ","),
    ],
)
def test_a_delimiter_is_read_and_written(name, options, delimiter, tmp_path, capfdbinary):
    expected = grad_of(capfdbinary, tmp_path, CSV).decode()
    data = CSV.replace(",", delimiter)
    out = grad_of(capfdbinary, tmp_path, data, *options, name=name).decode()
    assert out == expected.replace(",", delimiter)


@pytest.mark.parametrize("delimiter", ["", ",,", "é", "\n", "5", ".", "-", "+", "e", "n", '"'])
def test_a_delimiter_that_cannot_part_numbers_is_a_usage_error(delimiter, tmp_path, capfdbinary):
    path = tmp_path / "l.csv"
    path.write_text(CSV)
    assert_error(inside(capfdbinary, "softmax", path, "-d", delimiter), 2, "-d")


@pytest.mark.parametrize("first", [b"a,b,c", b'"x y",\xff,', b"1,2,3", b"\xef\xbb\xbfa,b,c\r"])
def test_header_skips_one_line_of_anything(first, tmp_path, capfdbinary):
    out = grad_of(capfdbinary, tmp_path, first + b"\n" + CSV.encode(), "--header", "yes")
    assert out == grad_of(capfdbinary, tmp_path, CSV)


def test_lines_are_counted_with_the_header(tmp_path, capfdbinary):
    path = tmp_path / "l.csv"
    path.write_text("a,b\n1,2\n3,x\n")
    result = inside(capfdbinary, "softmax", path, "--header", "yes")
    assert_error(result, 1, path, "line 3", "column 2", "'x'")


def test_a_header_alone_is_an_error(tmp_path, capfdbinary):
    path = tmp_path / "l.csv"
    path.write_text("a,b\n")
    assert_error(inside(capfdbinary, "softmax", path, "--header", "yes"), 1, path, "header")


def test_dtype_says_what_text_is_read_as(tmp_path, capfdbinary):
    data = "0.1,0.2,0.30000000001\n1,2,3\n"
    out = grad_of(capfdbinary, tmp_path, data, "--dtype", "f32")
    same = np.loadtxt(io.StringIO(data), delimiter=",").astype("f4")
    np.save(tmp_path / "same.npy", same)
    paths = tmp_path / "same.npy", tmp_path / "t.npy"
    assert out == inside(capfdbinary, "grad", *paths, "-f", "csv").out
    assert max(len(cell) for cell in out.decode().replace("\n", ",").split(",")) <= 16


@pytest.mark.parametrize("decimals", [0, 2, 20])
def test_decimals_round_text(decimals, tmp_path, capfdbinary):
    out = grad_of(capfdbinary, tmp_path, CSV, "--decimals", decimals).decode()
    rows = [line.split(",") for line in out.split()]
    np.testing.assert_allclose(
        np.array(rows, float), GRADIENT, rtol=1e-14, atol=0.5 * 10.0**-decimals
    )
    assert {len(cell.partition(".")[2]) for row in rows for cell in row} == {decimals}


def test_decimals_out_of_range_are_a_usage_error(tmp_path, capfdbinary):
    path = tmp_path / "l.csv"
    path.write_text(CSV)
    for wrong in ("-1", "x", "1.5"):
        assert_error(inside(capfdbinary, "softmax", path, "--decimals", wrong), 2, "--decimals")


TARGET_TEXTS = {
    "a column": "0\n1\n",
    "a line": "0,1\n",
    "no newline": "0\n1",
    "CRLF": "0\r\n1\r\n",
    "B95-1.0": "0.0\n1.0\n",
    "B95-1e0": "0e0\n1e0\n",
    "B95- 1": " 0\n 1 \n",
    "B95-+1": "+0\n+1\n",
    "B95-01": "00\n01\n",
}


@pytest.mark.parametrize("targets", TARGET_TEXTS.values(), ids=TARGET_TEXTS.keys())
def test_targets_are_a_column_or_a_line_of_whole_numbers(targets, tmp_path, capfdbinary):
    (tmp_path / "l.csv").write_text(CSV)
    (tmp_path / "t.csv").write_text(targets)
    result = inside(capfdbinary, "grad", tmp_path / "l.csv", tmp_path / "t.csv")
    assert_done(result)
    assert result.out == grad_of(capfdbinary, tmp_path, CSV)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("0\n1.5\n", ["row 1", "1.5", "whole number"]),
        ("0\n0x1\n", ["line 2", "0x1"]),
        ("0\n" + "1" * 5000 + "\n", ["line 2", "more than 1000"]),
        ("0\n-1\n", ["row 1", "-1", "0 to 2"]),
        ("0\n3\n", ["row 1", "is 3", "0 to 2"]),
        ("0\nnan\n", ["row 1", "nan"]),
        ("0\n1\n2\n", ["(3,)", "(2, 3)"]),
        ("0\n", ["(1,)", "(2, 3)"]),
        ("0,1,2\n", ["(3,)", "(2, 3)"]),
        ("0,1\n1,0\n", ["(2, 2)", "(2, 3)"]),
    ],
    ids=[
        "B95-1.5", "B95-0x1", "B90-5000 digits", "B51", "B53", "B57-nan", "B94-one more",
        "B94-one less", "B94-a line of three", "B61-two columns",
    ],
)  # fmt: skip
def test_text_targets_that_do_not_fit_are_one_error(targets, words, tmp_path, capfdbinary):
    (tmp_path / "l.csv").write_text(CSV)
    (tmp_path / "t.csv").write_text(targets)
    before = contents(tmp_path)
    paths = tmp_path / "l.csv", tmp_path / "t.csv"
    result = inside(capfdbinary, "grad", *paths, "-o", tmp_path / "g.csv")
    assert_error(result, 1, tmp_path / "t.csv", *words)
    assert_unchanged(tmp_path, before)


def test_text_targets_of_the_logits_shape_are_probabilities(tmp_path, capfdbinary):
    (tmp_path / "l.csv").write_text(CSV)
    (tmp_path / "t.csv").write_text("1,0,0\n0,1,0\n")
    result = inside(capfdbinary, "grad", tmp_path / "l.csv", tmp_path / "t.csv")
    assert_done(result)
    values = [[float(cell) for cell in row.split(",")] for row in result.text.split()]
    np.testing.assert_allclose(values, GRADIENT, rtol=1e-15)


def test_one_line_of_logits_takes_one_target(tmp_path, capfdbinary):
    (tmp_path / "l.csv").write_text("0,0\n")
    (tmp_path / "t.csv").write_text("1\n")
    result = inside(capfdbinary, "grad", tmp_path / "l.csv", tmp_path / "t.csv")
    assert (result.code, result.out) == (0, b"0.5,-0.5\n")


def test_b86_quoted_numbers_are_read_or_clearly_refused(tmp_path, capfdbinary):
    path = tmp_path / "l.csv"
    path.write_text('"0","0"\n"0","0"\n')
    result = inside(capfdbinary, "softmax", path)
    if result.code:
        assert_error(result, 1, path, "line 1", "column 1")
    else:
        assert result.out == b"0.5,0.5\n" * 2


def test_more_than_two_axes_do_not_fit_into_text(tmp_path, capfdbinary):
    np.save(tmp_path / "l.npy", np.zeros((2, 3, 4)))
    before = contents(tmp_path)
    output = tmp_path / "p.csv"
    result = inside(capfdbinary, "softmax", tmp_path / "l.npy", "-o", output)
    assert_error(result, 2, "(2, 3, 4)", "npy")
    assert_unchanged(tmp_path, before)


@pytest.mark.parametrize("locale", ["C", "de_DE.UTF-8"])
def test_b100_the_locale_does_not_change_text(locale, tmp_path, capfdbinary):
    plain = grad_of(capfdbinary, tmp_path, CSV)
    other = run("grad", "l.csv", "t.npy", cwd=tmp_path, env={"LC_ALL": locale, "COLUMNS": "1"})
    assert_done(other)
    assert other.out == plain
