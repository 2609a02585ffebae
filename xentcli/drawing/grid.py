"""The columns of a step as text, and which of them stand side by side in a given width.

No number is ever cut: columns that do not fit go below, under the same labels.
"""

from __future__ import annotations

import unicodedata
from textwrap import wrap
from typing import NamedTuple

from xentcli.document import Column, Step, shown

GAP = 2  # between columns
BAR = 8  # the shortest that says something
SENTENCE = 18  # the narrowest column that sentences are folded to


class Cells(NamedTuple):
    """One column as text."""

    title: str
    cells: tuple[str, ...]
    column: Column

    most: int = 1000  # columns; sentences are folded to this

    @property
    def width(self) -> int:
        """Of the widest."""
        return min(self.most, max(map(columns_of, (self.title, *self.cells))))

    @property
    def words(self) -> bool:
        """Whether these are words, which begin at the left."""
        values = [value for value in self.column.values if value]
        return bool(values) and all(
            isinstance(value, str) and value[:1].isalpha() for value in values
        )

    @property
    def sentences(self) -> bool:
        """Whether these are words that can be folded."""
        return self.words and any(" " in value for value in self.cells)

    def lines(self, line: int) -> list[str]:
        """A cell as one or more lines."""
        if not self.sentences:
            return [self.cells[line]]
        return wrap(self.cells[line], self.width) or [""]


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> columns_of("cat"), columns_of("猫")
    (3, 2)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def cells(column: Column, decimals: int) -> Cells:
    """A column as text."""
    signed = column.bar == "pull"
    texts = tuple(shown(value, decimals, signed=signed) for value in column.values)
    return Cells(column.title.text, texts, column)


def labels_width(step: Step, width: int) -> int:
    """How wide the labels may be; longer ones are folded."""
    return min(max(map(columns_of, (step.label, *step.labels))), max(8, width // 3))


def groups(step: Step, decimals: int, width: int) -> list[list[Cells]]:
    """The columns, those together that fit beside the labels."""
    found: list[list[Cells]] = []
    room = width - labels_width(step, width)
    left = 0
    columns = [cells(column, decimals) for column in step.columns]
    for place, column in enumerate(columns):
        if column.sentences:
            after = sum(other.sentences for other in columns[place:])
            column = column._replace(most=max(SENTENCE, (left or room) // after - GAP))
        if not found or column.width + GAP > left:
            found.append([])
            left = room
        found[-1].append(column)
        left -= column.width + GAP
    return found


def fold(text: str, width: int) -> list[str]:
    """A text in lines of at most so many columns, cut anywhere.

    >>> fold("abcde", 2)
    ['ab', 'cd', 'e']
    """
    lines = [""]
    for character in text:
        if columns_of(lines[-1] + character) > width:
            lines.append("")
        lines[-1] += character
    return lines


def padded(text: str, width: int, *, left: bool = False) -> str:
    """Filled up with blanks."""
    blanks = " " * (width - columns_of(text))
    return text + blanks if left else blanks + text


def share_of(value: float | None, reach: float) -> float:
    """How much of the bar a value fills: 0 to 1, and −1 to 1 where it has a sign."""
    if not isinstance(value, float) or value != value or not reach:
        return 0.0
    return max(-1.0, min(1.0, value / reach))
