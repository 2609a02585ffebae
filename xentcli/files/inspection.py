"""What a file of numbers holds, without computing anything from it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array, name_of
from xentcli.arrays.sums import RunningSum
from xentcli.files import READABLE, How, npz, of_text, sniff, suffix_format
from xentcli.files.npy import header as npy
from xentcli.files.reader import NpyReader
from xentcli.files.source import Member, Source, open_source

Facts = dict[str, Any]


def inspect_path(path: str, how: How, stats: bool) -> list[Facts]:
    """One dictionary for each array; a plain .npy is not read beyond its header."""
    with open_source(path) as source:
        format = how.format or suffix_format(path)
        if format not in READABLE:
            format = sniff(source)
        if format == "npy":
            return [_of_npy(source, stats)]
        if format == "npz":
            return _of_npz(source, how, stats)
        table = of_text(source, format, how)
        facts = {"name": source.name, "format": format, "shape": table.shape, "dtype": "float64"}
        return [{**facts, **(_statistics(table.chunks()) if stats else {})}]


def _of_npz(source: Source, how: How, stats: bool) -> list[Facts]:
    archive, names = npz.members(source)
    if how.key is not None:
        names = [npz.choose(names, how.key, source.name, how.key_option)]
    members = (npz.open_member(archive, name, source.name) for name in names)
    return [{**_of_npy(member, stats), "format": "npz"} for member in members]


def _of_npy(source: Source, stats: bool) -> Facts:
    header = npy.read_header(source)
    npy.check_size(source, header)
    facts: Facts = {
        "name": source.name,
        "format": "npy",
        "version": f"{header.version[0]}.{header.version[1]}",
        "shape": header.shape,
        "dtype": name_of(header.dtype),
        "order": "Fortran" if header.fortran_order else "C",
        "byte_order": _byte_order(header.dtype),
        "nbytes": header.nbytes,
    }
    piped = source.file is None and not isinstance(source, Member)
    if stats or piped:  # a pipe is read to its end, or its writer would be killed
        reader = NpyReader(source, replace(header, fortran_order=False))  # any order will do
        found = _statistics(reader.chunks())
        facts |= found if stats and header.dtype.kind != "V" else {}
    return facts


def _byte_order(dtype: np.dtype[Any]) -> str:
    if dtype.itemsize == 1 or dtype.kind == "V":
        return "none"
    order = dtype.byteorder if dtype.byteorder in "<>" else {"little": "<"}.get(sys.byteorder, ">")
    return "little" if order == "<" else "big"


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


def _statistics(chunks: Iterator[Array]) -> Facts:
    found = Statistics()
    for chunk in chunks:
        if chunk.dtype.kind != "V":  # bytes without a name have no values
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
