"""A document as Markdown: headings, tables, formulas between dollar signs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xentcli.display.document import Document, Step, shown
from xentcli.display.grid import cells


def as_text(document: Document, width: int) -> str:
    """As GitHub and notebooks show it; lines are as long as they have to be."""
    lines = [f"## {_escaped(document.title)}"]
    for words in document.lead:
        lines += ["", _escaped(words)]
    for number, step in enumerate(document.steps, 1):
        lines += ["", f"### {number}. {_escaped(step.title)}"]
        lines += _step(step, document.decimals)
    if document.commands:
        lines += ["", "The same by the ordinary commands:", "", "```sh", *document.commands, "```"]
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
        words = f" ({_escaped(fact.words)})" if fact.words else ""
        yield f"- ${fact.formula.latex}$ = {shown(fact.value, decimals)}{words}"
    for remark in step.remarks:
        yield from ("", _escaped(remark))


def _table(step: Step, decimals: int) -> Iterator[str]:
    columns = [cells(column, decimals) for column in step.columns]
    titles = [f"${column.column.title.latex}$" for column in columns]
    yield _row([_escaped(step.label), *titles])
    yield _row([":--", *(":--" if column.words else "--:" for column in columns)])
    for line, label in enumerate(step.labels):
        name = _escaped(label)
        name = f"**{name}**" if line in step.marked else name
        yield _row([name, *(_escaped(column.cells[line]) for column in columns)])


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    r"""What Markdown would act on, as it is.

    >>> _escaped("a|b_c"), _escaped("-0.5")
    ('a\\|b\\_c', '-0.5')
    """
    return re.sub(r"([\\`*_|<>\[\]$#~])", r"\\\1", text)
