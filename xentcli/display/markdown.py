"""A document as Markdown: headings, tables, and formulas between dollar signs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xentcli.display.document import COMMANDS_TITLE, Document, Step, format_number
from xentcli.display.grid import text_column


def as_text(document: Document, width: int) -> str:
    """Markdown as GitHub and notebooks render it; lines are not wrapped."""
    lines = [f"## {_escaped(document.title)}"]
    for line in document.intro:
        lines += ["", _escaped(line)]
    for number, step in document.numbered():
        lines += ["", f"### {number}. {_escaped(step.title)}" if number else f"### {step.title}"]
        lines += _step(step, document.decimals)
    if document.commands:
        lines += ["", f"{COMMANDS_TITLE}:", "", "```sh", *document.commands, "```"]
    return "\n".join(lines) + "\n"


def _step(step: Step, decimals: int) -> Iterator[str]:
    if step.formula.latex:
        yield from ("", f"${step.formula.latex}$")
    if step.columns:
        yield ""
        yield from _table(step, decimals)
    if step.facts:
        yield ""
    for fact in step.facts:
        note = f" ({_escaped(fact.note)})" if fact.note else ""
        yield f"- ${fact.formula.latex}$ = {format_number(fact.value, decimals)}{note}"
    for remark in step.remarks:
        yield from ("", _escaped(remark))


def _table(step: Step, decimals: int) -> Iterator[str]:
    columns = [text_column(column, decimals) for column in step.columns]
    titles = [f"${column.column.title.latex}$" for column in columns]
    yield _row([_escaped(step.heading), *titles])
    yield _row([":--", *(":--" if column.is_words else "--:" for column in columns)])
    for row, label in enumerate(step.labels):
        name = _escaped(label)
        name = f"**{name}**" if row in step.marked else name
        yield _row([name, *(_escaped(column.cells[row]) for column in columns)])


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    r"""Text with the characters escaped that have a meaning in Markdown.

    >>> _escaped("a|b_c"), _escaped("-0.5")
    ('a\\|b\\_c', '-0.5')
    """
    return re.sub(r"([\\`*_|<>\[\]$#~])", r"\\\1", text)
