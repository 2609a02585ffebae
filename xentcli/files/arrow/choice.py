"""Which columns of an Arrow table are the array that is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from xentcli.errors import DtypeError, FormatError, Words, visible
from xentcli.files.arrow.columns import Column, Selection
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions

SUPPORTED = "supported: floats, integers, and lists of them"


@dataclass(frozen=True)
class Chosen:
    """The columns of an array, and what may have been meant otherwise."""

    columns: tuple[Column, ...]
    per_class: bool  # whether each column is a class
    remarks: tuple[Words, ...] = ()

    def selection(self) -> Selection:
        """The array; the lengths of lists are known by now."""
        dtype = np.result_type(*(column.dtype for column in self.columns if column.dtype))
        if self.per_class:
            return Selection(self.columns, (len(self.columns),), dtype)
        return Selection(self.columns, tuple(n or 0 for n in self.columns[0].shape), dtype)


def index_names(schema: Any) -> set[str]:
    """The columns that hold the index of a pandas frame, as its metadata say."""
    try:
        found = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        return {name for name in found if isinstance(name, str)}
    except (KeyError, ValueError, TypeError, RecursionError):
        return set()


def choose(columns: list[Column], index: set[str], options: ReadOptions, where: str) -> Chosen:
    """The column that the options name; else the only one, or all where each is a number."""
    names = [column.name for column in columns]
    usual = [column for column in columns if column.name not in index]
    if options.key is None and usual and not any(column.shape for column in usual):
        return _per_class(usual, [name for name in names if name in index], where)
    known = names if options.key is not None else [column.name for column in usual]
    name = choose_key(known, options, where)
    if names.count(name) > 1:
        raise FormatError(where, f"has two columns called '{visible(name)}'")
    column = columns[names.index(name)]
    _require_numbers(column, where)
    return Chosen((column,), per_class=False)


def _require_numbers(column: Column, where: str) -> None:
    if column.dtype is None:
        what = f"type {visible(column.type)} is not supported"
        raise DtypeError(f"{where}[{visible(column.name)}]", what, SUPPORTED)


def _per_class(columns: list[Column], left_out: list[str], where: str) -> Chosen:
    """A table of one column per class."""
    for column in columns:
        _require_numbers(column, where)
    floats = [column for column in columns if column.dtype and column.dtype.kind == "f"]
    others = [column for column in columns if column not in floats]
    if floats and others:
        one, other = visible(others[0].name), visible(floats[0].name)
        what = f"column '{one}' is {others[0].type}, column '{other}' is {floats[0].type}"
        hint = "the columns of all classes are floats, or all are integers"
        raise DtypeError(where, what, hint)
    remarks: tuple[Words, ...] = ()
    if left_out:
        words = ", ".join(map(visible, left_out))
        remarks = (f"column {words} is the index of a pandas frame, and was left out",)
    return Chosen(tuple(columns), per_class=True, remarks=remarks)
