"""Bytes that claim to be a safetensors file: only our errors, or exactly what is in them.

`python tests/fuzz.py` runs the same for minutes. Where the package `safetensors` is installed, all
that we read it reads too, with the same bits.
"""

import io
import json
import struct
import tempfile
import tracemalloc
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli.errors import XentError
from xentcli.files.options import ReadOptions
from xentcli.files.safetensors import member_names, open_safetensors
from xentcli.files.source import CHUNK, Source, open_source

try:
    from safetensors import SafetensorError, deserialize
except ImportError:
    deserialize = None

SIZES = dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"], 1)
SIZES |= dict.fromkeys(["I16", "U16", "F16", "BF16"], 2) | dict.fromkeys(["I32", "U32", "F32"], 4)
SIZES |= dict.fromkeys(["F64", "I64", "U64", "C64"], 8)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def contents(draw):
    """Names with dtype, shape and bytes."""
    found = {}
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(sorted(SIZES)))
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        count = prod(shape) * SIZES[dtype]
        start = draw(st.integers(0, 255))
        data = (np.arange(start, start + count) * 7 // 3 % 251).astype("u1").tobytes()
        found[name] = dtype, tuple(shape), data
    return found


def built(arrays, order, metadata, indent, blanks):
    """A file of arrays whose numbers are in some order, and its header in another."""
    header, body = ({"__metadata__": metadata} if metadata else {}), b""
    places = {}
    for name in order:
        data = arrays[name][2]
        places[name] = [len(body), len(body) + len(data)]
        body += data
    for name, (dtype, shape, _) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": places[name]}
    text = json.dumps(header, indent=indent, ensure_ascii=bool(blanks % 2)).encode() + b" " * blanks
    return struct.pack("<Q", len(text)) + text + body


@st.composite
def files(draw):
    """The bytes of a file, and its arrays where nothing was changed."""
    arrays = draw(contents())
    order = draw(st.permutations(sorted(arrays)))
    metadata = draw(st.dictionaries(NAMES, NAMES, max_size=2))
    data = built(arrays, order, metadata, draw(st.sampled_from([None, 1])), draw(st.integers(0, 9)))
    new = data
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.one_of(st.integers(0, len(new)), st.integers(0, min(len(new), 200))))
        end = min(len(new), start + draw(st.integers(0, 9)))
        words = st.sampled_from([b'"', b"{", b"}", b"[", b",", b"1", b"-1", b"1e3", b"1.0", b"NaN"])
        blob = st.one_of(st.binary(max_size=4), st.just(new[start:end] * 2), words)
        new = new[:start] + draw(blob) + new[end:]
    return new, (arrays if new == data else None)


@st.composite
def claims(draw):
    """Headers that claim far more than there is."""
    size = draw(st.sampled_from([10**7, 10**9, 2**40, 2**62, 10**30]))
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    text = json.dumps({"a": entry}).encode()
    length = draw(st.sampled_from([len(text), 10**8, 10**8 + 1, 2**62]))
    return struct.pack("<Q", length) + text + bytes(draw(st.integers(0, 40))), None


EXAMPLES = st.tuples(st.one_of(files(), claims()), st.booleans())


def opened(data, as_file, work):
    """What some work makes of a file or stream of these bytes."""
    if not as_file:
        return work(Source(io.BytesIO(data), "a stream"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        path.write_bytes(data)
        with open_source(str(path)) as source:
            return work(source)


def by_us(data, as_file):
    """Our arrays by name; None for our error, for the file or one of them as a value."""
    try:
        names = opened(data, as_file, member_names)
    except XentError:
        return None
    found = {}
    for name in names:
        try:
            whole = lambda source, key=name: open_safetensors(source, ReadOptions(key=key)).whole()  # noqa: E731 (short)
            found[name] = opened(data, as_file, whole)
        except XentError:
            found[name] = None
    return found


def values_of(dtype, shape, data):
    """The numbers of an array; None for a dtype that is refused."""
    if dtype == "C64":
        return None
    if dtype.startswith("F8"):
        return np.array([float8(byte, dtype) for byte in data], "f4").reshape(shape)
    kinds = {"BOOL": "?", "BF16": "V2"}
    return np.frombuffer(
        data, kinds.get(dtype, "<" + dtype[0].lower() + str(SIZES[dtype]))
    ).reshape(shape)


def float8(byte, dtype):
    """The value of an 8-bit float, with Python's floats."""
    sign = -1.0 if byte >= 128 else 1.0
    width = 3 if dtype == "F8_E4M3" else 2
    exponent, fraction = byte % 128 >> width, byte % (1 << width)
    bias, top = (7, 15) if width == 3 else (15, 31)
    if width == 3 and byte % 128 == 127:
        return float("nan")
    if width == 2 and exponent == top:
        return sign * float("inf") if fraction == 0 else float("nan")
    if exponent == 0:
        return sign * fraction * 2.0 ** (1 - bias - width)
    return sign * (1 + fraction / 2**width) * 2.0 ** (exponent - bias)


def assert_equal(ours, theirs):
    """The same numbers; any NaN for a NaN."""
    if theirs is None:
        assert ours is None
        return
    assert ours is not None
    assert ours.shape == theirs.shape, "another shape"
    if theirs.dtype.kind == "f" and ours.dtype == np.float32:
        np.testing.assert_array_equal(ours, theirs)
        numbers = ~np.isnan(ours)
        np.testing.assert_array_equal(np.signbit(ours[numbers]), np.signbit(theirs[numbers]))
    else:
        assert ours.tobytes() == theirs.tobytes(), "other numbers"


def check(example):
    """Ours or the package's, and no memory on the word of a header."""
    (data, arrays), as_file = example
    tracemalloc.start()
    try:
        ours = by_us(data, as_file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * CHUNK + 100 * len(data), f"{peak} bytes for a file of {len(data)}"
    if arrays is not None:
        assert ours is not None, "a right file is refused"
        assert ours.keys() == arrays.keys(), "other names"
        for name, array in arrays.items():
            assert_equal(ours[name], values_of(*array))
    read = any(array is not None for array in (ours or {}).values())  # to the end of the file
    if not read or deserialize is None:
        return
    try:
        theirs = dict(deserialize(data))
    except SafetensorError as error:
        raise AssertionError(f"the package refuses it: {error}") from error
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        if array["dtype"] in SIZES:
            assert_equal(ours[name], values_of(array["dtype"], array["shape"], array["data"]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(EXAMPLES)
def test_any_bytes_are_the_arrays_in_them_or_our_error(example):
    check(example)


GOOD = {"a": ("U8", (2,), b"\1\2")}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "refused"),
        ({}, "other names"),
        ({"a": np.array([1, 3], "u1")}, "other numbers"),
        ({"a": np.array([[1, 2]], "u1")}, "another shape"),
    ],
)
def test_the_check_finds_what_is_wrong(found, words, monkeypatch):
    monkeypatch.setattr("test_fuzz_safetensors.by_us", lambda data, as_file: found)
    with pytest.raises(AssertionError, match=words):
        check(((built(GOOD, ["a"], {}, None, 0), GOOD), False))


def test_the_check_finds_memory_that_a_header_asks_for(monkeypatch):
    monkeypatch.setattr("test_fuzz_safetensors.by_us", lambda data, as_file: np.zeros(10**8)[:0])
    with pytest.raises(AssertionError, match="bytes for a file"):
        check(((b"", None), False))
