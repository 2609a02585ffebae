"""The columns of a step as text, in groups that fit a given width.

No number is ever truncated: columns that do not fit go into a second table with the same labels.
"""

from __future__ import annotations

import math
import unicodedata
from typing import NamedTuple

from xentcli.display.document import ARROWS, Column, Step, format_number

GAP = 2  # spaces between columns
MIN_LABEL = 4
MIN_BAR = 12
MIN_SENTENCE = 18  # the narrowest column that text is wrapped to


class TextColumn(NamedTuple):
    """A column as text; wrapped text is at most `limit` wide."""

    title: str
    cells: tuple[str, ...]
    column: Column
    limit: int = 1000

    @property
    def width(self) -> int:
        """The width of the widest cell."""
        return min(self.limit, max(map(display_width, (self.title, *self.cells))))

    @property
    def min_width(self) -> int:
        """The width with text wrapped as narrowly as it may be."""
        return min(self.width, MIN_SENTENCE) if self.wraps else self.width

    @property
    def is_words(self) -> bool:
        """Whether the cells are words, which are aligned left, and not numbers."""
        values = [value for value in self.column.values if value]
        return bool(values) and all(
            isinstance(value, str) and (value[0].isalpha() or value in ARROWS.values())
            for value in values
        )

    @property
    def wraps(self) -> bool:
        """Whether the cells are text long enough to be wrapped."""
        return self.is_words and max(map(display_width, self.cells)) > MIN_SENTENCE

    def lines(self, row: int) -> list[str]:
        """A cell as one or more lines."""
        return fold(self.cells[row], self.width) if self.wraps else [self.cells[row]]


def display_width(text: str) -> int:
    """The number of terminal columns a text takes.

    >>> display_width("cat"), display_width("猫")
    (3, 2)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def text_column(column: Column, decimals: int) -> TextColumn:
    """A column with its numbers formatted."""
    signed = column.bar == "signed"
    cells = tuple(format_number(value, decimals, signed=signed) for value in column.values)
    return TextColumn(column.title.text, cells, column)


def label_width(step: Step, decimals: int, width: int) -> int:
    """The width of the labels: two fifths of the width, or more if the columns leave it."""
    columns = [text_column(column, decimals) for column in step.columns]
    longest = max(map(display_width, (step.heading, *step.labels)))
    taken = sum(column.min_width + GAP for column in columns)
    widest = max((column.min_width + GAP for column in columns), default=0)
    wanted = min(longest, max(2 * width // 5, width - taken))
    return max(MIN_LABEL, min(wanted, width - widest))


class ColumnGroup(NamedTuple):
    """Columns that fit next to the labels, and the bars after them, at most `length` long."""

    columns: list[TextColumn]
    bar: Column | None = None
    length: int = 0

    def width_left(self, room: int) -> int:
        """The width left for another column, of the `room` next to the labels."""
        return room - sum(column.width + GAP for column in self.columns) - GAP


def column_groups(step: Step, decimals: int, width: int, longest_bar: int) -> list[ColumnGroup]:
    """The columns in groups that fit, with bars of at most `longest_bar` after the last."""
    room = width - label_width(step, decimals, width)
    groups: list[ColumnGroup] = []
    for column in _text_columns(step, decimals, room):
        if not groups or column.width > groups[-1].width_left(room):
            groups.append(ColumnGroup([]))
        groups[-1].columns.append(column)
    drawn = [column for column in step.columns if column.bar]
    if drawn and groups:
        if groups[-1].width_left(room) < MIN_BAR:
            groups.append(ColumnGroup([]))
        length = min(longest_bar, groups[-1].width_left(room))
        groups[-1] = groups[-1]._replace(bar=drawn[-1], length=length)
    return groups


def _text_columns(step: Step, decimals: int, room: int) -> list[TextColumn]:
    """The columns as text; those that wrap share the room that the others leave."""
    columns = [text_column(column, decimals) for column in step.columns]
    wrapped = sum(column.wraps for column in columns)
    taken = sum(column.width + GAP for column in columns if not column.wraps)
    limit = max(MIN_SENTENCE, (room - taken) // wrapped - GAP) if wrapped else 0
    return [column._replace(limit=limit) if column.wraps else column for column in columns]


def fold(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` columns, cut between words, or anywhere if it must be.

    >>> fold("abcde", 2), fold("one word", 5)
    (['ab', 'cd', 'e'], ['one', 'word'])
    """
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and display_width(f"{lines[-1]} {word}") > width:
            lines.append("")
        elif lines[-1]:
            lines[-1] += " "
        for character in word:
            if display_width(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def pad(text: str, width: int, *, left: bool = False) -> str:
    """A text padded with spaces, aligned right, or `left`."""
    blanks = " " * (width - display_width(text))
    return text + blanks if left else blanks + text


def bar_fraction(column: Column, row: int) -> float:
    """How much of its bar a value fills: 0 to 1, or −1 to 1 if it is signed."""
    value = column.values[row]
    if not isinstance(value, float) or math.isnan(value) or not column.scale:
        return 0.0
    return max(-1.0, min(1.0, value / column.scale))
