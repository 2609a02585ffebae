"""The .npy reader and writer: what NumPy writes, and what no program should have written."""

import os
import pickle
import threading

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    TARGETS,
    assert_done,
    assert_error,
    assert_unchanged,
    bash,
    contents,
    described,
    from_npy,
    header,
    inside,
    npy,
    run,
)
from helpers import assert_same_bits

from xentcli.arrays.dtypes import BF16, narrow
from xentcli.errors import XentError
from xentcli.files.opening import load
from xentcli.files.options import ReadOptions

DATA = np.arange(6.0).tobytes()
GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }"

HOSTILE = {
    "B1-empty": b"",
    "B2-magic-only": b"\x93NUMPY",
    "B2-cut-in-the-version": b"\x93NUMPY\x01",
    "B2-cut-in-the-length": b"\x93NUMPY\x01\x00\x10",
    "B3-wrong-magic": b"\x93NUMPX" + described(data=DATA)[6:],
    "B3-csv": b"1,2,3\n4,5,6\n",
    "B3-pickle": pickle.dumps([1.0, 2.0]),
    "B4-zip": b"PK\x03\x04" + bytes(60),
    "B5-version-9": header(GOOD, DATA, version=(9, 9)),
    "B5-version-0": header(GOOD, DATA, version=(0, 0)),
    "B5-version-1.1": header(GOOD, DATA, version=(1, 1)),
    "B6-header-beyond-the-end": header(GOOD, length=5000),
    "B7-length-of-4-GB": header(GOOD, bytes(1000), version=(2, 0), length=0xFFFFFFFF),
    "B8-header-of-12000-bytes": header(GOOD + " " * 12_000, DATA),
    "B9-a-list": header("[1,2,3]", DATA),
    "B9-a-call": header("dict(descr='<f8', fortran_order=False, shape=(2, 3))", DATA),
    "B9-nothing": header("", DATA),
    "B9-something-after": header(GOOD + ", {}", DATA),
    "B10-missing-key": header("{'descr': '<f8', 'shape': (2, 3), }", DATA),
    "B10-extra-key": header(GOOD[:-2] + " 'extra': 1, }", DATA),
    "B11-integer-key": header(GOOD[:-2] + " 1: 1, }", DATA),
    "B12-unhashable-key": header("{[]: 1}", DATA),
    "B13-shape-twice": header(GOOD[:-2] + " 'shape': (3, 2), }", DATA),
    "B14-shape-list": described(shape="[2, 3]", data=DATA),
    "B14-shape-floats": described(shape="(2.0, 3.0)", data=DATA),
    "B14-shape-of-numpy-integers": described(shape="(np.int64(2), np.int64(3))", data=DATA),
    "B14-shape-integer": described(shape="(6)", data=DATA),
    "B14-shape-with-a-leading-zero": described(shape="(02, 3)", data=DATA),
    "B14-shape-with-a-nameless-blank": described(shape="(2,\xa03)", data=DATA),
    "B43-an-integer-of-Python-2-in-version-3": described(
        shape="(2L, 3)", data=DATA, version=(3, 0)
    ),
    "B9-a-vertical-tab": header(GOOD[:-1] + "\x0b}", DATA),
    "B9-a-file-separator-at-the-end": header(GOOD + "\x1c", DATA),
    "B15-negative": described(shape="(-1,)", data=DATA),
    "B16-two-negatives": described(shape="(-2, -3)", data=DATA),
    "B17-boolean": described(shape="(True, 3)", data=DATA[:24]),
    "B18-petabytes": described(shape="(1000000000000, 1000)", data=DATA[:24]),
    "B19-product-wraps-to-0": described(shape="(4294967296, 4294967296)"),
    "B20-2-to-63": described(shape="(9223372036854775808,)", data=DATA),
    "B21-10-to-30": described(shape="(1" + "0" * 30 + ",)", data=DATA),
    "B22-9000-digits": described(shape="(" + "9" * 9000 + ",)", data=DATA),
    "B23-0-by-2-to-63": described(shape="(0, 9223372036854775807)"),
    "B25-no-classes": described(shape="(2, 0)"),
    "B26-no-axes": described(shape="()", data=DATA[:8]),
    "B26-65-axes": described(shape="(" + "1, " * 65 + ")", data=DATA[:8]),
    "B27-truncated": described(data=DATA[:-1]),
    "B27-no-data": described(),
    "B28-8-surplus-bytes": described(data=DATA + bytes(8)),
    "B28-a-second-array": described(data=DATA) * 2,
    "B30-structured": described(descr="[('a', '<f4'), ('b', '<f4')]", data=DATA),
    "B30-structured-with-objects": described(descr="[('a', '|O')]", data=DATA),
    "B30-subarray": described(descr="('<f4', (2,))", data=DATA),
    "B31-V0": described(descr="'|V0'", shape="(1000000000000,)"),
    "B31-S0": described(descr="'|S0'", shape="(1000000000,)"),
    "B32-unicode": described(descr="'<U10'", data=bytes(240)),
    "B32-bytes": described(descr="'|S8'", data=DATA),
    "B32-datetime": described(descr="'<M8[ns]'", data=DATA),
    "B32-complex": described(descr="'<c16'", data=DATA * 2),
    "B32-boolean": described(descr="'|b1'", data=bytes(6)),
    "B33-long-double": described(descr="'<f16'", data=DATA * 2),
    "B37-a-name": described(descr="'float'", data=DATA),
    "B37-a-number": described(descr="1.5", data=DATA),
    "B37-None": described(descr="None", data=DATA),
    "B37-nonsense": described(descr="'zz9'", data=DATA),
    "B38-comma": described(descr="','", data=DATA),
    "B39-huge-subarray": described(descr="'f4,(1000000,1000000)f8'", data=DATA),
    "B41-fortran-1": described(fortran="1", data=DATA),
    "B42-NUL": header(GOOD.replace("<f8", "<f8\0"), DATA),
    "B42-NUL-outside": header(GOOD + "\0", DATA),
    "B44-open-quotes": header("'''" + GOOD, DATA),
    "B44-4000-parentheses": header("(" * 4000, DATA),
    "B44-4000-brackets": header("[" * 4000, DATA),
    "B45-9000-minus": header("-" * 9000 + "1", DATA),
    "B46-4000-additions": described(shape="(1" + "+1" * 4000 + ",)", data=DATA),
    "B47-bad-UTF-8": header(GOOD.encode() + b"\xff\xfe", DATA, version=(3, 0)),
    "control-characters": header("\x1b[31m" + GOOD, DATA),
    "controls-in-the-dtype": described(descr="'\x1b[2J\x07'", data=DATA),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_no_array_of_numbers_is_one_error(data, tmp_path, capfdbinary):
    logits, targets, output = tmp_path / "l.npy", tmp_path / "t.npy", tmp_path / "g.npy"
    logits.write_bytes(data)
    targets.write_bytes(npy(TARGETS))
    output.write_bytes(b"old")
    before = contents(tmp_path)
    result = inside(capfdbinary, "grad", logits, targets, "-o", output)
    assert_error(result, 1, logits)
    assert_unchanged(tmp_path, before)


NOT_FOR_A_STREAM = ("B25", "B26-no", "B32-bool")  # right arrays, wrong logits


@pytest.mark.parametrize(
    "data",
    [value for name, value in HOSTILE.items() if not name.startswith(NOT_FOR_A_STREAM)],
    ids=[name for name in HOSTILE if not name.startswith(NOT_FOR_A_STREAM)],
)
def test_inspect_does_not_trust_a_header_either(data, tmp_path, capfdbinary):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    assert_error(inside(capfdbinary, "inspect", path, "--stats"), 1, path)


@pytest.mark.parametrize("name", ["B1-empty", "B18-petabytes", "B27-truncated", "B33-long-double"])
def test_inspect_finds_what_is_wrong_without_reading_the_numbers(name, tmp_path, capfdbinary):
    path = tmp_path / "a.npy"
    path.write_bytes(HOSTILE[name])
    assert_error(inside(capfdbinary, "inspect", path), 1, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["B7-length-of-4-GB", "B18-petabytes", "B28-a-second-array"])
def test_a_hostile_stream_is_one_error_in_little_memory(name, tmp_path):
    (tmp_path / "t.npy").write_bytes(npy(TARGETS))
    given = {"stdin": HOSTILE[name], "cwd": tmp_path, "memory": 2_000_000_000}
    assert_error(run("softmax", "-", "--input-format", "npy", **given), 1, "<stdin>")
    where = "t.npy" if name.startswith("B18") else "<stdin>"  # 10¹² rows do not fit 2 targets
    assert_error(run("grad", "-", "t.npy", "--input-format", "npy", **given), 1, where)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["softmax", "-"], ["grad", "-", "t.npy"]])
