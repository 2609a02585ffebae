"""A document as a standalone LaTeX article, which uses amsmath and booktabs."""

from __future__ import annotations

from collections.abc import Iterator

from xentcli.display.document import COMMANDS_TITLE, Document, Fact, Step, format_number
from xentcli.display.grid import ColumnGroup, TextColumn, column_groups

WIDTH = 76  # approximate characters per line
HEAD = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,booktabs}
\usepackage[margin=25mm]{geometry}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\begin{document}
"""
SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "·": r"\(\cdot\)",
    "Σ": r"\(\Sigma\)",
    "²": r"\(^2\)",
    "±": r"\(\pm\)",
    "Δ": r"\(\Delta\)",
    "ℓ": r"\(\ell\)",
    "‖": r"\(\Vert\)",
    "→": r"\(\to\)",
    "−": r"\(-\)",
    "–": "--",
}
ARROWS = {"rises": r"\(\uparrow\) rises", "falls": r"\(\downarrow\) falls"}


def as_text(document: Document, width: int) -> str:
    """The whole file."""
    lines = [rf"\section*{{{escaped(document.title)}}}", *map(escaped, document.intro)]
    for number, step in document.numbered():
        title = f"{number}. {step.title}" if number else step.title
        lines += ["", rf"\subsection*{{{escaped(title)}}}"]
        lines += _step(step, document.decimals)
    if document.commands:
        lines += ["", f"{COMMANDS_TITLE}:"]
        lines += ["", r"{\raggedright\ttfamily\small", *map(_command, document.commands), "}"]
    return HEAD + "\n".join(lines) + "\n\\end{document}\n"


def _command(line: str) -> str:
    return escaped(line).replace("/", r"/\allowbreak{}") + r"\par"


def _step(step: Step, decimals: int) -> Iterator[str]:
    if step.formula.latex:
        yield rf"\[ {step.formula.latex} \]"
    for group in column_groups(step, decimals, WIDTH, 0):
        yield from _table(step, group)
    for fact in step.facts:
        yield from ("", _fact(fact, decimals))
    for remark in step.remarks:
        yield from ("", escaped(remark))


def _fact(fact: Fact, decimals: int) -> str:
    note = f" ({escaped(fact.note)})" if fact.note else ""
    number = _number(format_number(fact.value, decimals))
    return rf"\({fact.formula.latex} = {number}\){note}"


def _number(text: str) -> str:
    """A number in math mode.

    >>> _number("1.5e-09"), _number("-inf")
    ('1.5\\\\cdot 10^{-9}', '-\\\\infty ')
    """
    mantissa, found, exponent = text.partition("e")
    if found and exponent.lstrip("+-").isdigit():
        return rf"{mantissa}\cdot 10^{{{int(exponent)}}}"
    return text.replace("inf", r"\infty ").replace("nan", r"\text{nan}")


def _table(step: Step, group: ColumnGroup) -> Iterator[str]:
    columns = group.columns
    if not columns:  # only bars
        return
    alignments = "".join(_alignment(column, len(columns)) for column in columns)
    titles = [f"\\({column.column.title.latex}\\)" for column in columns]
    yield from ("", rf"\begin{{tabular}}{{l{alignments}}}", r"\toprule")
    yield " & ".join([escaped(step.heading), *titles]) + r" \\ \midrule"
    for row, label in enumerate(step.labels):
        name = escaped(label)
        name = rf"\textbf{{{name}}}" if row in step.marked else name
        texts = [
            ARROWS.get(column.cells[row], escaped(column.cells[row]))
            if column.is_words
            else f"\\({_number(column.cells[row])}\\)"
            for column in columns
        ]
        yield " & ".join([name, *texts]) + r" \\"
    yield from (r"\bottomrule", r"\end{tabular}", "")


def _alignment(column: TextColumn, count: int) -> str:
    if column.wraps:
        return rf"p{{{0.8 / max(2, count):.2f}\textwidth}}"
    return "l" if column.is_words else "r"


def escaped(text: str) -> str:
    r"""Text with special characters escaped; letters beyond Latin-1 become their code point.

    >>> escaped("50 % of a_b"), escaped("猫")
    ('50 \\% of a\\_b', 'U+732B')
    """
    return "".join(SPECIAL.get(c) or (c if ord(c) < 256 else f"U+{ord(c):04X}") for c in text)
