"""A document as plain text: no colour, no boxes, bars of ASCII."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from textwrap import wrap

from xentcli.document import Document, Fact, Step, shown
from xentcli.drawing.grid import (
    BAR,
    GAP,
    Cells,
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
    if formula and columns_of(title) + 2 + columns_of(formula) <= width:
        yield f"{title}:  {formula}"
    else:
        yield title
        yield from _paragraph(formula, width)
    for group in groups(_marked(step), decimals, width - INDENT):
        yield from _table(_marked(step), group, width - INDENT)
    for fact in step.facts:
        yield from _paragraph(_fact(fact, decimals), width)
    for remark in step.remarks:
        yield from _paragraph(remark, width)


def _marked(step: Step) -> Step:
    labels = [
        label + MARK if line in step.marked else label for line, label in enumerate(step.labels)
    ]
    return replace(step, labels=tuple(labels))


def _paragraph(text: str, width: int) -> Iterator[str]:
    for line in wrap(text, width - INDENT, break_long_words=False, break_on_hyphens=False):
        yield " " * INDENT + line


def _fact(fact: Fact, decimals: int) -> str:
    words = f"  ({fact.words})" if fact.words else ""
    return f"{fact.formula.text} = {shown(fact.value, decimals)}{words}"


def _table(step: Step, group: list[Cells], width: int) -> Iterator[str]:
    first = labels_width(step, width)
    used = first + sum(column.width + GAP for column in group)
    bar = min(LONGEST_BAR, width - used - GAP)
    yield _line(padded(step.label, first, left=True), group, [column.title for column in group])
    for line, label in enumerate(step.labels):
        parts = [fold(label, first), *(column.lines(line) for column in group)]
        for number, (head, *texts) in enumerate(zip_longest(*parts, fillvalue="")):
            drawn = "" if number else _bar(group, line, bar)
            yield _line(padded(head, first, left=True), group, texts, drawn)


def _line(label: str, group: list[Cells], texts: list[str], bar: str = "") -> str:
    parts = [
        padded(text, column.width, left=column.words)
        for column, text in zip(group, texts, strict=True)
    ]
    gap = " " * GAP
    return " " * INDENT + gap.join([label, *parts, bar])


def _bar(group: list[Cells], line: int, width: int) -> str:
    drawn = [cells.column for cells in group if cells.column.bar]
    if not drawn or width < BAR:
        return ""
    column = drawn[-1]
    if column.bar == "share":
        return "#" * round(share_of(column.values[line], column.reach) * width)
    half = (width - 1) // 2
    length = round(share_of(column.values[line], column.reach) * half)
    left = f"<{'#' * (-length - 1)}" if length < 0 else ""
    right = f"{'#' * (length - 1)}>" if length > 0 else ""
    return f"{left:>{half}}|{right}"
