"""Which columns of an Arrow table are the array that is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.errors import DtypeError, FormatError, OptionError, Setting, Words, visible
from xentcli.files.arrow.columns import Column, Selection
from xentcli.files.class_names import ClassNames
from xentcli.files.columns import chosen
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions
from xentcli.files.text.style import TextStyle
from xentcli.records import dataclass

SUPPORTED = "supported: floats, integers, and lists of them"


@dataclass(frozen=True)
class Chosen:
    """The columns of an array, and what may have been meant otherwise."""

    columns: tuple[Column, ...]
    per_class: bool  # whether each column is a class
    remarks: tuple[Words, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, where each has a column."""
        return tuple(column.name for column in self.columns) if self.per_class else ()

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
    """The columns that the options choose; else the only one, or all where each is a number."""
    if options.key is not None:
        return _of_key(columns, options, where)
    kept = chosen(options.columns, [column.name for column in columns], len(columns), where)
    found = [columns[number] for number in kept]
    left_out = [] if options.columns.keep else [c.name for c in found if c.name in index]
    found = [column for column in found if column.name not in left_out]
    if len(found) == 1 and (found[0].shape or found[0].is_text):
        return Chosen((_numbers_of(found[0], options, where),), per_class=False)
    if any(column.shape for column in found):
        choose_key([column.name for column in found], options, where)  # an error that lists them
    return _per_class(found, left_out, where, options.style)


def _of_key(columns: list[Column], options: ReadOptions, where: str) -> Chosen:
    """The column of a name."""
    if options.columns.keep:
        what = "a key names one array of the file, of which no columns can be chosen"
        raise OptionError(where, what)
    names = [column.name for column in columns]
    name = choose_key(names, options, where)
    if names.count(name) > 1:
        raise FormatError(where, f"has two columns called '{visible(name)}'")
    return Chosen((_numbers_of(columns[names.index(name)], options, where),), per_class=False)


def _numbers_of(column: Column, options: ReadOptions, where: str) -> Column:
    """A column of numbers, or of words that name classes."""
    if column.is_text and options.class_names:
        return replace(column, dtype=np.dtype(np.int64), words=ClassNames(options.class_names))
    _require_numbers(column, where)
    return column


def _require_numbers(column: Column, where: str, one_of: TextStyle | None = None) -> None:
    """An error for a column of no numbers; `one_of` has the options for those of several."""
    if column.dtype is None:
        what = f"type {visible(column.type)} is not supported"
        hint: Words = SUPPORTED
        if one_of and one_of.has_columns:
            hint = one_of.option("drop", column.name), " leaves it out"
        elif column.is_text:
            hint = "targets that are words need the names of the classes"
        raise DtypeError(f"{where}[{visible(column.name)}]", what, hint)


def _per_class(columns: list[Column], left_out: list[str], where: str, style: TextStyle) -> Chosen:
    """A table of one column per class."""
    for column in columns:
        _require_numbers(column, where, style)
    floats = [column for column in columns if column.dtype and column.dtype.kind == "f"]
    others = [column for column in columns if column.dtype and column.dtype.kind != "f"]
    if floats and others:
        one, other = visible(others[0].name), visible(floats[0].name)
        what = f"column '{one}' is {others[0].type}, column '{other}' is {floats[0].type}"
        hint: Words | None = None
        if style.has_columns:
            hint = style.option("drop", others[0].name), " leaves it out"
            if not style.of_targets:
                targets = Setting("target_column", others[0].name)
                hint = (*hint, ", ", targets, " takes it as targets")
        raise DtypeError(where, what, hint)
    remarks: tuple[Words, ...] = ()
    if left_out:
        words = ", ".join(map(visible, left_out))
        remarks = (f"column {words} is the index of a pandas frame, and was left out",)
    return Chosen(tuple(columns), per_class=True, remarks=remarks)
