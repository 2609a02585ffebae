"""Chunks that zarr decodes: compressed ones, shards, those at an address.

A band of whole chunks is decoded at a time, in parallel, and the next one while this one is used.
"""

from __future__ import annotations

import warnings
from threading import Thread
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FileError, FormatError, XentError, lacks_memory, reason
from xentcli.files.store import LocalStore, Store, needs_zarr, remote_errors, said
from xentcli.files.zarr.layout import Bands, Box, pieces, size_of
from xentcli.files.zarr.metadata import ZarrArray

AWAY = 4  # times as much is read together at an address, where each request takes its time


class DecodedChunks:
    """The numbers of an array that zarr reads, band by band."""

    def __init__(self, store: Store, array: ZarrArray, name: str) -> None:
        self._array, self._name = array, name
        self._dtype = array.require_dtype(name)
        self._local, self._place = isinstance(store, LocalStore), store.place
        self._zarr = _open(store, array, name)
        factor = 1 if self._local else AWAY
        self.bands = Bands.of(array.shape, array.chunks, self._dtype.itemsize, factor)
        self._numbers = size_of(tuple(slice(0, n) for n in array.shape))
        self._band: tuple[int, int, Array] = 0, 0, np.empty(0, self._dtype)
        self._next: _Ahead | None = None

    def view(self, start: int, count: int) -> Array:
        """Numbers from a position on: as many as are in its band, at most `count`."""
        first, stop, values = self._band
        if not first <= start < stop:
            first, stop, values = self._band = self._load(start)
        return values[start - first : min(start + count, stop) - first]

    def read(self, start: int, out: Array) -> None:
        """Read `out.size` numbers from a position on."""
        done = 0
        while done < out.size:
            found = self.view(start + done, out.size - done)
            out[done : done + found.size] = found
            done += found.size

    def _load(self, position: int) -> tuple[int, int, Array]:
        """The band at a position; the one after it is begun."""
        ahead, self._next = self._next, None
        self._band = 0, 0, np.empty(0, self._dtype)  # not three of them at a time
        box, first, stop = self.bands.at(position)
        if ahead is None or ahead.first != first:
            ahead = _Ahead(self, box, first)
        values = ahead.result()
        if stop < self._numbers:
            self._next = _Ahead(self, *self.bands.at(stop)[:2])
        return first, stop, values

    def decode(self, box: Box) -> Array:
        """The numbers of a box, flat; an error names the chunk."""
        try:
            return self._decoded(box)
        except Exception as error:
            for place, part in pieces(box, self._array.stored):
                try:
                    self._decoded(part)
                except Exception as inner:
                    raise self._error(inner, place) from inner
            raise self._error(error, None) from error

    def _decoded(self, box: Box) -> Array:
        found = np.asarray(self._zarr[box])
        if found.dtype != self._dtype and found.dtype.itemsize == self._dtype.itemsize:
            kind = self._dtype.kind == "V"
            found = found.view(self._dtype) if kind else found.astype(self._dtype)
        return np.ascontiguousarray(found).reshape(-1)

    def _error(self, error: Exception, place: tuple[int, ...] | None) -> Exception:
        if isinstance(error, XentError | MemoryError) or lacks_memory(error):
            return error
        chunk = "" if place is None else f": chunk {self._array.file_key(place)}"
        where = f"{self._name}{chunk}"
        if isinstance(error, PermissionError):
            return FileError(where, f"access denied: {said(error, self._place)}")
        if isinstance(error, OSError) or not self._local:
            return FileError(where, f"reading failed: {said(error, self._place)}")
        return FormatError(where, f"cannot be decoded: {reason(error)}")


class _Ahead:
    """A band that is decoded in a thread of its own, from now on."""

    def __init__(self, chunks: DecodedChunks, box: Box, first: int) -> None:
        self.first = first
        self._values: Array | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(chunks, box), daemon=True)
        self._thread.start()

    def _run(self, chunks: DecodedChunks, box: Box) -> None:
        try:
            self._values = chunks.decode(box)
        except BaseException as error:  # noqa: BLE001 (`result` raises it again)
            self._error = error

    def result(self) -> Array:
        """Wait for the numbers."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._values is not None
        return self._values


def _open(store: Store, array: ZarrArray, name: str) -> Any:
    """The array as zarr opens it."""
    try:
        import zarr
        from zarr.storage import FsspecStore, StorePath
        from zarr.storage import LocalStore as ZarrLocalStore
    except ImportError as error:
        raise needs_zarr(name, "compressed and remote chunks need zarr 3") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about dtypes and codecs without a specification
        if isinstance(store, LocalStore):
            place: Any = ZarrLocalStore(store.place, read_only=True)
        else:
            with remote_errors(store.place, "opening"):
                place = FsspecStore.from_url(store.place, read_only=True)
        try:
            return zarr.Array.from_dict(StorePath(place, array.key), array.document)
        except MemoryError:
            raise
        except Exception as error:  # codecs and their configurations raise anything
            raise FormatError(name, f"zarr cannot open this array: {_unknown(error)}") from error


def _unknown(error: Exception) -> str:
    codec = type(error).__name__ == "UnknownCodecError" or isinstance(error, KeyError)
    return f"it knows no codec {reason(error)}" if codec else reason(error)
