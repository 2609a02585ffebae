"""What a file of numbers holds, without computing anything from it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array, name_of
from xentcli.arrays.sums import RunningSum
from xentcli.files import registry
from xentcli.files.format import Facts, Format
from xentcli.files.options import ReadOptions
from xentcli.files.source import Source, open_source


def inspect_path(path: str, options: ReadOptions, stats: bool) -> list[Facts]:
    """Facts about each array of a file; its numbers are read for `stats` only, where it can."""
    with open_source(path) as source:
        format = registry.input_format(source, path, options.format)
        inspect = format.inspect or (lambda *given: [_of_reader(format, *given)])
        return [{**facts, "format": format.name} for facts in inspect(source, options, stats)]


def _of_reader(format: Format, source: Source, options: ReadOptions, stats: bool) -> Facts:
    """What a reader knows of its array, for formats without an inspection of their own."""
    assert format.open_reader
    reader = format.open_reader(source, options)
    facts: Facts = {"name": source.name, "format": format.name, "shape": reader.shape}
    facts["dtype"] = name_of(reader.dtype)
    if stats:
        facts |= statistics(reader.chunks())
    elif source.file is None:  # a pipe is read to its end, or its writer would be killed
        source.skip(sys.maxsize)
    return facts


class Statistics:
    """Smallest, largest and mean of the finite numbers, and how many are not finite.

    >>> numbers = Statistics()
    >>> numbers.add(np.array([1.0, 3.0])), numbers.add(np.array([np.nan]))
    (None, None)
    >>> numbers.facts()
    {'min': 1.0, 'max': 3.0, 'mean': 2.0, 'nan': 1, 'inf': 0}
    """

    def __init__(self) -> None:
        self._count, self._nan, self._inf = 0, 0, 0
        self._smallest: list[Any] = []
        self._largest: list[Any] = []
        self._sum = RunningSum()

    def add(self, values: Array) -> None:
        """The next numbers."""
        finite = values[np.isfinite(values)]
        self._count += finite.size
        self._nan += int(np.count_nonzero(np.isnan(values)))
        self._inf += int(np.count_nonzero(np.isinf(values)))
        if finite.size:
            self._smallest = [min([*self._smallest, finite.min().item()])]
            self._largest = [max([*self._largest, finite.max().item()])]
            self._sum.add(finite.astype(np.float64))

    def facts(self) -> Facts:
        """What was found; None where there is no number."""
        mean = self._sum.value() / self._count if self._count else math.nan
        return {
            "min": self._smallest[0] if self._count else None,
            "max": self._largest[0] if self._count else None,
            "mean": mean if math.isfinite(mean) else None,
            "nan": self._nan,
            "inf": self._inf,
        }


def statistics(chunks: Iterator[Array]) -> Facts:
    """Statistics of the numbers of an array; of none where its dtype is V2, which has no values."""
    found = Statistics()
    for chunk in chunks:
        if chunk.dtype.kind != "V":
            found.add(chunk)
    return found.facts()


def line(facts: Facts) -> str:
    """The facts as one line for a pipe.

    >>> line({"name": "a.csv", "format": "csv", "shape": (2, 3), "dtype": "float64"})
    'a.csv: (2, 3) float64, csv'
    """
    words = [f"{facts['name']}: {facts['shape']} {facts['dtype']}"]
    words.append(" ".join(filter(None, [facts["format"], facts.get("version")])))
    if "order" in facts:
        words += [
            f"{facts['order']} order",
            f"{facts['byte_order']} endian".replace("none endian", "no byte order"),
        ]
        words.append(f"{facts['nbytes']} bytes")
    if "min" in facts:
        numbers = ("min", "max", "mean", "nan", "inf")
        words += [f"{name} {_short(facts[name])}" for name in numbers]
    return ", ".join(words)


def _short(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
