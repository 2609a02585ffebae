"""The columns of a step as text, and which of them stand side by side in a given width.

No number is ever cut: columns that do not fit go below, under the same labels.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from xentcli.display.document import Column, Step, shown

GAP = 2  # between columns
SHORTEST = 4  # of labels
BAR = 12  # the shortest that says something
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
    def narrowest(self) -> int:
        """The width that it cannot do without."""
        return min(self.width, SENTENCE) if self.sentences else self.width

    @property
    def words(self) -> bool:
        """Whether these are words, which begin at the left."""
        values = [value for value in self.column.values if value]
        return bool(values) and all(
            isinstance(value, str) and (value[:1].isalpha() or value[0] in "▲▼=")
            for value in values
        )

    @property
    def sentences(self) -> bool:
        """Whether these are words that can be folded."""
        return self.words and max(map(columns_of, self.cells)) > SENTENCE

    def lines(self, line: int) -> list[str]:
        """A cell as one or more lines."""
        if not self.sentences:
            return [self.cells[line]]
        return fold(self.cells[line], self.width)


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


def labels_width(step: Step, decimals: int, width: int) -> int:
    """How wide the labels are: two fifths of the width, or what the columns leave them."""
    columns = [cells(column, decimals) for column in step.columns]
    longest = max(map(columns_of, (step.label, *step.labels)))
    taken = sum(column.narrowest + GAP for column in columns)
    widest = max((column.narrowest + GAP for column in columns), default=0)
    wanted = min(longest, max(2 * width // 5, width - taken))
    return max(SHORTEST, min(wanted, width - widest))


class Group(NamedTuple):
    """Columns that fit beside the labels, and how long the bars after them may be."""

    columns: list[Cells]
    bar: Column | None = None
    length: int = 0

    def wider(self, room: int) -> int:
        """What is left of the room beside the labels."""
        return room - sum(column.width + GAP for column in self.columns) - GAP


def groups(step: Step, decimals: int, width: int, longest: int) -> list[Group]:
    """The columns, those together that fit, and bars of at most `longest`."""
    room = width - labels_width(step, decimals, width)
    found: list[Group] = []
    for column in _columns(step, decimals, room):
        if not found or column.width > found[-1].wider(room):
            found.append(Group([]))
        found[-1].columns.append(column)
    drawn = [column for column in step.columns if column.bar]
    if drawn and found:
        if found[-1].wider(room) < BAR:
            found.append(Group([]))
        length = min(longest, found[-1].wider(room))
        found[-1] = found[-1]._replace(bar=drawn[-1], length=length)
    return found


def _columns(step: Step, decimals: int, room: int) -> list[Cells]:
    """The columns as text; sentences share the room that the others leave."""
    columns = [cells(column, decimals) for column in step.columns]
    sentences = sum(column.sentences for column in columns)
    taken = sum(column.width + GAP for column in columns if not column.sentences)
    most = max(SENTENCE, (room - taken) // sentences - GAP) if sentences else 0
    return [column._replace(most=most) if column.sentences else column for column in columns]


def fold(text: str, width: int) -> list[str]:
    """A text in lines of at most so many columns, cut between words or anywhere.

    >>> fold("abcde", 2), fold("one word", 5)
    (['ab', 'cd', 'e'], ['one', 'word'])
    """
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and columns_of(f"{lines[-1]} {word}") > width:
            lines.append("")
        elif lines[-1]:
            lines[-1] += " "
        for character in word:
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
