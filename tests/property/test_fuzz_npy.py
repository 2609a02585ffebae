"""Bytes that claim to be an .npy file: only our errors, or exactly what NumPy reads.

`python tests/fuzz.py` runs the same for minutes.
"""

import io
import tempfile
import tracemalloc
import warnings
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
from cli import header
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli.errors import XentError
from xentcli.files.npy.reader import open_npy
from xentcli.files.options import ReadOptions
from xentcli.files.source import CHUNK, Source, open_source

DESCRS = [
    *("".join(parts) for parts in product("<>|=", ["f2", "f4", "f8", "i1", "u8", "b1", "V2"])),
    *("<f16", "|O", "<c8", "<U3", "|S4", "<M8[s]", "|V0", "|S0", "f4", "float32", ",", "f4,f8", ""),
]  # fmt: skip
SHAPES = st.lists(
    st.sampled_from([0, 1, 1, 2, 3, 7, 10**9, 2**31, 2**62, 2**63, 10**30]), max_size=4
)
WORDS = st.sampled_from(
    [
        *("{", "}", "(", ")", "[", "]", ",", ":", "'", '"', "'''", "\\", "-", "+1", "1", "02", "L"),
        *("1_0", "0x1", "1e3", "True", "False", "None", "'descr'", "'shape'", "'fortran_order'"),
        *("'<f4'", "b'<f4'", "u'<f4'", "lambda: 0", "__import__('os')", "\0", "\n", "\t", "\x0b"),
        *("\x1c", "\x85", "\xa0", "\xff", "#", ";", "*()", "np.int64(2)", "9" * 5000, "(" * 3000),
    ]
)


SPELLINGS = ["{}", "{}", "{}", "{}", "0{}", "{}L", "+{}", "-{}", "{}.", "{}_0", " {} ", "{}\xa0"]
BLANKS = ["", "", " ", "\t", "\n", "\x0b", "\x0c", "\r", "\x1c", "\x85", "\xa0"]


def plain(descr, order, shape, quote="'"):
    """The header's text as NumPy writes it."""
    inner = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({inner}), }}"
    return text.replace("'", quote)


@st.composite
def texts(draw):
    """Headers that are right, nearly right, or a heap of words, and the size of their data."""
    sizes, descr = draw(SHAPES), draw(st.sampled_from(DESCRS))
    shape = [draw(st.sampled_from(SPELLINGS)).format(size) for size in sizes]
    quote = draw(st.sampled_from(["'", "'", "'", '"']))
    text = plain(descr, draw(st.booleans()), shape, quote)
    for place in draw(st.lists(st.sampled_from("{}(),:"), max_size=2)):
        blank = draw(st.sampled_from(BLANKS))
        text = text.replace(place, draw(st.sampled_from([place + blank, blank + place])))
    for word in draw(st.lists(WORDS, max_size=draw(st.sampled_from([0, 0, 3])))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 1, 2, 8])))
        text = text[:start] + word + text[end:]
    need = prod(sizes) * int(descr[2:3] if descr[2:3].isdigit() else 8)
    if not draw(st.integers(0, 9)):
        text = draw(st.lists(WORDS, max_size=12).map("".join))
    return text, need if need < CHUNK else draw(st.sampled_from([0, 8, 24]))


@st.composite
def claims(draw):
    """Right headers of arrays that may be far larger than the file."""
    shape = draw(
        st.lists(st.sampled_from([1, 2, 10**7, 10**9, 2**31, 2**62]), min_size=1, max_size=2)
    )
    text = plain(draw(st.sampled_from(["<f8", ">f4", "|i1"])), draw(st.booleans()), shape)
    return header(text, bytes(draw(st.sampled_from([0, 8, 48]))))


@st.composite
def mutated(draw, data):
    """Some bytes changed, taken out, doubled or put in."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 9)))
        put = draw(st.one_of(st.binary(max_size=4), st.just(data[start:end] * 2)))
        data = data[:start] + put + data[end:]
    return data


@st.composite
def files(draw):
    """The bytes of a file and whether they are known to be right."""
    if draw(st.booleans()):
        dtype = draw(
            st.sampled_from(["f2", "<f4", ">f4", "f8", ">f8", "i1", ">i4", "u8", "?", "V2"])
        )
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
        values = np.arange(np.prod(shape, dtype=int) * np.dtype(dtype).itemsize) * 7 // 3
        order = draw(st.sampled_from("CF"))
        array = np.asarray(
            (values % (2 if dtype == "?" else 251)).astype("u1").view(dtype).reshape(shape),
            order=order,
        )
        stream = io.BytesIO()
        version = draw(st.sampled_from([(1, 0), (2, 0), (3, 0)]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that few programs read version 2
            np.lib.format.write_array(stream, array, version)
        data = stream.getvalue()
        new = draw(mutated(data))
        return new, new == data
    if draw(st.integers(0, 3)) == 0:
        return draw(claims()), False
    text, size = draw(texts())
    version = draw(st.sampled_from([(1, 0), (1, 0), (2, 0), (3, 0), (1, 1), (9, 9)]))
    raw = text.encode("utf-8" if version[0] == 3 else "latin-1")
    length = draw(st.sampled_from([None, None, None, None, 0, 5, 2**16 - 1]))
    data = header(raw, bytes(size), version, length)
    return draw(st.one_of(st.just(data), mutated(data), st.binary(max_size=40))), False


EXAMPLES = st.tuples(files(), st.booleans())


def by_numpy(data):
    """NumPy's array, or None where it finds no array in exactly these bytes."""
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of headers from Python 2
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception:  # noqa: BLE001 (it raises whatever it meets: IndexError, TokenError, …)
        return None
    return array if not stream.read(1) else None


def by_us(data, as_file):
    """Our array, or None for our error; anything else that is raised is a finding."""
    try:
        if not as_file:
            return open_npy(Source(io.BytesIO(data), "a stream"), ReadOptions()).whole()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.npy")
            path.write_bytes(data)
            with open_source(str(path)) as source:
                return open_npy(source, ReadOptions()).whole()
    except XentError:
        return None


def check(example):
    """Ours or NumPy's, and no memory on the word of a header."""
    (data, right), as_file = example
    tracemalloc.start()
    try:
        ours = by_us(data, as_file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * CHUNK + 20 * len(data), f"{peak} bytes for a file of {len(data)}"
    assert ours is not None or not right, "a file that NumPy wrote is refused"
    if ours is None:
        return
    theirs = by_numpy(data)
    assert theirs is not None, "NumPy reads no array there"
    assert theirs.dtype == ours.dtype
    if ours.dtype.kind == "V":
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert_same_bits(ours, theirs)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(EXAMPLES)
def test_any_bytes_are_what_numpy_reads_or_our_error(example):
    check(example)


def test_the_check_finds_what_numpy_refuses(monkeypatch):
    monkeypatch.setattr("test_fuzz_npy.by_us", lambda data, as_file: np.zeros(3))
    with pytest.raises(AssertionError, match="no array"):
        check(((b"nonsense", False), False))


def test_the_check_finds_what_is_refused_and_right(monkeypatch):
    monkeypatch.setattr("test_fuzz_npy.by_us", lambda data, as_file: None)
    with pytest.raises(AssertionError, match="refused"):
        check(((b"", True), False))


def test_the_check_finds_memory_that_a_header_asks_for(monkeypatch):
    monkeypatch.setattr("test_fuzz_npy.by_us", lambda data, as_file: np.zeros(10**8)[:0])
    with pytest.raises(AssertionError, match="bytes for a file"):
        check(((b"", False), False))
