"""Cells that are parsed one by one: words such as nan, long numbers, names of classes."""

from __future__ import annotations

import math
import re

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files.class_names import ClassNames
from xentcli.files.text.dialect import unquoted
from xentcli.files.text.parsing import LONGEST, Cells

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_SHORT = 7  # characters of a cell that fit into a word beside their number


def parse_rest(marked: bytes, cells: Cells) -> int | None:
    """Parse the cells that are left; the first one that is not a number, or None."""
    rest = np.flatnonzero(~cells.parsed)
    if not rest.size:
        return None
    lengths = cells.ends[rest] - cells.starts[rest]
    short = (lengths > 0) & (lengths <= _SHORT)
    bad = [_parse_short(marked, cells, rest[short], lengths[short])] if short.any() else []
    for index in rest[~short].tolist():
        number = _number(marked[cells.starts[index] : cells.ends[index]])
        if number is None:
            bad.append(index)
            break
        cells.values[index] = number
    return min((index for index in bad if index is not None), default=None)


def parse_names(text: bytes, marked: bytes, cells: Cells, classes: ClassNames) -> int | None:
    """The same with names of classes, which stand for their indices; numbers come first."""
    known: dict[bytes, float | None] = {}
    for place in np.flatnonzero(~cells.parsed).tolist():
        part = slice(cells.starts[place], cells.ends[place])
        cell = text[part]
        if cell not in known:
            number = _number(marked[part])
            known[cell] = classes.index(unquoted(cell)) if number is None else number
        value = known[cell]
        if value is None:
            return int(place)
        cells.values[place] = value
    return None


def _parse_short(piece: bytes, cells: Cells, some: Array, lengths: Array) -> int | None:
    """Parse short cells, each different text once, as there may be a nan in every second cell."""
    buffer = np.frombuffer(b"\0" * 8 + piece, np.uint8)
    words = np.ndarray((len(piece) + 1,), "V8", buffer, 0, (1,))[cells.ends[some]].view("<u8")
    words = (words >> (8 * (8 - lengths)).astype(np.uint64)) | (lengths.astype(np.uint64) << 56)
    different, which = np.unique(words, return_inverse=True)
    texts = (int(word).to_bytes(8, "little") for word in different)
    numbers = [_number(text[: text[7]]) for text in texts]
    wrong = np.array([number is None for number in numbers])[which]
    cells.values[some] = np.array([math.nan if n is None else n for n in numbers])[which]
    return int(some[wrong][0]) if wrong.any() else None


def _number(raw: bytes) -> float | None:
    """The number in a cell, None where it is not one or out of range."""
    cell = raw.decode("latin-1").strip(" ")
    if len(raw) > LONGEST or not cell.isascii():
        return None
    if _SPECIAL.fullmatch(cell):
        return float(cell)
    value = float(cell) if NUMBER.fullmatch(cell) else math.inf
    return None if math.isinf(value) else value
