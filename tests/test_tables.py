"""Tables as other programs write them with their defaults; tests/tables/make.py made the files."""

import runpy
from pathlib import Path

import naive
import numpy as np
import pytest
from cli import assert_done, assert_error, inside, strict_json

TABLES = Path(__file__).parent / "tables"
MADE = runpy.run_path(str(TABLES / "make.py"))
LOGITS, LABELS, CLASSES = MADE["LOGITS"], MADE["LABELS"], MADE["NAMES"]

LEFT_OUT = "column 1 has no name and numbers the rows, so it is left out; --drop 1 says so"
SPACES = "the first lines have no comma, and the delimiter seems to be ' '; --delimiter ' ' says so"

# What each file gives with --target-column label, and with the options that the errors name.
WITH_LABELS = {
    "pandas.csv": ([], [LEFT_OUT]),
    "pandas-without-index.csv": ([], []),
    "pandas-named-index.csv": (["--drop", "id"], []),
    "pandas-decimal.csv": (["--decimal", ","], [LEFT_OUT]),
    "polars.csv": ([], []),
    "duckdb.csv": ([], []),
    "r-write.csv": ([], [LEFT_OUT]),
    "r-write.csv2": (["--decimal", ","], [LEFT_OUT]),
    "r-write.table": ([], [SPACES, LEFT_OUT]),
    "excel.csv": ([], []),
    "excel-german.csv": (["--decimal", ","], []),
    "libreoffice.csv": ([], []),
    "libreoffice-german.csv": (["--decimal", ","], []),
}
WITHOUT_LABELS = {
    "pandas-unnamed.csv": [LEFT_OUT.replace("--drop 1 ", "--drop 1-1 ")],
    "polars-unnamed.csv": [],
    "r-matrix.table": [SPACES, LEFT_OUT],
    "r-unnamed.table": [SPACES, LEFT_OUT],
    "gawk-print.txt": [SPACES],
    "gawk-printf.txt": [SPACES],
    "mawk-print.txt": [SPACES],
    "mawk-printf.txt": [SPACES],
}
REFUSED = {
    **{name: ["--decimal ,"] for name, (options, _) in WITH_LABELS.items() if "," in options},
    "excel-unicode.txt": ["UTF-16", "save it as UTF-8"],
}


def expected(rows=(0, 1, 2, 3)):
    """The mean loss of some rows, with Python's floats."""
    targets = [CLASSES.index(LABELS[row]) for row in rows]
    return naive.cross_entropy([LOGITS[row] for row in rows], targets)[0]


def notes(result):
    """The notes about a file, without its name."""
    lines = [line for line in result.err.splitlines() if ": note: " in line]
    return [line.split(": ", 3)[3] for line in lines]


@pytest.mark.parametrize("name", WITH_LABELS)
def test_logits_and_labels_in_one_table(name, capfdbinary):
    options, said = WITH_LABELS[name]
    result = inside(capfdbinary, "loss", TABLES / name, "--target-column", "label", *options)
    assert result.code == 0, result.err
    assert float(result.out) == pytest.approx(expected(), rel=1e-15)
    assert notes(result) == said


@pytest.mark.parametrize("name", WITH_LABELS)
def test_the_same_from_a_pipe(name, capfdbinary):
    options, _ = WITH_LABELS[name]
    data = (TABLES / name).read_bytes()
    command = "loss", "-", "--target-column", "label", *options
    result = inside(capfdbinary, *command, stdin=data)
    assert result.code == 0, result.err
    assert float(result.out) == pytest.approx(expected(), rel=1e-15)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_a_table_of_logits_alone(name, tmp_path, capfdbinary):
    result = inside(capfdbinary, "softmax", TABLES / name, "-o", tmp_path / "p.npy")
    assert result.code == 0, result.err
    assert notes(result) == WITHOUT_LABELS[name]
    probabilities = [naive.softmax(row)[0] for row in LOGITS]
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), probabilities, rtol=1e-14)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_do(name, capfdbinary):
    result = inside(capfdbinary, "loss", TABLES / name, "--target-column", "label")
    assert_error(result, 1, *REFUSED[name])


def test_some_rows_of_pandas(capfdbinary):
    result = inside(
        capfdbinary, "loss", TABLES / "pandas-some-rows.csv", "--target-column", "label"
    )
    assert result.code == 0, result.err
    assert float(result.out) == pytest.approx(expected([3, 0, 2]), rel=1e-15)


def test_labels_of_pandas_in_a_file_of_their_own(capfdbinary):
    logits, labels = TABLES / "polars-unnamed.csv", TABLES / "pandas-labels.csv"
    result = inside(capfdbinary, "loss", logits, labels, "--names", ",".join(CLASSES))
    assert result.code == 0, result.err
    assert float(result.out) == pytest.approx(expected(), rel=1e-15)


@pytest.mark.parametrize("name", [*WITH_LABELS, *WITHOUT_LABELS])
def test_inspect_reads_them(name, capfdbinary):
    options = WITH_LABELS.get(name, ([], []))[0]
    labels = ["--columns", ",".join(CLASSES)] if name in WITH_LABELS else []
    result = inside(capfdbinary, "inspect", TABLES / name, "--json", *options, *labels)
    (facts,) = strict_json(result.out)["arrays"]
    assert facts["shape"] == [4, 3]
    assert facts.get("columns", []) == ([] if "awk" in name else _names(name))


def _names(name):
    """What the columns of a file are called."""
    numbered = {"pandas-unnamed.csv": "{}", "polars-unnamed.csv": "column_{}"}
    if name == "r-unnamed.table":
        return ["V1", "V2", "V3"]
    return [numbered[name].format(c) for c in range(3)] if name in numbered else list(CLASSES)


def test_inspect_shows_the_names_of_the_columns(capfdbinary):
    result = inside(capfdbinary, "inspect", TABLES / "polars-unnamed.csv")
    assert result.text.endswith(" float64, csv, columns column_0, column_1, column_2\n")


@pytest.mark.parametrize("name", [name for name, (_, said) in WITH_LABELS.items() if said])
def test_a_column_that_is_left_out_is_an_error_under_strict(name, capfdbinary):
    options, _ = WITH_LABELS[name]
    command = "loss", TABLES / name, "--target-column", "label", *options, "--strict"
    assert_error(inside(capfdbinary, *command), 1)
    says = ["--drop", "1"] + (["-d", " "] if "table" in name else [])
    assert_done(inside(capfdbinary, *command, *says))