@pytest.mark.parametrize("classes", [10**9, 10**12])
def test_b18_classes_that_a_stream_announces_are_not_believed(classes, command, tmp_path):
    (tmp_path / "t.npy").write_bytes(npy(TARGETS))
    data = described(shape=f"(2, {classes})", data=DATA)
    result = run(*command, stdin=data, cwd=tmp_path, memory=2_000_000_000)
    assert_error(result, 1, f"needs {16 * classes} bytes of data, the file has 48")


def test_b18_targets_that_a_stream_announces_are_not_believed(tmp_path):
    rows = 10**11
    (tmp_path / "x").write_bytes(described(shape=f"({rows}, 2)", data=DATA))
    (tmp_path / "t").write_bytes(described("'|i1'", shape=f"({rows},)", data=bytes(3 << 20)))
    script = "ulimit -v 2000000; xent loss <(cat x) <(cat t)"
    result = bash(script, cwd=tmp_path)
    assert_error(result, 1, f"needs {rows} bytes of data, the file has {3 << 20}")


@pytest.mark.parametrize(
    "name", ["B1-empty", "B18-petabytes", "B19-product-wraps-to-0", "B44-4000-brackets"]
)
def test_a_hostile_file_is_one_error_in_little_memory(name, tmp_path):
    (tmp_path / "l.npy").write_bytes(HOSTILE[name])
    (tmp_path / "t.npy").write_bytes(npy(TARGETS))
    result = run("grad", "l.npy", "t.npy", cwd=tmp_path, memory=2_000_000_000)
    assert_error(result, 1, "l.npy")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("B1-empty", ["empty"]),
        ("B3-csv", ["not an .npy file"]),
        ("B3-pickle", ["not an .npy file", "pickle"]),
        ("B5-version-9", ["9.9", "1.0", "2.0", "3.0"]),
        ("B8-header-of-12000-bytes", ["10000"]),
        ("B13-shape-twice", ["shape"]),
        ("B18-petabytes", ["8000000000000000", "24"]),
        ("B25-no-classes", ["no classes", "(2, 0)"]),
        ("B26-no-axes", ["()"]),
        ("B27-truncated", ["48", "47"]),
        ("B28-8-surplus-bytes", ["48", "56", "8 surplus"]),
        ("B33-long-double", ["<f16", "float64"]),
        ("B32-complex", ["<c16", "float64"]),
    ],
)
def test_the_error_says_what_was_found_and_what_is_allowed(name, words, tmp_path, capfdbinary):
    logits, targets = tmp_path / "l.npy", tmp_path / "t.npy"
    logits.write_bytes(HOSTILE[name])
    targets.write_bytes(npy(TARGETS))
    assert_error(inside(capfdbinary, "loss", logits, targets), 1, logits, *words)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_b29_a_pickled_array_is_an_error_and_its_code_is_not_run(tmp_path, capfdbinary):
    sprung = tmp_path / "sprung"
    payload = pickle.dumps(np.array([Trap(sprung)], dtype=object))
    logits, targets = tmp_path / "l.npy", tmp_path / "t.npy"
    logits.write_bytes(described(descr="'|O'", shape="(1,)", data=payload))
    targets.write_bytes(npy(TARGETS))
    assert_error(inside(capfdbinary, "loss", logits, targets), 1, logits)
    assert not sprung.exists()
    pickle.loads(payload)
    assert sprung.exists(), "the trap itself does not work"


