"""What a file of numbers holds, without computing anything from it."""

from __future__ import annotations

import sys
from typing import Any

from xentcli.arrays.dtypes import name_of
from xentcli.errors import XentError, visible
from xentcli.files import registry
from xentcli.files.format import Facts, Format, Inspected
from xentcli.files.opening import open_input, open_reader
from xentcli.files.options import ReadOptions
from xentcli.files.source import Source
from xentcli.files.statistics import statistics

LISTED = 10  # names of columns


def inspect_path(path: str, options: ReadOptions, stats: bool) -> Inspected:
    """Facts, or an error, about each array of a file, one after the other.

    Its numbers are read for `stats` only, where it can.
    """
    if options.raw:
        yield _of_raw(path, options, stats)
        return
    with open_input(path) as (source, bare):
        format = registry.input_format(source, bare, options.format)
        inspect = format.inspect or (lambda *given: [_of_reader(format, *given)])
        packed = {"compression": source.compression} if source.compression else {}
        for found in inspect(source, options, stats):
            if isinstance(found, XentError):
                yield found
            else:
                yield {**found, "format": format.name, **packed}


def _of_raw(path: str, options: ReadOptions, stats: bool) -> Facts:
    """The layout that is given, checked against the size of the file."""
    with open_reader(path, options) as reader:
        facts: Facts = {"name": reader.name, "format": "raw", "shape": reader.shape}
        facts["dtype"] = name_of(reader.dtype)
        if stats:
            facts |= statistics(reader.chunks())
        return facts


def _of_reader(format: Format, source: Source, options: ReadOptions, stats: bool) -> Facts:
    """What a reader knows of its array, for formats without an inspection of their own."""
    assert format.open_reader
    reader = format.open_reader(source, options)
    facts: Facts = {"name": source.name, "format": format.name, "shape": reader.shape}
    facts["dtype"] = name_of(reader.dtype)
    if names := getattr(reader, "column_names", ()):  # of a table
        facts["columns"] = list(names)
    if stats:
        facts |= statistics(reader.chunks())
    elif source.file is None:  # a pipe is read to its end, or its writer would be killed
        source.skip(sys.maxsize)
    return facts


def line(facts: Facts) -> str:
    """The facts as one line for a pipe.

    >>> line({"name": "a.csv", "format": "csv", "shape": (2, 3), "dtype": "float64"})
    'a.csv: (2, 3) float64, csv'
    """
    words = [f"{facts['name']}: {facts['shape']} {facts['dtype']}"]
    words.append(" ".join(filter(None, [facts["format"], facts.get("version")])))
    words += [f"{kind} {facts[kind]}" for kind in ("chunks", "shards") if kind in facts]
    words += [facts["compression"]] if "compression" in facts else []
    if "order" in facts:
        words += [
            f"{facts['order']} order",
            f"{facts['byte_order']} endian".replace("none endian", "no byte order"),
        ]
        words.append(f"{facts['nbytes']} bytes")
    words += [f"columns {listed(facts['columns'])}"] if "columns" in facts else []
    words += [
        f"{visible(name)}={visible(text)}" for name, text in facts.get("metadata", {}).items()
    ]
    if "min" in facts:
        numbers = ("min", "max", "mean", "nan", "inf")
        words += [f"{name} {_short(facts[name])}" for name in numbers]
    return ", ".join(words)


def listed(names: list[str]) -> str:
    """Names in one line, the first ones of many."""
    more = ["…"] if len(names) > LISTED else []
    return ", ".join([*map(visible, names[:LISTED]), *more])


def _short(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
