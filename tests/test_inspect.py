"""`xent inspect` shows what it can, and goes on after what it cannot read."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cli import LOGITS, TARGETS, inside, npy, strict_json


def assert_lines(result, *lines):
    """Standard output has lines that start so."""
    found = result.text.splitlines()
    assert len(found) == len(lines), found
    for text, line in zip(found, lines, strict=True):
        assert text.startswith(line), found


@pytest.fixture
def folder(files):
    """The current folder, with good and bad files."""
    Path("bad.npy").write_bytes(npy(LOGITS)[:-5])
    Path("bad.csv").write_text("1,2\n3\n")
    Path("l.csv").write_text("1,2.5\n3,4\n")
    Path("l.npy.gz").write_bytes(gzip.compress(npy(LOGITS)))
    Path("cut.npy.gz").write_bytes(gzip.compress(npy(LOGITS))[:-9])
    return files


def test_after_a_bad_file_the_others_are_shown(folder, capfdbinary):
    names = ["bad.npy", "l.npy", "bad.csv", "l.csv", "cut.npy.gz", "l.npy.gz"]
    result = inside(capfdbinary, "inspect", *names, "--stats")
    shown = "l.npy: (2, 3) float64", "l.csv: (2, 2) float64", "l.npy.gz: (2, 3) float64"
    assert_lines(result, *shown)
    assert result.code == 1
    errors = [line for line in result.err.splitlines() if line.startswith("xent: error:")]
    assert [line.split(": ")[2] for line in errors] == ["bad.npy", "bad.csv", "cut.npy.gz"]


def test_the_exit_code_is_that_of_the_first_error(folder, capfdbinary):
    assert inside(capfdbinary, "inspect", "bad.npy", "missing.npy").code == 1
    assert inside(capfdbinary, "inspect", "missing.npy", "bad.npy").code == 2
    assert inside(capfdbinary, "inspect", "l.npy", ".", "bad.npy").code == 4
    assert inside(capfdbinary, "inspect", "l.npy", "t.npy").code == 0


def test_json_holds_what_could_be_read(folder, capfdbinary):
    result = inside(capfdbinary, "inspect", "bad.npy", "l.npy", "--json")
    assert result.code == 1
    assert "bad.npy" in result.err
    (array,) = strict_json(result.text)["arrays"]
    assert array["name"] == "l.npy"


def archive(**members):
    """An archive of these bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


def test_after_a_bad_member_the_others_are_shown(folder, capfdbinary):
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}, {}]), allow_pickle=True)
    data = archive(a=npy(LOGITS), b=pickled.getvalue(), c=npy(TARGETS)[:-3], d=npy(TARGETS))
    Path("e.npz").write_bytes(data)
    result = inside(capfdbinary, "inspect", "e.npz", "l.npy")
    shown = "e.npz[a]: (2, 3) float64", "e.npz[d]: (2,) int64", "l.npy: (2, 3)"
    assert_lines(result, *shown)
    assert result.code == 1
    assert "e.npz[b]: dtype" in result.err
    assert "e.npz[c]: shape (2,) of int64 needs 16 bytes" in result.err


def test_debug_shows_where_an_error_comes_from(folder, capfdbinary):
    result = inside(capfdbinary, "inspect", "bad.npy", "--debug")
    assert "FormatError" in result.err
    assert "Traceback" in result.err