def test_b43_the_shapes_of_python_2_raise_no_warning(tmp_path):
    (tmp_path / "l.npy").write_bytes(described(shape="(2L, 3L)", data=LOGITS.tobytes()))
    (tmp_path / "t.npy").write_bytes(npy(TARGETS))
    result = run("grad", "l.npy", "t.npy", cwd=tmp_path)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def grad_of(capfdbinary, tmp_path, data, *options, targets=TARGETS):
    """The gradient of the logits in some bytes."""
    (tmp_path / "logits.npy").write_bytes(data)
    (tmp_path / "targets.npy").write_bytes(npy(targets))
    paths = tmp_path / "logits.npy", tmp_path / "targets.npy"
    result = inside(capfdbinary, "grad", *paths, *options)
    assert_done(result)
    return from_npy(result.out)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version, tmp_path, capfdbinary):
    data = header(GOOD, LOGITS.tobytes(), version=version)
    np.testing.assert_allclose(grad_of(capfdbinary, tmp_path, data), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f8'}",
        "{ 'descr' : '<f8' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) }",
    ],
    ids=["other order, no last comma", "blanks"],
)
def test_a_header_may_be_written_in_another_way(text, tmp_path, capfdbinary):
    data = header(text, LOGITS.tobytes())
    np.testing.assert_allclose(grad_of(capfdbinary, tmp_path, data), GRADIENT, rtol=1e-15)


