"""Numbers that are kept of all rows, for exact quantiles: in memory, or in temporary files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files.descriptor import file_errors

LIMIT = 1 << 30  # bytes that are kept in memory
KEYS = 1 << 16  # 16 bits; also how many numbers are looked at at a time

# The quantiles of a report by their names, in the order of the numbers.
QUANTILES = {
    "min": 0.0,
    "0.1%": 0.001,
    "1%": 0.01,
    "5%": 0.05,
    "10%": 0.1,
    "25%": 0.25,
    "median": 0.5,
    "75%": 0.75,
    "90%": 0.9,
    "95%": 0.95,
    "99%": 0.99,
    "99.9%": 0.999,
    "max": 1.0,
}


class KeptColumns:
    """Columns of numbers by name, all of the same length, that grow with the rows.

    >>> kept = KeptColumns({"nll": "f8"})
    >>> kept.add({"nll": np.array([1.0, 2.0])})
    >>> kept.columns()["nll"].tolist()
    [1.0, 2.0]
    """

    def __init__(self, dtypes: dict[str, str]) -> None:
        self._dtypes = {name: np.dtype(code) for name, code in dtypes.items()}
        self._parts: dict[str, list[Array]] = {name: [] for name in dtypes}
        self._files: dict[str, IO[bytes]] = {}
        self._in_memory = 0
        self.rows = 0

    @property
    def on_disk(self) -> bool:
        """Whether there were too many rows for memory."""
        return bool(self._files)

    def add(self, columns: dict[str, Array]) -> None:
        """Take the next rows of every column; the arrays are copied."""
        for name, dtype in self._dtypes.items():
            part = columns[name].astype(dtype)
            self._parts[name].append(part)
            self._in_memory += part.nbytes
        self.rows += len(part)
        if self._in_memory > LIMIT or self._files:
            self._to_disk()

    def merge(self, other: KeptColumns) -> None:
        """Take the rows of another, which follow."""
        self.add(other.columns())

    def columns(self) -> dict[str, Array]:
        """All columns, once: they are not kept any longer, and may be changed."""
        return {name: self._column(name) for name in self._dtypes}

    def _column(self, name: str) -> Array:
        parts = self._parts.pop(name)
        if name not in self._files:
            return np.concatenate([np.empty(0, self._dtypes[name]), *parts])
        with file_errors("temporary file", "reading"), self._files[name] as file:
            file.flush()
            return np.memmap(file, self._dtypes[name], "r+", shape=(self.rows,))

    def close(self) -> None:
        """Remove the files."""
        for file in self._files.values():
            file.close()

    def _to_disk(self) -> None:
        with file_errors("temporary file", "writing"):
            for name, parts in self._parts.items():
                if name not in self._files:
                    self._files[name] = TemporaryFile(prefix=".xent-")  # noqa: SIM115 (kept open)
                for part in parts:
                    part.tofile(self._files[name])
                parts.clear()
        self._in_memory = 0


def quantiles(values: Array) -> dict[str, float]:
    """The quantiles of `QUANTILES`, linear between order statistics; the array is reordered.

    >>> found = quantiles(np.array([3.0, 1.0, 2.0, 4.0]))
    >>> found["min"], found["25%"], found["median"], found["max"]
    (1.0, 1.75, 2.5, 4.0)
    """
    n = len(values)
    if not n:
        return {}
    places = [share * (n - 1) for share in QUANTILES.values()]
    wanted = sorted(
        {index for place in places for index in (int(place), min(int(place) + 1, n - 1))}
    )
    if values.dtype.kind == "f" and any(np.isnan(part).any() for part in _parts(values)):
        return dict.fromkeys(QUANTILES, float("nan"))
    at = _order_statistics(values, wanted)
    return {name: _between(at, place) for name, place in zip(QUANTILES, places, strict=True)}


def _order_statistics(values: Array, wanted: list[int]) -> dict[int, float]:
    """The numbers at some places of the sorted array, without NaN; the array is reordered.

    A partition of all numbers takes many times as long as counting small integers, or as looking
    among the float64 that share their leading 16 bits with one that is wanted.
    """
    if values.dtype.kind == "i" and values.min() >= 0 and values.max() < KEYS:
        ends = np.cumsum(_counts(values, np.asarray))
        return _numbered(wanted, np.searchsorted(ends, wanted, side="right"))
    if values.dtype == np.float64 and len(values) >= KEYS:
        counts = _counts(values, _keys)
        keys = np.searchsorted(np.cumsum(counts), wanted, side="right")
        chosen = np.zeros(KEYS, bool)
        chosen[keys] = True
        if counts[chosen].sum() < len(values) / 2:
            places = wanted - np.cumsum(np.where(chosen, 0, counts))[keys]
            found = np.concatenate([part[chosen[_keys(part)]] for part in _parts(values)])
            found.partition(places.tolist())
            return _numbered(wanted, found[places])
    values.partition(wanted)
    return _numbered(wanted, values[wanted])


def _numbered(places: list[int], values: Array) -> dict[int, float]:
    return dict(zip(places, map(float, values), strict=True))


def _counts(values: Array, keys: Callable[[Array], Array]) -> Array:
    """How often each key occurs."""
    return np.asarray(sum(np.bincount(keys(part), minlength=KEYS) for part in _parts(values)))


def _keys(values: Array) -> Array:
    """The leading 16 bits of float64, as numbers from 0 that are in the order of the values."""
    keys = values.view(np.int64) >> 48
    return np.where(keys < 0, ~keys, keys + KEYS // 2)


def _parts(values: Array) -> Iterator[Array]:
    return (values[first : first + KEYS] for first in range(0, len(values), KEYS))


def _between(at: dict[int, float], place: float) -> float:
    low = int(place)
    first = at[low]
    last = at.get(low + 1, first)
    if first == last or place == low:
        return first
    return first + (place - low) * (last - first)


def histogram(values: Array, edges: Sequence[Any]) -> list[int]:
    """How many numbers there are from each edge to the next, the last edge included."""
    below = [np.count_nonzero(values < edge) for edge in edges[:-1]]
    return [int(n) for n in np.diff([*below, np.count_nonzero(values <= edges[-1])])]
