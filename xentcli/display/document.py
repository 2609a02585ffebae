"""What is shown, as data: steps with columns of numbers, facts and remarks.

Whoever draws it (see `xentcli.display`) decides how it looks, and computes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Formula(NamedTuple):
    """The same expression for a line of text and for LaTeX's mathematics."""

    text: str
    latex: str


NONE = Formula("", "")


@dataclass(frozen=True)
class Column:
    """One value for each label: numbers, or words.

    `bar` says that it is also drawn: a `share` is between 0 and 1, a `pull` has a sign and is
    drawn in proportion to `reach`. A value of None is left empty.
    """

    title: Formula
    values: tuple[Any, ...]
    bar: str = ""
    reach: float = 1.0


class Fact(NamedTuple):
    """One number with what it is; `words` follow it."""

    formula: Formula
    value: Any
    words: str = ""


@dataclass(frozen=True)
class Step:
    """A part of the way, with a title and a formula.

    `labels` are the lines of the columns, `label` what they are, and `marked` those that stand
    out: the target.
    """

    title: str
    formula: Formula = NONE
    label: str = "class"
    labels: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    facts: tuple[Fact, ...] = ()
    remarks: tuple[str, ...] = ()
    marked: frozenset[int] = frozenset()

    def marked_labels(self, mark: str) -> tuple[str, ...]:
        """The labels, those that stand out with a mark after them."""
        return tuple(label + mark * (line in self.marked) for line, label in enumerate(self.labels))


@dataclass(frozen=True)
class Document:
    """Steps under a title; `commands` are lines for a shell that give the same result.

    `data` are all numbers at full precision, for machines; so is `table`, where it is lines of
    numbers under a line of names.
    """

    title: str
    lead: tuple[str, ...]
    steps: tuple[Step, ...]
    decimals: int = 4
    commands: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    table: tuple[tuple[Any, ...], ...] = ()


BEYOND = 1e7  # from here on fixed decimals are not read any more
FINE = 4  # decimals from which on small numbers get an exponent


def shown(value: Any, decimals: int, *, signed: bool = False) -> str:
    """A number with so many decimals; with an exponent where they would hide it.

    >>> shown(0.24472847, 4), shown(3, 4), shown(-0.0, 2), shown(1.5e-9, 4), shown(None, 4)
    ('0.2447', '3', '0.00', '1.500e-09', '')
    >>> shown(0.5, 2, signed=True), shown(math.inf, 2), shown("rises", 2)
    ('+0.50', 'inf', 'rises')
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
    few = 10.0 ** (1 - decimals) if decimals >= FINE else 0.0  # below, one digit would be left
    if value and (float(text) == 0 or abs(value) < few or abs(value) >= BEYOND):
        text = f"{value:.{max(1, decimals - 1)}e}"
    return sign + text
