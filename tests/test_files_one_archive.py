"""One file with logits and targets: both are found by name, or by their keys."""

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from cli import GRADIENT, LOGITS, LOSSES, TARGETS, assert_done, assert_error, from_npy, inside

from xentcli.files import registry
from xentcli.files.keys import TARGETS as TARGET_NAMES


def npz(**arrays):
    """An archive of NumPy's."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def safetensors(**arrays):
    """A file of safetensors, of float64 and int64."""
    header, body = {}, b""
    for name, array in arrays.items():
        kind = "F64" if array.dtype.kind == "f" else "I64"
        place = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": place}
        body += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def hdf5(**arrays):
    """A file of datasets."""
    stream = io.BytesIO()
    with pytest.importorskip("h5py").File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


MAKERS = {"npz": npz, "safetensors": safetensors, "h5": hdf5}
OTHER = np.arange(4.0)


@pytest.fixture(params=MAKERS)
def write(request, files):
    """A function that writes a file of this format; its path."""

    def write(**arrays):
        path = f"e.{request.param}"
        Path(path).write_bytes(MAKERS[request.param](**arrays))
        return path

    return write


def assert_gradient(result):
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("name", TARGET_NAMES)
def test_logits_and_targets_are_found_by_name(name, piped, write, capfdbinary):
    path = write(**{name: TARGETS, "a": OTHER, "logits": LOGITS, "z": OTHER})
    given = {"stdin": Path(path).read_bytes()} if piped else {}
    result = inside(capfdbinary, "grad", "-" if piped else path, "-f", "npy", **given)
    assert_gradient(result)


@pytest.mark.parametrize("command", ["loss", "explain"])
def test_other_commands_find_them_too(command, write, capfdbinary):
    path = write(logits=LOGITS, labels=TARGETS)
    result = inside(capfdbinary, command, path)
    assert result.code == 0, result.err
    if command == "loss":
        assert float(result.text) == pytest.approx(LOSSES.mean(), rel=1e-15)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("command", ["report", "calibrate"])
def test_report_and_calibrate_find_them_in_every_file(
    command, piped, packed, write, files, capfdbinary
):
    logits = np.random.default_rng(3).normal(size=(40, 3))
    targets = np.arange(40) % 3
    np.save("l.npy", logits)
    np.save("t.npy", targets)
    path = write(a=OTHER, logits=logits, y=targets)
    if packed:
        Path("e.gz").write_bytes(gzip.compress(Path(path).read_bytes()))
        path = "e.gz"
    given = {"stdin": Path(path).read_bytes()} if piped else {}
    expected = inside(capfdbinary, command, "l.npy", "t.npy", "--json")
    result = inside(capfdbinary, command, "-" if piped else path, "--json", **given)
    assert_done(result)
    assert result.out == expected.out
    keys = ["--key", "logits", "--target-key", "y"]
    assert inside(capfdbinary, command, path, "--json", *keys).out == expected.out


def test_report_takes_raw_logits_only_with_targets(files, capfdbinary):
    LOGITS.tofile("l.bin")
    raw = ["--raw", "f64", "--shape", "2,3"]
    assert_error(inside(capfdbinary, "report", "l.bin", *raw), 2, "TARGETS is missing")
    assert_error(inside(capfdbinary, "loss", "l.bin", *raw), 2, "TARGETS is missing")
    assert inside(capfdbinary, "report", "l.bin", "t.npy", *raw).code == 0


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ({"x": LOGITS, "targets": TARGETS}, ["--key", "x"]),
        ({"logits": LOGITS, "t": TARGETS}, ["--target-key", "t"]),
        ({"x": LOGITS, "t": TARGETS, "logits": OTHER, "y": OTHER},
         ["--key", "x", "--target-key", "t"]),
        ({"logits": LOGITS, "y": TARGETS, "targets": OTHER}, ["--target-key", "y"]),
    ],
)  # fmt: skip
def test_keys_go_before_names(names, options, write, capfdbinary):
    assert_gradient(inside(capfdbinary, "grad", write(**names), *options, "-f", "npy"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"logits": LOGITS, "targets": TARGETS, "y": TARGETS}, ["targets", "y", "--target-key"]),
        ({"logits": LOGITS, "t": TARGETS}, ["2 arrays: logits, t", "targets", "--target-key"]),
        ({"x": LOGITS, "targets": TARGETS}, ["2 arrays: ", "called logits", "--key"]),
        ({"logits": LOGITS}, ["1 array: logits", "--target-key"]),
        ({"Logits": LOGITS, "targets": TARGETS}, ["called logits"]),
    ],
)
def test_what_is_not_clear_is_an_error_that_names_the_arrays(names, words, write, capfdbinary):
    path = write(**names)
    assert_error(inside(capfdbinary, "loss", path), 2, path, *words)


def test_an_unknown_key_is_an_error(write, capfdbinary):
    path = write(logits=LOGITS, targets=TARGETS)
    for option in ("--key", "--target-key"):
        assert_error(inside(capfdbinary, "loss", path, option, "z"), 2, "no array 'z'")


@pytest.mark.parametrize("command", ["grad", "loss", "explain"])
def test_a_file_of_one_array_needs_targets(command, files, capfdbinary):
    keyed = " or ".join(registry.suffixes(registry.with_keys()))
    assert_error(inside(capfdbinary, command, "l.npy"), 2, "l.npy", "TARGETS", keyed)
    assert_error(inside(capfdbinary, command, "-", stdin=b"1,2\n"), 2, "<stdin>", "TARGETS")


def test_check_takes_three_files(write, capfdbinary):
    path = write(logits=LOGITS, targets=TARGETS)
    assert_error(inside(capfdbinary, "check", path), 2, "GRAD")


def test_large_logits_of_one_file_are_read_in_pieces(write, capfdbinary, monkeypatch):
    logits = np.random.default_rng(1).normal(size=(5000, 8))
    targets = np.arange(5000) % 8
    path = write(logits=logits, targets=targets)
    np.save("l.npy", logits)
    np.save("t.npy", targets)
    one = inside(capfdbinary, "grad", path, "-f", "npy")
    two = inside(capfdbinary, "grad", "l.npy", "t.npy", "-f", "npy")
    assert one.out == two.out