def test_b24_no_rows_give_an_empty_gradient(tmp_path, capfdbinary):
    paths = tmp_path / "l.npy", tmp_path / "t.npy"
    for path, array in zip(paths, (np.empty((0, 3), "f4"), np.empty(0, int)), strict=True):
        np.save(path, array)
    result = inside(capfdbinary, "grad", *paths)
    assert result.code == 0
    assert_same_bits(from_npy(result.out), np.empty((0, 3), "f4"))


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_b34_b35_b40_the_order_of_bytes_and_memory_changes_no_bit(
    dtype, order, tmp_path, capfdbinary, rng
):
    logits = rng.standard_normal((5, 7)).astype(dtype)
    targets = np.arange(5)
    native = npy(logits.astype(logits.dtype.newbyteorder("=")))
    expected = grad_of(capfdbinary, tmp_path, native, targets=targets)
    data = npy(np.asarray(logits, order=order))
    assert_same_bits(grad_of(capfdbinary, tmp_path, data, targets=targets), expected)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("f2", "<f4"), ("f4", "<f4"), (">f4", "<f4"), ("f8", "<f8"), (">f8", "<f8"),
        ("i1", "<f8"), ("i8", "<f8"), ("u4", "<f8"), (">i2", "<f8"),
    ],
)  # fmt: skip
def test_the_gradient_has_the_dtype_of_the_logits(dtype, expected, tmp_path, capfdbinary):
    grad = grad_of(capfdbinary, tmp_path, npy(np.array([[1, 2, 3], [3, 1, 2]], dtype)))
    assert grad.dtype.str == expected


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u4", "i8", ">i8", "u8"])
def test_integer_logits_are_computed_in_float64(dtype, tmp_path, capfdbinary):
    logits = np.array([[1, 2, 3], [100, 1, 100]])
    expected = grad_of(capfdbinary, tmp_path, npy(logits.astype(float)))
    assert_same_bits(grad_of(capfdbinary, tmp_path, npy(logits.astype(dtype))), expected)


@pytest.mark.parametrize(
    ("name", "dtype"), [("f16", "<f2"), ("f32", "<f4"), ("f64", "<f8"), ("auto", "<f4")]
)
def test_dtype_chooses_the_gradients(name, dtype, tmp_path, capfdbinary):
    grad = grad_of(capfdbinary, tmp_path, npy(LOGITS.astype("f4")), "--dtype", name)
    assert grad.dtype.str == dtype
    np.testing.assert_allclose(grad.astype(float), GRADIENT, rtol=1e-3)


def test_float64_from_float32_logits_is_the_gradient_of_the_rounded_logits(tmp_path, capfdbinary):
    logits = LOGITS.astype("f4")
    grad = grad_of(capfdbinary, tmp_path, npy(logits), "--dtype", "f64")
    assert_same_bits(grad, grad_of(capfdbinary, tmp_path, npy(logits.astype(float))))


# ln 2 and ln 1 in bfloat16 are 0x3f31 and 0x0000.
BFLOAT16 = np.where(LOGITS > 0, 0x3F31, 0).astype("<u2").view("V2")


def test_b36_two_bytes_without_a_name_are_an_error_that_names_the_option(tmp_path, capfdbinary):
    logits, targets = tmp_path / "l.npy", tmp_path / "t.npy"
    np.save(logits, BFLOAT16)
    np.save(targets, TARGETS)
    result = inside(capfdbinary, "grad", logits, targets)
    assert_error(result, 1, logits, "V2", "hint: ", "--dtype bf16")


def test_b36_with_the_option_bfloat16_is_read_and_written(tmp_path, capfdbinary):
    grad = grad_of(capfdbinary, tmp_path, npy(BFLOAT16), "--dtype", "bf16")
    assert grad.dtype.str == "|V2"
    widened = (grad.view("<u2").astype("u4") << 16).view("f4")
    np.testing.assert_allclose(widened, GRADIENT, rtol=2**-8)


