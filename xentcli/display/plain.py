"""A document as plain text: no colour, no boxes, bars of ASCII."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from textwrap import wrap

from xentcli.display.document import Document, Fact, Step, shown
from xentcli.display.grid import (
    GAP,
    Cells,
    Group,
    columns_of,
    fold,
    groups,
    labels_width,
    padded,
    share_of,
)

INDENT = 3
LONGEST_BAR = 30
MARK = " *"


def as_text(document: Document, width: int) -> str:
    """Lines of at most `width` columns."""
    lines = [
        *wrap(document.title, width),
        *(line for p in document.lead for line in wrap(p, width)),
    ]
    for number, step in enumerate(document.steps, 1):
        lines += ["", *_step(step, f"{number}. ", document.decimals, width)]
    if document.commands:
        lines += ["", "The same by the ordinary commands:"]
        lines += [f"  {command}" for command in document.commands]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _step(step: Step, number: str, decimals: int, width: int) -> Iterator[str]:
    title = f"{number}{step.title}"
    formula = step.formula.text
    together = f"{title}:  {formula}"
    if formula and columns_of(together) <= width:
        yield together
    else:
        yield from wrap(title, width)
        yield from _paragraph(formula, width)
    marked = replace(step, labels=step.marked_labels(MARK))
    first = labels_width(marked, decimals, width - INDENT) if step.labels else 0
    for group in groups(marked, decimals, width - INDENT, LONGEST_BAR):
        yield from _table(marked, group, first)
    for fact in step.facts:
        yield from _paragraph(_fact(fact, decimals), width)
    for remark in step.remarks:
        yield from _paragraph(remark, width)


def _paragraph(text: str, width: int) -> Iterator[str]:
    for line in wrap(text, width - INDENT, break_long_words=False):
        yield " " * INDENT + line


def _fact(fact: Fact, decimals: int) -> str:
    words = f"  ({fact.words})" if fact.words else ""
    return f"{fact.formula.text} = {shown(fact.value, decimals)}{words}"


def _table(step: Step, group: Group, first: int) -> Iterator[str]:
    columns = group.columns
    yield _line(padded(step.label, first, left=True), columns, [column.title for column in columns])
    for line, label in enumerate(step.labels):
        parts = [fold(label, first), *(column.lines(line) for column in columns)]
        for number, (head, *texts) in enumerate(zip_longest(*parts, fillvalue="")):
            drawn = "" if number else _bar(group, line)
            yield _line(padded(head, first, left=True), columns, texts, drawn)


def _line(label: str, columns: list[Cells], texts: list[str], bar: str = "") -> str:
    parts = [
        padded(text, column.width, left=column.words)
        for column, text in zip(columns, texts, strict=True)
    ]
    gap = " " * GAP
    return " " * INDENT + gap.join([label, *parts, bar])


def _bar(group: Group, line: int) -> str:
    column = group.bar
    if column is None:
        return ""
    share = share_of(column.values[line], column.reach)
    if column.bar == "share":
        return "#" * round(share * group.length)
    half = (group.length - 1) // 2
    length = round(share * half)
    left = f"<{'#' * (-length - 1)}" if length < 0 else ""
    right = f"{'#' * (length - 1)}>" if length > 0 else ""
    return f"{left:>{half}}|{right}"
