"""The content of a document: steps with columns of numbers, facts and remarks.

The other modules of `xentcli.display` decide how it looks; they compute nothing.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, Literal, NamedTuple

from xentcli.display.chart import Chart
from xentcli.records import dataclass


class Formula(NamedTuple):
    """An expression as plain text and as LaTeX math."""

    text: str
    latex: str

    @classmethod
    def in_words(cls, words: str) -> Formula:
        """Plain words in place of a formula."""
        return cls(words, rf"\text{{{words}}}")


Bar = Literal["", "fraction", "signed"]
NO_FORMULA = Formula("", "")
COMMANDS_TITLE = "The same result from the command line"
ARROWS = {"rises": "▲ rises", "falls": "▼ falls", "stays": "= stays"}


@dataclass(frozen=True)
class Column:
    """One value per label, a number or words; None leaves the cell empty.

    `bar` draws the numbers too: as a `fraction` of `scale`, or `signed`, to the left or right,
    with `scale` as the longest.
    """

    title: Formula
    values: tuple[Any, ...]
    bar: Bar = ""
    scale: float = 1.0


class Fact(NamedTuple):
    """A single number, with an explanation."""

    formula: Formula
    value: Any
    note: str = ""


@dataclass(frozen=True)
class Step:
    """One step of the document.

    `labels` name the rows of the columns, under `heading`; the rows in `marked` are highlighted.
    `charts` are drawn where there are pictures, in HTML and SVG; in text the columns stand for
    them.
    """

    title: str
    formula: Formula = NO_FORMULA
    heading: str = "class"
    labels: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    facts: tuple[Fact, ...] = ()
    remarks: tuple[str, ...] = ()
    marked: frozenset[int] = frozenset()
    charts: tuple[Chart, ...] = ()

    def marked_labels(self, mark: str) -> tuple[str, ...]:
        """The labels, with `mark` after the highlighted ones."""
        return tuple(label + mark * (row in self.marked) for row, label in enumerate(self.labels))


@dataclass(frozen=True)
class Document:
    """A result and steps under a title and an introduction; `commands` give the same result.

    `data` are all numbers at full precision, for JSON; `table` is a header and rows, for CSV.
    """

    title: str
    intro: tuple[str, ...]
    steps: tuple[Step, ...]
    decimals: int = 4
    commands: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    table: tuple[tuple[Any, ...], ...] = ()
    result: Step | None = None

    def numbered(self) -> list[tuple[str, Step]]:
        """The result, which has no number, and the steps with theirs."""
        first = [("", self.result)] if self.result else []
        return [*first, *((str(n), step) for n, step in enumerate(self.steps, 1))]


LARGE = 1e7  # numbers from here on are written with an exponent
SMALL_DECIMALS = 4  # with at least so many decimals, so are numbers that keep only one digit


def format_number(value: Any, decimals: int, *, signed: bool = False) -> str:
    """A number with so many decimals, or with an exponent if it is very large or small.

    >>> [format_number(value, 4) for value in (0.24472847, 3, 1.5e-9, None)]
    ['0.2447', '3', '1.500e-09', '']
    >>> format_number(0.5, 2, signed=True), format_number(-0.0, 2), format_number("rises", 2)
    ('+0.50', '0.00', 'rises')
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    sign = "+" if signed and value > 0 else ""
    value = float(value) + 0.0
    if not math.isfinite(value):
        return f"{sign}{value}"
    text = f"{value:.{decimals}f}"
    small = 10.0 ** (1 - decimals) if decimals >= SMALL_DECIMALS else 0.0
    if value and (float(text) == 0 or abs(value) < small or abs(value) >= LARGE):
        text = f"{value:.{max(1, decimals - 1)}e}"
    return sign + text
