"""Bytes that claim to be a PyTorch file: only our errors, or exactly the numbers in them.

`python tests/fuzz.py` runs the same for minutes.
"""

import itertools
import tempfile
import tracemalloc
import zipfile
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_files import pytorch, repacked

from xentcli.errors import XentError
from xentcli.files.opening import load
from xentcli.files.options import ReadOptions
from xentcli.files.source import CHUNK

MOST = 10**4  # numbers that are compared
SMALL = st.integers(0, 4)
HUGE = st.sampled_from([-1, -(2**63), 10**6, 2**31, 2**62, 2**63 - 1])


@st.composite
def views(draw):
    """A storage of numbers, and any view of it, also one that reaches out of it."""
    storage = np.arange(draw(st.integers(0, 40)), dtype=draw(st.sampled_from(["f4", "f8"])))
    shape = tuple(draw(st.lists(st.one_of(SMALL, SMALL, SMALL, HUGE), max_size=4)))
    contiguous = tuple(
        int(np.clip(float(prod(shape[n:])), -1e18, 1e18)) for n in range(1, len(shape) + 1)
    )
    number = st.one_of(SMALL, SMALL, HUGE)
    any_strides = st.lists(number, min_size=len(shape), max_size=len(shape)).map(tuple)
    strides = draw(st.one_of(st.just(contiguous), any_strides))
    return storage, draw(st.one_of(st.just(0), number)), shape, strides


def numbers_of(storage, offset, shape, strides):
    """The numbers of a view, one by one; None where one is not in the storage."""
    if min((offset, *shape, *strides)) < 0:
        return None
    if 0 in shape:
        too_large = prod(n for n in shape if n) * storage.itemsize >= 2**63
        return None if too_large or offset > len(storage) else np.empty(shape, storage.dtype)
    places = [
        offset + sum(i * stride for i, stride in zip(index, strides, strict=True))
        for index in itertools.product(*map(range, shape))
    ]
    if any(place >= len(storage) for place in places):
        return None
    return np.array([storage[place] for place in places], storage.dtype).reshape(shape)


@st.composite
def files(draw):
    """The bytes of a file, its view, and whether nothing was changed."""
    view = storage, offset, shape, strides = draw(views())
    members = pytorch(storage, offset=offset, shape=shape, strides=strides)
    packing = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    changed = draw(st.booleans())
    if changed and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(members)))
        members[name] = draw(mutated(members[name]))
        return repacked(members, packing), view, False
    data = repacked(members, packing)
    return (draw(mutated(data)), view, False) if changed else (data, view, True)


@st.composite
def mutated(draw, data):
    """Bytes with some of them changed, taken out or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 9)))
        words = st.sampled_from([b"\xff" * 8, b"\0" * 4, b"cos\nsystem\n", b"(", b"t", b"R", b"."])
        blob = st.one_of(st.binary(max_size=4), st.just(data[start:end] * 2), words)
        data = data[:start] + draw(blob) + data[end:]
    return data


EXAMPLES = files()


def by_us(data):
    """Our array; None for our error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        path.write_bytes(data)
        try:
            return load(str(path), ReadOptions("pt"))
        except XentError:
            return None


def check(example):
    """The numbers of the view or our error, and no memory on the word of the pickle."""
    data, view, is_whole = example
    tracemalloc.start()
    try:
        ours = by_us(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * CHUNK + 100 * len(data), f"{peak} bytes for a file of {len(data)}"
    if not is_whole or (min(view[2], default=0) >= 0 and prod(view[2]) > MOST):
        return  # of the latter ours are a few numbers many times, or an error
    expected = numbers_of(*view)
    if expected is None:
        assert ours is None, "numbers out of the storage"
    else:
        assert ours is not None, "a right file is refused"
        assert ours.shape == expected.shape, "another shape"
        assert ours.dtype == expected.dtype, "another dtype"
        assert ours.tobytes() == expected.tobytes(), "other numbers"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(EXAMPLES)
def test_any_bytes_are_the_view_in_them_or_our_error(example):
    check(example)


STORAGE = np.arange(6, dtype="f4")
GOOD = STORAGE, 1, (2,), (2,)
OUTSIDE = STORAGE, 5, (2,), (2,)


@pytest.mark.parametrize(
    ("view", "found", "words"),
    [
        (GOOD, None, "refused"),
        (GOOD, np.array([[1, 3]], "f4"), "another shape"),
        (GOOD, np.array([1, 3], "f8"), "another dtype"),
        (GOOD, np.array([1, 2], "f4"), "other numbers"),
        (OUTSIDE, np.array([5, 7], "f4"), "out of the storage"),
    ],
)
def test_the_check_finds_what_is_wrong(view, found, words, monkeypatch):
    monkeypatch.setattr("test_fuzz_pytorch.by_us", lambda data: found)
    with pytest.raises(AssertionError, match=words):
        check((b"", view, True))


def test_the_check_finds_memory_that_a_header_asks_for(monkeypatch):
    monkeypatch.setattr("test_fuzz_pytorch.by_us", lambda data: np.zeros(10**8)[:0])
    with pytest.raises(AssertionError, match="bytes for a file"):
        check((b"", GOOD, False))
