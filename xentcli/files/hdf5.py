"""HDF5 files, read by h5py (the extra `hdf5`): one dataset, some rows at a time.

Links and data that lead out of the file are refused: an input says nothing about which other files
are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import SUPPORTED, Array, name_of, native
from xentcli.errors import DtypeError, FormatError, Words, visible
from xentcli.files.contiguous import SAFE, Extent
from xentcli.files.format import Facts, Inspected, of_each
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions
from xentcli.files.random_access import RandomAccess, library_errors, require
from xentcli.files.reader import Reader, chunks
from xentcli.files.source import Source
from xentcli.records import dataclass

MAGIC = b"\x89HDF\r\n\x1a\n"
MOST = 1 << 22  # numbers that are read at a time, however many rows a chunk has
CACHE = 1 << 26  # bytes for chunks that are read in parts
MAX_RATIO = 10_000  # of the size of the numbers to that of what is stored


def open_hdf5(source: Source, options: ReadOptions) -> Reader:
    """The reader of the dataset that the options name, or of the only one."""
    file = _open(source)
    key = file.key(options)
    dataset = file.dataset(key)
    return Hdf5Reader(source, dataset, file.checked_dtype(key, dataset))


def member_names(source: Source) -> list[str]:
    """The paths of the datasets."""
    return _open(source).names


def inspect_hdf5(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every dataset, or about the one that the options name."""
    file = _open(source)
    keys = file.names if options.key is None else [file.key(options)]
    return of_each(keys, lambda key: file.facts(key, stats))


@dataclass(frozen=True)
class File:
    """An open file and the paths of its datasets."""

    source: Source
    h5py: Any
    file: Any
    names: list[str]

    def where(self, key: str) -> str:
        """A dataset's name in messages."""
        return f"{self.source.name}[{visible(key)}]"

    def key(self, options: ReadOptions) -> str:
        """The path that the options name, or the only one."""
        path = None if options.key is None else options.key.strip("/")
        if path and path not in self.names:
            self._refuse_link(path)
        return choose_key(self.names, replace(options, key=path), self.source.name)

    def _refuse_link(self, path: str) -> None:
        """An error where a path leads over a link."""
        place = self.file
        with library_errors(self.source.name, "HDF5"):
            for part in filter(None, path.split("/")):
                link = place.get(part, getlink=True) if hasattr(place, "keys") else None
                if link is None:
                    return
                if isinstance(link, self.h5py.ExternalLink):
                    what = f"'{visible(part)}' is a link into the file {visible(link.filename)}"
                    raise FormatError(self.source.name, what, "give that file, and its key")
                if isinstance(link, self.h5py.SoftLink):
                    what = f"'{visible(part)}' is a link to {visible(link.path)}"
                    raise FormatError(self.source.name, what, "give that path as the key")
                place = place[part]

    def dataset(self, key: str) -> Any:
        """A dataset whose numbers are all in this file, and plausible in number."""
        where = self.where(key)
        with library_errors(where, "HDF5"):
            found = self.file[key]
            if found.external:
                what = f"its numbers are in the file {visible(str(found.external[0][0]))}"
                raise FormatError(where, what, "read that file as raw numbers")
            if found.is_virtual:
                what = "a virtual dataset, whose numbers are in other datasets"
                raise FormatError(where, what, "copy it: h5repack, or dataset[:] in h5py")
            if found.shape is None:
                raise FormatError(where, "an empty dataset without a shape")
            self._check_size(found, where)
            return found

    def _check_size(self, dataset: Any, where: str) -> None:
        """An error for sizes that only the header claims."""
        extent = Extent(shape=dataset.shape, dtype=dataset.dtype)
        if extent.is_too_large:
            raise FormatError(where, f"shape {dataset.shape} is larger than NumPy can have")
        stored = dataset.id.get_storage_size()
        if extent.nbytes > SAFE + MAX_RATIO * stored:
            what = f"declares {extent.nbytes} bytes of numbers, but stores {stored}"
            raise FormatError(where, what)
        chunk = prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if chunk > SAFE + MAX_RATIO * (self.source.size or 0):
            raise FormatError(where, f"declares chunks of {chunk} bytes")

    def checked_dtype(self, key: str, dataset: Any) -> np.dtype[Any]:
        """The dtype of a dataset of numbers; V2 may be bfloat16."""
        dtype: np.dtype[Any] = native(np.dtype(dataset.dtype.str))  # HDF5 converts
        if (dtype.kind in "iuf" and dtype.itemsize <= 8) or dtype == np.dtype("V2"):
            return dtype
        raise DtypeError(self.where(key), f"dtype {_words(dataset)} is not supported", SUPPORTED)

    def facts(self, key: str, stats: bool) -> Facts:
        """Facts about a dataset; its numbers are read for `stats` only."""
        from xentcli.files.statistics import statistics  # reading does not need it

        dataset = self.dataset(key)
        packing = {"chunks": dataset.chunks, "compression": dataset.compression}
        with library_errors(self.where(key), "HDF5"):
            attributes = {k: v for k, v in dataset.attrs.items() if isinstance(v, str)}
        metadata = {k: str(v) for k, v in packing.items() if v} | attributes
        facts: Facts = {"name": self.where(key), "shape": dataset.shape, "dtype": _words(dataset)}
        facts |= {"metadata": metadata} if metadata else {}
        if stats and dataset.dtype.kind in "iuf":
            reader = Hdf5Reader(self.source, dataset, self.checked_dtype(key, dataset))
            facts |= statistics(reader.chunks())
        return facts


