"""Bytes that claim to be compressed: only our errors, or exactly what was compressed.

`python tests/fuzz.py` runs the same for minutes. All that we read the standard library reads too,
with the same bytes; it also reads some streams that we refuse, such as those with rubbish after
them.
"""

import bz2
import gzip
import io
import lzma
import tracemalloc
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli.errors import XentError
from xentcli.files.compression import by_first_bytes
from xentcli.files.format import FIRST_BYTES
from xentcli.files.inflated import InflatedSource
from xentcli.files.source import CHUNK, Source

LIBRARIES = {"gzip": gzip, "bzip2": bz2, "xz": lzma}
MOST = 10**6  # bytes that are read at most


@st.composite
def files(draw):
    """The bytes of a file, and what is in it where nothing was changed."""
    library = LIBRARIES[draw(st.sampled_from(sorted(LIBRARIES)))]
    parts = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
    parts = [part * draw(st.sampled_from([1, 1, 1000])) for part in parts]
    data = b"".join(map(library.compress, parts)) + b"\0" * draw(st.sampled_from([0, 0, 4, 512]))
    new = data
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(new)))
        end = min(len(new), start + draw(st.integers(0, 9)))
        blob = st.one_of(st.binary(max_size=4), st.just(new[start:end] * 2))
        new = new[:start] + draw(blob) + new[end:]
    return new, (b"".join(parts) if new == data else None)


EXAMPLES = st.tuples(files(), st.sampled_from([1, 7, 1000, MOST]))


def by_us(data, portion):
    """What we read, at most `MOST` bytes; None for our error."""
    source = Source(io.BytesIO(data), "a stream")
    kind = by_first_bytes(source.peek(FIRST_BYTES))
    if kind is None:
        return None
    found = b""
    with closing(InflatedSource(source, kind)) as inflated:
        try:
            while len(found) < MOST and (some := inflated.read(portion)):
                found += some
        except XentError:
            return None
    return found


def by_library(data):
    """What the standard library reads; it knows no zeros after xz."""
    library = LIBRARIES[by_first_bytes(data[:FIRST_BYTES]).name]
    data = data.rstrip(b"\0") if library is lzma else data
    with library.open(io.BytesIO(data)) as file:
        return file.read(MOST)


def check(example):
    """Ours is what was compressed, or what the library reads, and takes little memory."""
    (data, content), portion = example
    tracemalloc.start()
    try:
        ours = by_us(data, portion)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * CHUNK, f"{peak} bytes for a file of {len(data)}"
    if content is not None:
        assert ours is not None, "a right file is refused"
        assert ours == content, "other bytes"
    elif ours is not None:
        assert ours == by_library(data)[: len(ours)], "not what the library reads"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(EXAMPLES)
def test_any_bytes_are_what_was_compressed_or_our_error(example):
    check(example)


@pytest.mark.parametrize(
    ("content", "found", "words"),
    [(b"abc", None, "refused"), (b"abc", b"abd", "other bytes"), (None, b"abd", "not what")],
)
def test_the_check_finds_what_is_wrong(content, found, words, monkeypatch):
    monkeypatch.setattr("test_fuzz_compressed.by_us", lambda data, portion: found)
    with pytest.raises(AssertionError, match=words):
        check(((gzip.compress(b"abc"), content), 1))
