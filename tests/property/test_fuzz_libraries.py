"""Damaged Parquet, Arrow and HDF5 files: only our errors, or the numbers of a file that is whole.

`python tests/fuzz.py` runs the same for minutes. The libraries are of C and C++, which a damaged
file could crash: the test runs this file as a program.
"""

import io
import operator
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli.errors import XentError
from xentcli.files.inspection import inspect_path
from xentcli.files.opening import load
from xentcli.files.options import ReadOptions

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
h5py = pytest.importorskip("h5py")

NUMBERS = np.random.default_rng(1).normal(size=(57, 5))
LABELS = np.arange(57) % 5


@cache
def whole_files():
    """Files of each format, by its name."""
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(NUMBERS.reshape(-1)), 5)
    tables = [pa.table({"x": x, "y": LABELS}) for x in (fixed, pa.array(NUMBERS.tolist()))]
    tables[1] = tables[1].set_column(1, "y", pa.array(LABELS).dictionary_encode())
    return {
        "parquet": [_parquet(table, how) for table in tables for how in PARQUET],
        "arrow": [
            _arrow(table, create, how)
            for table in tables
            for create in (pa.ipc.new_file, pa.ipc.new_stream)
            for how in (None, "zstd", "lz4")
        ],
        "hdf5": [_hdf5(how, version) for how in HDF5 for version in (None, "latest")],
    }


PARQUET = (
    {},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 128},
)
HDF5 = (
    {},
    {"chunks": (7, 2)},
    {"chunks": (7, 5), "compression": "gzip", "shuffle": True},
    {"chunks": (7, 5), "compression": "lzf", "fletcher32": True},
)


def _parquet(table, how):
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=20, **how)
    return stream.getvalue()


def _arrow(table, create, compression):
    stream = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with create(stream, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=20)
    return stream.getvalue()


def _hdf5(how, version):
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=version) as file:
        file.create_dataset("x", data=NUMBERS, **how)
        file["y"] = LABELS
    return stream.getvalue()


@st.composite
def examples(draw):
    """The name of a format, and a file with some bytes changed, or whole."""
    name = draw(st.sampled_from(sorted(whole_files())))
    number = draw(st.integers(0, len(whole_files()[name]) - 1))
    new = data = whole_files()[name][number]
    for _ in range(draw(st.integers(0, 4))):
        anywhere = st.integers(0, len(new))
        head, tail = st.integers(0, min(len(new), 400)), st.integers(0, min(len(new), 800))
        start = draw(st.one_of(anywhere, head, tail.map(partial(operator.sub, len(new)))))
        width = draw(st.sampled_from([0, 1, 1, 4, 8]))
        words = [b"\xff" * width, b"\0" * width, (2**31 - 1).to_bytes(8, "little")[:width]]
        blob = draw(st.one_of(st.sampled_from(words), st.binary(min_size=width, max_size=width)))
        new = new[:start] + blob + new[start + draw(st.sampled_from([width, width, width + 1])) :]
    return name, new, new == data


EXAMPLES = examples()


def by_us(name, path, key):
    """Our array; None for our error, or where a size in the file is more than all memory."""
    try:
        return load(path, ReadOptions(name, key=key))
    except (XentError, MemoryError):
        return None


def check(example):
    """Our errors only, and the right numbers of a file that is whole."""
    name, data, is_whole = example
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "a"))
        Path(path).write_bytes(data)
        found = {key: by_us(name, path, key) for key in ("x", "y")}
        if is_whole:
            assert found["x"] is not None, "a right file is refused"
            assert found["x"].tobytes() == NUMBERS.tobytes(), "other numbers"
            assert found["y"].tobytes() == LABELS.tobytes(), "other targets"
        try:
            list(inspect_path(path, ReadOptions(name), stats=True))
        except (XentError, MemoryError):
            assert not is_whole, "a right file cannot be inspected"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(EXAMPLES)
def damaged_files(example):
    check(example)


def test_damaged_files_are_our_errors_and_crash_nothing():
    done = subprocess.run([sys.executable, __file__], capture_output=True, timeout=600, text=True)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("found", "words"),
    [(None, "refused"), (NUMBERS + 1, "other numbers"), (NUMBERS, "other targets")],
)
def test_the_check_finds_what_is_wrong(found, words, monkeypatch):
    monkeypatch.setattr("test_fuzz_libraries.by_us", lambda name, path, key: found)
    with pytest.raises(AssertionError, match=words):
        check(("hdf5", whole_files()["hdf5"][0], True))


if __name__ == "__main__":
    damaged_files()
