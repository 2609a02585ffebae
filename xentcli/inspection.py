"""What a file of numbers holds, without computing anything from it."""

from __future__ import annotations

import math
import sys
import zipfile
from typing import Any

import numpy as np

from xentcli.dtypes import Array, name_of
from xentcli.formats import READABLE, How, npy, npz, sniff, suffix_format, text
from xentcli.formats.source import Source, open_source

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
        table = text.read(source, how.style.between(format), how.style.header)
        facts = {"name": source.name, "format": format, "shape": table.shape, "dtype": "float64"}
        return [{**facts, **(statistics(table) if stats else {})}]


def _of_npz(source: Source, how: How, stats: bool) -> list[Facts]:
    archive, names = npz.members(source)
    if how.key is not None:
        names = [npz.choose(names, how.key, source.name, how.key_option)]
    return [_of_member(archive, name, source.name, stats) for name in names]


def _of_member(archive: zipfile.ZipFile, name: str, where: str, stats: bool) -> Facts:
    facts = _of_npy(npz.open_member(archive, name, where), False)
    if not stats:
        return {**facts, "format": "npz"}
    return {**facts, "format": "npz", **statistics(npz.read_member(archive, name, where))}


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
    if stats or source.size is None:  # a pipe is read to its end, or its writer would be killed
        array = npy.read_data(source, header)
        facts |= statistics(array) if stats else {}
    return facts


def _byte_order(dtype: np.dtype[Any]) -> str:
    if dtype.itemsize == 1 or dtype.kind == "V":
        return "none"
    order = dtype.byteorder if dtype.byteorder in "<>" else {"little": "<"}.get(sys.byteorder, ">")
    return "little" if order == "<" else "big"


def statistics(array: Array) -> Facts:
    """Smallest, largest and mean of the finite numbers, and how many are not finite.

    >>> statistics(np.array([1.0, 3.0, np.nan]))
    {'min': 1.0, 'max': 3.0, 'mean': 2.0, 'nan': 1, 'inf': 0}
    """
    if array.dtype.kind == "V":
        return {}  # bytes without a name have no values
    finite = array[np.isfinite(array)]
    some = finite.size > 0
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(finite.mean(dtype=np.float64)) if some else math.nan
    return {
        "min": finite.min().item() if some else None,
        "max": finite.max().item() if some else None,
        "mean": mean if math.isfinite(mean) else None,
        "nan": int(np.count_nonzero(np.isnan(array))),
        "inf": int(np.count_nonzero(np.isinf(array))),
    }


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
