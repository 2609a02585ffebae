"""Reading and inspecting zarr arrays: in C order, in constant memory, however they are chunked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, Array, name_of, widen
from xentcli.errors import FileError, FormatError, Words, plural
from xentcli.files.contiguous import SAFE
from xentcli.files.format import Facts, Inspected, of_each
from xentcli.files.options import ReadOptions
from xentcli.files.reader import Reader, chunks
from xentcli.files.source import Source
from xentcli.files.store import LocalStore, Store
from xentcli.files.zarr import nodes
from xentcli.files.zarr.decoded import DecodedChunks
from xentcli.files.zarr.metadata import OPAQUE, ZarrArray, nbytes
from xentcli.files.zarr.plain import PlainChunks
from xentcli.files.zarr.slices import ZarrSlices

SPARSE = 1000  # of so many chunks one at least has to be stored
LISTED = 100_000  # files that are looked for before the numbers are read


def open_zarr(source: Source, options: ReadOptions) -> Reader:
    """The reader of the array that the options name, or of the only one."""
    assert source.store
    return ZarrReader(source.store, nodes.find(source.store, options), options)


def member_names(source: Source) -> list[str]:
    """The names of the arrays."""
    assert source.store
    return nodes.names(source.store)


class ZarrReader:
    """One array of a store."""

    format = "zarr"
    best_count = 1

    def __init__(self, store: Store, array: ZarrArray, options: ReadOptions) -> None:
        self.name = nodes.called(store, array)
        self._store, self.array = store, array
        self._stored_dtype = array.require_dtype(self.name)
        is_bfloat16 = self._stored_dtype == OPAQUE and options.bfloat16
        self.dtype = BF16 if is_bfloat16 else self._stored_dtype
        self.shape = array.shape
        self.unit = max(1, self.shape[-1]) if len(self.shape) > 1 else 1
        self._plain = array.plain and isinstance(store, LocalStore)
        self._chunks = _chunks(store, array, self.name, plain=self._plain)
        self._done = 0
        self._survey = _survey(store, array)
        missing = self._survey[0]
        self._check_stored(missing)
        self.remarks = self._remarks(missing)

    def _remarks(self, missing: int) -> tuple[Words, ...]:
        found = []
        if missing:
            fill = widen(self.array.fill, NAMES["f64"])[0] if self.dtype.kind in "biuf" else None
            known = "" if fill is None else f" {fill:g}"
            what = f"{missing} of {plural(prod(self.array.grid), 'chunk')} are not stored, and are "
            found.append(f"{what}read as the fill value{known}")
        if isinstance(self._chunks, DecodedChunks) and self._chunks.bands.times > 1:
            times = self._chunks.bands.times
            what = f"chunks {self.array.chunks} hold too many rows: each is decoded {times} times; "
            found.append(what + "chunks of fewer rows are read faster")
        return tuple(found)

    def _check_stored(self, missing: int) -> None:
        """An error for an array or rows that are large because only the metadata say so."""
        count, row = prod(self.array.grid), self.unit * self.dtype.itemsize
        if missing and row > SAFE:
            what = f"rows of {self.unit} numbers have chunks that are not stored, an error "
            raise FormatError(self.name, f"{what}for rows of more than {SAFE} bytes")
        if count > SPARSE * max(1, count - missing):
            what = f"only {count - missing} of {count} chunks are stored, less than 1 in {SPARSE}"
            raise FormatError(self.name, f"shape {self.shape}: {what}")

    def make_buffer(self, count: int) -> Array | None:
        """A buffer for numbers that are read from plain chunks; decoded ones have their own."""
        return np.empty(count, self.dtype) if self._plain else None

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers, whole rows: a view of decoded ones, where they are in one band."""
        start, self._done = self._done, self._done + count
        if isinstance(self._chunks, DecodedChunks):
            found = self._chunks.view(start, count) if count else np.empty(0, self.dtype)
            if found.size == count:
                return found.view(self.dtype)
        out = np.empty(count, self.dtype) if buffer is None else buffer[:count]
        self._chunks.read(start, out.view(self._stored_dtype))
        return out

    def slices(self) -> ZarrSlices:
        """The array for other processes, which read parts of it."""
        place = self._store.place
        if isinstance(self._store, LocalStore):
            place = os.path.realpath(place)
        return ZarrSlices(place, self.name, self.array, self.dtype)

    def skip(self, count: int) -> None:
        """Skip the next numbers."""
        self._done += count

    def finish(self) -> None:
        """Check that the array has not changed."""
        nodes.require_same(self._store, self.array)
        if isinstance(self._store, LocalStore) and _survey(self._store, self.array) != self._survey:
            raise FileError(self.name, "changed while it was read")

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array."""
        array = self.read(prod(self.shape)).reshape(self.shape)
        self.finish()
        return array


def _chunks(
    store: Store, array: ZarrArray, name: str, *, plain: bool
) -> PlainChunks | DecodedChunks:
    if plain:
        assert isinstance(store, LocalStore)
        return PlainChunks(store, array, name)
    return DecodedChunks(store, array, name)


def _survey(store: Store, array: ZarrArray) -> tuple[int, int]:
    """How many files of chunks are not there, and a number that changes where a file does.

    0 are missing where that cannot be found out quickly; files at an address have no such number.
    """
    count, found, states = prod(array.grid), 0, 0
    if not isinstance(store, LocalStore) and count > LISTED:
        return 0, 0
    files = store.files(array.key, len(array.shape))
    if files is None:
        return 0, 0
    for name, state in files:
        place = array.place_of(name)
        if place is not None:
            found, states = found + 1, states ^ hash((name, state))
    return count - found, states


def inspect_zarr(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every array, or about the one that the options name."""
    from xentcli.files.statistics import statistics  # reading does not need it

    store = source.store
    assert store
    arrays = {nodes.called(store, array): array for array in nodes.every(store, options)}

    def facts_of(name: str) -> Facts:
        facts = _facts(arrays[name], name)
        if stats and arrays[name].dtype is not None:
            facts |= statistics(ZarrReader(store, arrays[name], options).chunks())
        return facts

    yield from of_each(list(arrays), facts_of)


def _facts(array: ZarrArray, name: str) -> Facts:
    facts: dict[str, Any] = {
        "name": name,
        "format": "zarr",
        "version": str(array.version),
        "shape": array.shape,
        "dtype": name_of(array.dtype) if array.dtype else array.dtype_name,
        "chunks": array.chunks,
    }
    if array.stored != array.chunks:
        facts["shards"] = array.stored
    facts["nbytes"] = nbytes(array)
    return facts | ({"compression": array.compression} if array.compression else {})