def _words(dataset: Any) -> str:
    """The dtype of a dataset in words."""
    return "object" if dataset.dtype.kind == "O" else name_of(np.dtype(dataset.dtype.str))


def _open(source: Source) -> File:
    start = source.peek(len(MAGIC))
    if start != MAGIC:
        raise FormatError(source.name, f"not an HDF5 file: it starts with {start!r}")
    h5py = require("h5py", "hdf5", "HDF5")
    access = RandomAccess(source)
    names: list[str] = []

    def visit(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and isinstance(name, str):  # not in damaged files
            names.append(name)

    with library_errors(source.name, "HDF5"):
        file = h5py.File(access, "r", rdcc_nbytes=CACHE)
        file.visititems(visit)
    return File(source, h5py, file, names)


class Hdf5Reader:
    """A dataset, whole rows at a time."""

    format = ""  # the registry sets it
    remarks: tuple[Words, ...] = ()

    def __init__(self, source: Source, dataset: Any, dtype: np.dtype[Any]) -> None:
        self._source, self._dataset, self.name = source, dataset, source.name
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype, self.unit = dtype, max(1, prod(self.shape[1:]))
        rows = dataset.chunks[0] if dataset.chunks else 1
        self.best_count = min(MOST, rows * self.unit)
        self._row = 0

    def make_buffer(self, count: int) -> Array | None:
        """A buffer; None if only the header claims its size."""
        return np.empty(count, self.dtype) if count * self.dtype.itemsize <= SAFE else None

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next rows, into `buffer` if there is one."""
        rows = count // self.unit
        flat = np.empty(count, self.dtype) if buffer is None else buffer[:count]
        if count:
            place = slice(self._row, self._row + rows) if self.shape else ()
            with library_errors(self.name, "HDF5"):
                box = flat.reshape((rows, *self.shape[1:]) if self.shape else ())
                self._dataset.read_direct(box, place)
        self._row += rows
        return flat

    def skip(self, count: int) -> None:
        """Skip the next rows."""
        self._row += count // self.unit

    def finish(self) -> None:
        """Check that the file has not changed; its size was checked at the beginning."""
        self._source.verify()

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array."""
        parts = [np.empty(0, self.dtype), *self.chunks()]
        return np.concatenate(parts).reshape(self.shape)
