"""The columns of a table of text: their names, and which of them are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import Words, visible
from xentcli.files.columns import chosen
from xentcli.files.options import ReadOptions
from xentcli.files.text.look import counts, is_number
from xentcli.files.text.style import TextStyle
from xentcli.records import dataclass

TARGETS = ("label", "labels", "target", "targets")  # names of columns that are no logits
ROWS = ("id", "idx", "index", "row", "row_id", "row_nr", "rowid", "rownames", "unnamed: 0")


@dataclass(frozen=True)
class TextColumns:
    """The columns that are read, in the order in which they are returned.

    `width` is the number of all columns, `header` are their names, `names` those of the columns
    that are read.
    """

    width: int
    indices: tuple[int, ...]
    header: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    remarks: tuple[Words, ...] = ()

    @property
    def are_all(self) -> bool:
        """Whether every column is read, in its order."""
        return self.indices == tuple(range(self.width))

    @property
    def wanted(self) -> Array:
        """Which of all columns are read."""
        wanted = np.zeros(self.width, np.bool_)
        wanted[list(self.indices)] = True
        return wanted

    @property
    def order(self) -> Array | None:
        """How to sort columns that were read from left to right; None if they are sorted."""
        order = np.argsort(np.argsort(self.indices))
        return None if (order[1:] > order[:-1]).all() else order


def find_columns(
    names: tuple[str, ...], cells: Sequence[str], width: int, options: ReadOptions, where: str
) -> TextColumns:
    """The columns to read of `width`, below `names`; `cells` are the first ones of column 1.

    A first column without a name that numbers or names the rows is left out.
    """
    unnamed = is_header_of_r(names, cells, width)
    names = ("", *names) if unnamed else names
    names = names if len(names) == width else ()
    indices = chosen(options.columns, names, width, where)
    read = tuple(names[index] for index in indices) if names else ()
    found = TextColumns(width, indices, names, read)
    if not names or options.columns.keep or len(indices) == 1:
        return found
    if indices[0] == 0 and not names[0] and (unnamed or _are_of_rows(cells)):
        kind = "numbers" if all(map(is_number, cells)) else "names"
        what = f"column 1 has no name and {kind} the rows, so it is left out"
        says = options.style.noted(what, "drop", "1-1" if "1" in names else "1", " says so")
        return replace(found, indices=indices[1:], names=found.names[1:], remarks=(says,))
    return replace(found, remarks=tuple(_remarks(found, cells, options.style)))


def is_header_of_r(names: Sequence[str], cells: Sequence[str], width: int) -> bool:
    """Whether a header is that of R, which has no name above the names of the rows."""
    if len(names) != width - 1 or not names or any(";" in name or "\t" in name for name in names):
        return False  # or another delimiter parts the names
    if not all(map(str.isdecimal, cells)):
        return not all(map(is_number, cells))
    if len(names) == 1:  # which may be a title
        return counts(cells)
    numbers = [int(cell) for cell in cells]
    return numbers == sorted(set(numbers))


def _are_of_rows(cells: Sequence[str]) -> bool:
    """Whether cells are whole numbers, or any is no number at all."""
    return all(map(str.isdecimal, cells)) or not all(map(is_number, cells))


def _remarks(columns: TextColumns, cells: Sequence[str], style: TextStyle) -> Iterator[Words]:
    """What the names say of columns that are probably no logits."""
    for place, (index, name) in enumerate(zip(columns.indices, columns.names, strict=True)):
        word = name.casefold()
        of_rows = not name or (word in ROWS and all(map(str.isdecimal, cells)))
        if (index == 0 and of_rows) or (word in TARGETS and not style.of_targets):
            yield as_class(columns, place, "", style)


def as_class(columns: TextColumns, place: int, why: str, style: TextStyle) -> Words:
    """What to do about a column that was read as a class, and may be none."""
    number = str(columns.indices[place] + 1)
    name = columns.names[place] if columns.names else ""
    shown = f"column {number}, '{visible(name)}'," if name else f"column {number}"
    what = f"{shown} {why}was read as class {place}"
    return style.noted(what, "drop", name or number, " leaves it out")
