"""A document as plain text, without colour or boxes, with ASCII bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from textwrap import wrap

from xentcli.display.document import COMMANDS_TITLE, Document, Fact, Step, format_number
from xentcli.display.grid import (
    GAP,
    ColumnGroup,
    TextColumn,
    bar_fraction,
    column_groups,
    display_width,
    fold,
    label_width,
    pad,
)

INDENT = 3
LONGEST_BAR = 30
MARK = " *"


def as_text(document: Document, width: int) -> str:
    """Lines of at most `width` columns."""
    lines = [
        *wrap(document.title, width),
        *(line for p in document.intro for line in wrap(p, width)),
    ]
    for number, step in document.numbered():
        lines += ["", *_step(step, f"{number}. " if number else "", document.decimals, width)]
    if document.commands:
        lines += ["", f"{COMMANDS_TITLE}:"]
        lines += [f"  {command}" for command in document.commands]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _step(step: Step, number: str, decimals: int, width: int) -> Iterator[str]:
    title = f"{number}{step.title}"
    formula = step.formula.text
    together = f"{title}:  {formula}"
    if formula and display_width(together) <= width:
        yield together
    else:
        yield from wrap(title, width)
        yield from _paragraph(formula, width)
    marked = replace(step, labels=step.marked_labels(MARK))
    first = label_width(marked, decimals, width - INDENT) if step.labels else 0
    for group in column_groups(marked, decimals, width - INDENT, LONGEST_BAR):
        yield from _table(marked, group, first)
    for fact in step.facts:
        yield from _paragraph(_fact(fact, decimals), width)
    for remark in step.remarks:
        yield from _paragraph(remark, width)


def _paragraph(text: str, width: int) -> Iterator[str]:
    for line in wrap(text, width - INDENT, break_long_words=False):
        yield " " * INDENT + line


def _fact(fact: Fact, decimals: int) -> str:
    note = f"  ({fact.note})" if fact.note else ""
    return f"{fact.formula.text} = {format_number(fact.value, decimals)}{note}"


def _table(step: Step, group: ColumnGroup, first: int) -> Iterator[str]:
    columns = group.columns
    yield _line(pad(step.heading, first, left=True), columns, [column.title for column in columns])
    for row, label in enumerate(step.labels):
        parts = [fold(label, first), *(column.lines(row) for column in columns)]
        for number, (head, *texts) in enumerate(zip_longest(*parts, fillvalue="")):
            drawn = "" if number else _bar(group, row)
            yield _line(pad(head, first, left=True), columns, texts, drawn)


def _line(label: str, columns: list[TextColumn], texts: list[str], bar: str = "") -> str:
    parts = [
        pad(text, column.width, left=column.is_words)
        for column, text in zip(columns, texts, strict=True)
    ]
    gap = " " * GAP
    return " " * INDENT + gap.join([label, *parts, bar])


def _bar(group: ColumnGroup, row: int) -> str:
    column = group.bar
    if column is None:
        return ""
    part = bar_fraction(column, row)
    if column.bar == "fraction":
        return "#" * round(part * group.length)
    half = (group.length - 1) // 2
    length = round(part * half)
    left = f"<{'#' * (-length - 1)}" if length < 0 else ""
    right = f"{'#' * (length - 1)}>" if length > 0 else ""
    return f"{left:>{half}}|{right}"