def test_bfloat16_written_by_xent_is_read_again(tmp_path, capfdbinary):
    first = grad_of(capfdbinary, tmp_path, npy(LOGITS), "--dtype", "bf16")
    second = grad_of(capfdbinary, tmp_path, npy(first), "--dtype", "bf16")
    assert second.dtype.str == "|V2"
    assert second.shape == GRADIENT.shape


def test_b48_data_at_an_odd_offset_are_read(tmp_path, capfdbinary):
    raw = GOOD.encode() + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + LOGITS.tobytes()
    assert (len(data) - LOGITS.nbytes) % 8
    np.testing.assert_allclose(grad_of(capfdbinary, tmp_path, data), GRADIENT, rtol=1e-15)


def test_b49_a_fifo_is_read_in_order(tmp_path, capfdbinary):
    fifo, targets = tmp_path / "fifo", tmp_path / "t.npy"
    os.mkfifo(fifo)
    np.save(targets, TARGETS)
    writer = threading.Thread(target=fifo.write_bytes, args=(npy(LOGITS),))
    writer.start()
    result = inside(capfdbinary, "grad", fifo, targets)
    writer.join()
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), "f4"),
        np.zeros((2, 3), ">f8"),
        np.zeros((3, 2), "f2").T,
        np.zeros((1, 2, 3, 4)),
        np.zeros(3),
        np.zeros((0, 3)),
    ],
    ids=["f4", "big-endian", "Fortran", "4 axes", "1 axis", "no rows"],
)
def test_what_is_written_is_what_numpy_would_write(array):
    import io

    from xentcli.files.opening import save
    from xentcli.files.options import WriteOptions

    stream = io.BytesIO()
    save(stream, array, WriteOptions("npy"))
    native = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).reshape(array.shape)
    assert_same_bits(from_npy(stream.getvalue()), native)
    assert (len(stream.getvalue()) - array.nbytes) % 64 == 0


def test_random_bits_survive_writing_and_reading(rng):
    import io

    from xentcli.files.npy.reader import open_npy
    from xentcli.files.opening import save
    from xentcli.files.options import ReadOptions, WriteOptions
    from xentcli.files.source import Source

    array = rng.integers(0, 2**32, (50, 20), "u4").view("f4")
    stream = io.BytesIO()
    save(stream, array, WriteOptions("npy"))
    stream.seek(0)
    read = open_npy(Source(stream, "a stream"), ReadOptions()).whole()
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ('{"descr": "<f8", "fortran_order": False, "shape": (2, 3), }', "<f8"),
        ("{'descr':'<f4','fortran_order':False,'shape':(2,3,)}", "<f4"),
        ("{'shape': (2, 3), 'descr': \"<i8\", 'fortran_order': False}", "<i8"),
        *(
            (f"{{'descr': '{name}', 'fortran_order': False, 'shape': (2, 3), }}", dtype)
            for name, dtype in [
                *(("f2", "=f2"), ("f4", "=f4"), ("f8", "=f8"), ("=f4", "=f4"), ("i8", "=i8")),
                *(("u1", "u1"), ("float16", "<f2"), ("float32", "<f4"), ("float64", "<f8")),
                *(("int8", "i1"), ("int32", "<i4"), ("int64", "<i8"), ("uint16", "<u2")),
            ]
        ),
    ],
)
def test_headers_of_other_programs_are_read_as_numpy_does(text, dtype, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    path = tmp_path / "a.npy"
    path.write_bytes(header(text, array.tobytes()))
    found = load(str(path), ReadOptions())
    assert_same_bits(found, array)
    assert_same_bits(found, np.load(path))


def test_a_header_may_say_bfloat16(tmp_path):
    path = tmp_path / "a.npy"
    bits = narrow(LOGITS, BF16)
    path.write_bytes(described(descr="'bfloat16'", data=bits.tobytes()))
    found = load(str(path), ReadOptions())
    assert found.dtype == BF16
    assert found.tobytes() == bits.tobytes()


@pytest.mark.parametrize("entry", ["'descr\"", "\"descr'", "'descr", "descr", '""descr""'])
def test_quotes_must_match(entry, tmp_path):
    path = tmp_path / "a.npy"
    text = f"{{{entry}: '<f8', 'fortran_order': False, 'shape': (2, 3), }}"
    path.write_bytes(header(text, LOGITS.tobytes()))
    with pytest.raises(XentError, match="cannot parse the header"):
        load(str(path), ReadOptions())
