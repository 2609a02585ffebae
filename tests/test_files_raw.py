"""Numbers without a header, as `tofile` writes them, in a layout that options give."""

from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    PROBABILITIES,
    TARGETS,
    assert_done,
    assert_error,
    assert_unchanged,
    contents,
    from_npy,
    inside,
    run,
)

from xentcli.arrays.dtypes import NAMES, narrow
from xentcli.cli.options import RAW_DTYPES
from xentcli.files.raw import DTYPES

SHAPE = "--shape", "2,3"


@pytest.fixture(autouse=True)
def _raw_files(files):
    LOGITS.tofile("l.bin")
    TARGETS.tofile("t.bin")


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("offset", [0, 1, 100])
def test_raw_logits_and_targets_are_read(offset, piped, capfdbinary):
    Path("l.bin").write_bytes(bytes(offset) + LOGITS.tobytes())
    path, given = ("-", {"stdin": Path("l.bin").read_bytes()}) if piped else ("l.bin", {})
    options = ["--raw", "f64", *SHAPE, "--offset", offset]
    options += ["--target-raw", "i64", "--target-shape", "2"]
    result = inside(capfdbinary, "grad", path, "t.bin", *options, **given)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_is_read(name, capfdbinary):
    narrow(LOGITS, NAMES[name]).tofile("l.bin")
    result = inside(capfdbinary, "softmax", "l.bin", "--raw", name, *SHAPE, "--dtype", "f64")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), PROBABILITIES, rtol=1e-2)


def test_help_lists_the_dtypes_that_are_read():
    assert set(RAW_DTYPES) == set(DTYPES)


@pytest.mark.slow
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shape", "3,3"], "24 missing"),
        (["--shape", "1,3"], ""),
        (["--shape", "2,3", "--offset", "1"], "1 missing"),
        (["--shape", "2,3", "--offset", "49"], "byte 49"),
        (["--shape", "1000000000000,125"], ""),
        (["--shape", "100000000000000000,125000"], "larger"),
    ],
)
def test_a_size_that_does_not_match_is_an_error(options, words, piped, files):
    before = contents(files)
    given = {"stdin": Path("l.bin").read_bytes()} if piped else {}
    path = "-" if piped else "l.bin"
    command = "softmax", path, "--raw", "f64", *options, "-o", "p.npy"
    result = run(*command, cwd=files, memory=2_000_000_000, **given)
    assert_error(result, 1, "<stdin>" if piped else "l.bin", words)
    assert_unchanged(files, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--raw", "f64"], "--raw needs --shape"),
        (["--shape", "2,3"], "are for --raw"),
        (["--offset", "8"], "are for --raw"),
        (["--target-shape", "2"], "are for --target-raw"),
        (["--target-raw", "i64"], "--target-raw needs --target-shape"),
        (["--raw", "f64", *SHAPE, "--key", "a"], "neither format nor key"),
        (["--raw", "f64", *SHAPE, "--input-format", "npy"], "neither format nor key"),
        (["--raw", "f64", "--shape", "2x3"], "not a shape"),
        (["--raw", "f64", "--shape", "-2,3"], "not a shape"),
        (["--raw", "f64", *SHAPE, "--offset", "-1"], "--offset"),
        (["--raw", "f8", *SHAPE], "--raw"),
    ],
)
def test_options_that_do_not_go_together_are_an_error(options, words, capfdbinary):
    assert_error(inside(capfdbinary, "loss", "l.bin", "t.npy", *options), 2, words)


def test_raw_numbers_may_begin_as_other_formats_do(capfdbinary):
    data = b"\x1f\x8b\x08\x00" + b"PK\x03\x04" + LOGITS.tobytes()[8:]
    Path("l.bin").write_bytes(data)
    inner = np.exp(np.frombuffer(data).reshape(2, 3))
    expected = inner / inner.sum(axis=1, keepdims=True)
    result = inside(capfdbinary, "softmax", "l.bin", "--raw", "f64", *SHAPE)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), expected, rtol=1e-12)


def test_inspect_checks_the_layout(capfdbinary):
    result = inside(capfdbinary, "inspect", "l.bin", "--raw", "f64", *SHAPE, "--stats")
    assert result.text.startswith("l.bin: (2, 3) float64, raw, min 0, max ")
    assert_error(inside(capfdbinary, "inspect", "l.bin", "--raw", "f32", *SHAPE), 1, "24 surplus")
