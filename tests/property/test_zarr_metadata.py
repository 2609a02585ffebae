"""Metadata of zarr that say anything: only our errors, or an array."""

import copy
import json
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli.errors import XentError
from xentcli.files.inspection import inspect_path
from xentcli.files.opening import load
from xentcli.files.options import ReadOptions

zarr = pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11")

WIDE = np.random.default_rng(0).normal(size=(23, 31)).astype(np.float32)
KINDS = [
    {"compressors": None},
    {"compressors": "auto", "shards": (10, 16)},
    {"compressors": None, "zarr_format": 2},
    {"compressors": "auto", "zarr_format": 2, "order": "F"},
]
WORDS = ["bytes", "zstd", "sharding_indexed", "transpose", "default", "v2", "regular", "float32"]
WORDS += ["int8", "bfloat16", "r16", "NaN", "0x00", "pickle", "vlen-utf8", "array", "group", "/"]
LEAVES = st.sampled_from([None, True, 0, 1, -1, 2, 3, 2**40, 2**63, 1.5, float("nan"), "", *WORDS])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "id", "configuration", "level"]), inner)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Arrays and a group as zarr writes them: their folder, file of metadata, and what is in it."""
    top, found = tmp_path_factory.mktemp("zarr"), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about consolidated metadata
        for number, how in enumerate(KINDS):
            path = top / f"{number}.zarr"
            made = zarr.create_array(str(path), shape=(23, 31), dtype="f4", chunks=(5, 8), **how)
            made[...] = WIDE
            found.append(path)
        group = zarr.open_group(str(top / "g.zarr"), mode="w")
        group.create_array("logits", data=WIDE)
        zarr.consolidate_metadata(str(top / "g.zarr"))
    files = [p / name for p in (*found, top / "g.zarr") for name in ("zarr.json", ".zarray")]
    return [(file, json.loads(file.read_text())) for file in files if file.exists()]


def places(value, path=()):
    """The places of everything in a JSON value."""
    yield path
    lists = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else lists:
        yield from places(item, (*path, key))


def changed(document, place, value, *, removed):
    """A JSON value with another value at a place, or without what is there."""
    if not place:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if removed and isinstance(inner, dict):
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return document


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_metadata_give_an_array_or_an_error_of_ours(stores, data):
    file, document = data.draw(st.sampled_from(stores))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places(document))))
        removed = data.draw(st.booleans())
        document = changed(document, place, data.draw(VALUES), removed=removed)
    Path(file).write_text(json.dumps(document))
    for read in (load, lambda path: inspect_path(path, ReadOptions(), True)):
        with suppress(XentError):
            read(str(file.parent))
