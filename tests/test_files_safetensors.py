"""Files of safetensors: read and written, from pipes too; what is wrong in them is said."""

import io
import json
import struct
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
    strict_json,
)
from helpers import assert_same_bits

from xentcli.arrays.dtypes import BF16, NAMES, narrow
from xentcli.files.opening import load, save
from xentcli.files.options import ReadOptions, WriteOptions

KINDS = {"f2": "F16", "f4": "F32", "f8": "F64", "i8": "I64", "i4": "I32", "u1": "U8"}


def file_of(metadata=None, **arrays):
    """A file of arrays, in the order of the keywords."""
    header, body = {"__metadata__": metadata} if metadata else {}, b""
    for name, array in arrays.items():
        kind = "BF16" if array.dtype == BF16 else KINDS[array.dtype.str[1:]]
        place = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": place}
        body += array.tobytes()
    return framed(json.dumps(header).encode(), body)


def framed(header, body=b"", length=None):
    """A file with any header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def numbers_of(data):
    """The only array of a file and its name, by NumPy."""
    (length,) = struct.unpack("<Q", data[:8])
    ((name, entry),) = json.loads(data[8 : 8 + length]).items()
    body = data[8 + length :]
    assert entry["data_offsets"] == [0, len(body)]
    dtype = next(key for key, kind in KINDS.items() if kind == entry["dtype"])
    return name, np.frombuffer(body, f"<{dtype}").reshape(entry["shape"])


@pytest.fixture
def folder(files):
    """The current folder, with logits, targets, and both of them in e.safetensors."""
    Path("l.safetensors").write_bytes(file_of(anything=LOGITS))
    Path("e.safetensors").write_bytes(file_of(before=np.arange(3), x=LOGITS, y=TARGETS))
    return files


def test_a_file_gives_a_file(folder, capfdbinary):
    assert_done(inside(capfdbinary, "grad", "l.safetensors", "t.npy", "-o", "g.safetensors"))
    name, array = numbers_of(Path("g.safetensors").read_bytes())
    assert name == "grad"
    np.testing.assert_allclose(array, GRADIENT, rtol=1e-15)


def test_a_pipe_gives_a_stream(folder, capfdbinary):
    data = Path("l.safetensors").read_bytes()
    result = inside(capfdbinary, "softmax", "-", stdin=data)
    assert_done(result)
    np.testing.assert_allclose(numbers_of(result.out)[1], PROBABILITIES, rtol=1e-15)


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("key", ["before", "x", "y"])
def test_a_key_chooses_one_of_several(key, piped, folder, capfdbinary):
    given = {"stdin": Path("e.safetensors").read_bytes()} if piped else {}
    path = "-" if piped else "e.safetensors"
    result = inside(capfdbinary, "softmax", path, "--key", key, "-f", "npy", **given)
    assert_done(result)
    logits = {"before": np.arange(3.0), "x": LOGITS, "y": TARGETS.astype(float)}[key]
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(from_npy(result.out), expected, rtol=1e-15)


def test_without_a_key_the_error_lists_the_arrays(folder, capfdbinary):
    result = inside(capfdbinary, "softmax", "e.safetensors")
    assert_error(result, 2, "e.safetensors: holds 3 arrays: before, x, y", "--key")


@pytest.mark.parametrize("name", NAMES)
def test_dtypes_are_kept(name):
    array = narrow(np.linspace(-3, 3, 12).reshape(3, 4), NAMES[name])
    stream = io.BytesIO()
    save(stream, array, WriteOptions("safetensors"))
    Path("a.safetensors").write_bytes(stream.getvalue())
    found = load("a.safetensors", ReadOptions())
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_big_endian_numbers_are_written_least_significant_first():
    stream = io.BytesIO()
    save(stream, LOGITS.astype(">f8"), WriteOptions("safetensors"))
    assert_same_bits(numbers_of(stream.getvalue())[1], LOGITS)


def test_bfloat16_needs_no_option(folder, capfdbinary):
    logits = narrow(LOGITS, BF16)
    Path("h.safetensors").write_bytes(file_of(x=logits))
    Path("h.npy").write_bytes(Path("l.npy").read_bytes())
    np.save("h.npy", logits.view("V2"))
    first = inside(capfdbinary, "grad", "h.safetensors", "t.npy", "-f", "npy")
    second = inside(capfdbinary, "grad", "h.npy", "t.npy", "-f", "npy", "--dtype", "bf16")
    assert_done(first)
    assert from_npy(first.out).dtype == np.float32
    np.testing.assert_allclose(from_npy(first.out), narrow(GRADIENT, NAMES["f32"]), atol=0.01)
    assert_done(second)


@pytest.mark.parametrize(
    ("kind", "bits", "values"),
    [
        ("F8_E4M3", [0x38, 0xB8, 0x7E, 0x01, 0x7F, 0x80], [1, -1, 448, 2**-9, np.nan, -0.0]),
        ("F8_E5M2", [0x3C, 0xBC, 0x7B, 0x01, 0x7C, 0x80], [1, -1, 57344, 2**-16, np.inf, -0.0]),
    ],
)
def test_float8_is_read_as_float32(kind, bits, values):
    header = {"x": {"dtype": kind, "shape": [2, 3], "data_offsets": [0, 6]}}
    Path("a.safetensors").write_bytes(framed(json.dumps(header).encode(), bytes(bits)))
    found = load("a.safetensors", ReadOptions())
    assert_same_bits(found, np.array(values, "f4").reshape(2, 3))


def described(**changes):
    """A header with one array of 6 float64, and changes of its entry."""
    entry = {"dtype": "F64", "shape": [2, 3], "data_offsets": [0, 48]} | changes
    return json.dumps({"x": entry}).encode()


BODY = LOGITS.tobytes()
ENTRY = b'{"dtype":"F64","shape":[3],"data_offsets":[%s]}'
TWO = b'{"x":' + ENTRY + b',"y":' + ENTRY + b"}"
PETABYTE = {"shape": [10**15], "data_offsets": [0, 8 * 10**15]}
BROKEN = {
    "empty": (b"", "empty"),
    "short": (b"\1\0\0", "8 bytes"),
    "text": (b"1,2,3\n4,5,6\n7,8,9\n", "announce"),
    "a-header-of-100-MB": (framed(b"{}", b"", 10**8), "announce"),
    "a-header-beyond-the-limit": (framed(b"{}", b"", 10**8 + 1), "announce"),
    "a-header-that-is-not-there": (framed(described(), b"", 500), "500"),
    "no-json": (framed(b"{x}", BODY), "JSON"),
    "a-list": (framed(b"[1]", BODY), "JSON"),
    "blanks-first": (framed(b" " + described(), BODY), "JSON"),
    "deep": (framed(b'{"x":' + b"[" * 10**4, BODY), "JSON"),
    "not-utf-8": (framed(b'{"\xff":1}', BODY), "JSON"),
    "half-a-character": (framed(rb'{"\ud800":1}', BODY), "JSON"),
    "nan": (framed(b'{"x":NaN}', BODY), "JSON"),
    "9000-digits": (framed(described(shape=[7]).replace(b"7", b"7" * 9000), BODY), "JSON"),
    "a-name-twice": (framed(b"{%s,%s}" % ((described()[1:-1],) * 2), BODY), "'x' twice"),
    "a-field-twice": (framed(described().replace(b"}}", b',"dtype":"F64"}}'), BODY), "twice"),
    "no-entry": (framed(b'{"x":1}', BODY), "dtype, shape, data_offsets"),
    "a-field-too-many": (framed(described(scale=2), BODY), "dtype, shape, data_offsets"),
    "metadata-of-numbers": (framed(b'{"__metadata__":{"a":1}}'), "__metadata__"),
    "an-unknown-dtype": (framed(described(dtype="F65"), BODY), "F65"),
    "a-dtype-that-is-no-text": (framed(described(dtype=[]), BODY), "dtype"),
    "a-shape-of-truth": (framed(described(shape=[True, 6]), BODY), "integers"),
    "a-shape-of-fractions": (framed(described(shape=[2.0, 3]), BODY), "integers"),
    "a-negative-shape": (framed(described(shape=[-2, -3]), BODY), "integers"),
    "beyond-64-bits": (framed(described(shape=[2**64, 0]), BODY), "integers"),
    "too-many-axes": (framed(described(shape=[1] * 65), BODY), "65 axes"),
    "a-size-that-wraps": (framed(described(shape=[2**32, 2**32]), BODY), "needs"),
    "a-petabyte": (framed(described(**PETABYTE), BODY), "missing"),
    "one-offset": (framed(described(data_offsets=[0]), BODY), "integers"),
    "offsets-that-fall": (framed(described(shape=[0], data_offsets=[48, 48]), BODY), "starts"),
    "a-size-that-is-not-the-shape's": (framed(described(data_offsets=[0, 40]), BODY), "needs 48"),
    "a-hole": (framed(TWO % (b"0,24", b"32,56"), BODY + bytes(8)), "starts at byte 32"),
    "an-overlap": (framed(TWO % (b"0,24", b"16,40"), BODY), "starts at byte 16"),
    "numbers-missing": (framed(described(), BODY[:-1]), "1 missing"),
    "bytes-too-many": (framed(described(), BODY + b"x"), ""),
}  # fmt: skip


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_error(name, piped, files, capfdbinary):
    data, words = BROKEN[name]
    path = files / "l.safetensors"
    path.write_bytes(data)
    before = contents(files)
    if piped:
        words = {"announce": "header", "500": "header"}.get(words, words)
        options = "--input-format", "safetensors"
        result = inside(capfdbinary, "softmax", "-", *options, "-o", "p.npy", stdin=data)
    else:
        result = inside(capfdbinary, "softmax", path, "-o", "p.npy")
    assert_error(result, 1, "<stdin>" if piped else path, words)
    assert_unchanged(files, before)


@pytest.mark.slow
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    "name", ["a-header-of-100-MB", "a-header-beyond-the-limit", "a-petabyte", "deep"]
)
def test_no_memory_is_taken_on_the_word_of_a_header(name, piped, files):
    data = BROKEN[name][0]
    Path("l.safetensors").write_bytes(data)
    given = {"cwd": files, "memory": 2_000_000_000}
    if piped:
        result = run("softmax", "-", "--input-format", "safetensors", stdin=data, **given)
    else:
        result = run("softmax", "l.safetensors", **given)
    assert_error(result, 1)


def test_a_dtype_that_is_not_read_harms_no_other_array(capfdbinary):
    header = {
        "c": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]},
        "f4": {"dtype": "F4", "shape": [2, 3], "data_offsets": [8, 11]},
        "x": {"dtype": "F64", "shape": [2, 3], "data_offsets": [11, 59]},
    }
    data = framed(json.dumps(header).encode(), bytes(11) + BODY)
    Path("a.safetensors").write_bytes(data)
    result = inside(capfdbinary, "softmax", "a.safetensors", "--key", "x", "-f", "npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), PROBABILITIES, rtol=1e-15)
    for key, kind in (("c", "C64"), ("f4", "F4")):
        refused = inside(capfdbinary, "softmax", "a.safetensors", "--key", key)
        assert_error(refused, 1, f"a.safetensors[{key}]", kind, "BF16, F8_E4M3")


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_inspect_shows_every_array_and_the_metadata(piped, capfdbinary):
    data = file_of({"format": "pt\x1b"}, b=narrow(LOGITS, BF16), empty=np.zeros((0, 3)), t=TARGETS)
    Path("a.safetensors").write_bytes(data)
    path, given = ("-", {"stdin": data}) if piped else ("a.safetensors", {})
    result = inside(capfdbinary, "inspect", path, "--stats", **given)
    assert result.code == 0, result.err
    name = "<stdin>" if piped else path
    lines = result.text.splitlines()
    assert lines[0].startswith(
        f"{name}[b]: (2, 3) bfloat16, safetensors, C order, little endian, 12 bytes, "
        r"format=pt\x1b, min 0, max "
    )
    assert lines[1].startswith(f"{name}[empty]: (0, 3) float64")
    assert lines[2].startswith(f"{name}[t]: (2,) int64")
    about = strict_json(inside(capfdbinary, "inspect", path, "--json", **given).out)["arrays"]
    assert [item["shape"] for item in about] == [[2, 3], [0, 3], [2]]
    assert about[0]["metadata"] == {"format": "pt\x1b"}
    assert "min" not in about[0]


def test_inspect_reads_a_pipe_to_its_end(capfdbinary):
    for data in (file_of(x=LOGITS)[:-1], file_of(x=LOGITS) + b"1"):
        result = inside(capfdbinary, "inspect", "-", stdin=data)
        assert (result.code, result.text.count("\n")) == (1, 1)
        assert result.err.startswith("xent: error: <stdin>")


def test_files_of_the_package_are_read():
    numpy_files = pytest.importorskip("safetensors.numpy")
    arrays = {"logits": LOGITS, "half": LOGITS.astype("f2"), "targets": TARGETS}
    numpy_files.save_file(arrays, "a.safetensors", metadata={"format": "np"})
    for key, array in arrays.items():
        assert_same_bits(load("a.safetensors", ReadOptions(key=key)), array)


def test_the_package_reads_what_is_written():
    numpy_files = pytest.importorskip("safetensors.numpy")
    for array in (LOGITS, LOGITS.astype("f4"), TARGETS, np.zeros((0, 3)), np.ones(3)):
        stream = io.BytesIO()
        save(stream, array, WriteOptions("safetensors", key='a "name"\n→'))
        ((name, found),) = numpy_files.load(stream.getvalue()).items()
        assert name == 'a "name"\n→'
        assert_same_bits(found, array)
