r"""A document as a LaTeX article that compiles by itself, with amsmath and booktabs."""

from __future__ import annotations

from collections.abc import Iterator

from xentcli.display.document import Document, Fact, Step, shown
from xentcli.display.grid import Group, groups

WIDTH = 76  # characters of a line of text, about
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
}
ARROWS = {"rises": r"\(\uparrow\) rises", "falls": r"\(\downarrow\) falls"}


def as_text(document: Document, width: int) -> str:
    """The whole file."""
    lines = [rf"\section*{{{escaped(document.title)}}}", *map(escaped, document.lead)]
    for number, step in enumerate(document.steps, 1):
        lines += ["", rf"\subsection*{{{number}. {escaped(step.title)}}}"]
        lines += _step(step, document.decimals)
    if document.commands:
        lines += ["", "The same by the ordinary commands:"]
        lines += ["", r"{\raggedright\ttfamily\small", *map(_command, document.commands), "}"]
    return HEAD + "\n".join(lines) + "\n\\end{document}\n"


def _command(line: str) -> str:
    return escaped(line).replace("/", r"/\allowbreak{}") + r"\par"


def _step(step: Step, decimals: int) -> Iterator[str]:
    if step.formula.latex:
        yield rf"\[ {step.formula.latex} \]"
    for group in groups(step, decimals, WIDTH, 0):
        yield from _table(step, group)
    for fact in step.facts:
        yield from ("", _fact(fact, decimals))
    for remark in step.remarks:
        yield from ("", escaped(remark))


def _fact(fact: Fact, decimals: int) -> str:
    words = f" ({escaped(fact.words)})" if fact.words else ""
    return rf"\({fact.formula.latex} = {_number(shown(fact.value, decimals))}\){words}"


def _number(text: str) -> str:
    """A number in mathematics.

    >>> _number("1.5e-09"), _number("-inf")
    ('1.5\\\\cdot 10^{-9}', '-\\\\infty ')
    """
    mantissa, found, exponent = text.partition("e")
    if found and exponent.lstrip("+-").isdigit():
        return rf"{mantissa}\cdot 10^{{{int(exponent)}}}"
    return text.replace("inf", r"\infty ").replace("nan", r"\text{nan}")


def _table(step: Step, group: Group) -> Iterator[str]:
    columns = group.columns
    if not columns:  # only bars
        return
    kinds = "".join(_kind(column.sentences, column.words, len(columns)) for column in columns)
    titles = [f"\\({column.column.title.latex}\\)" for column in columns]
    yield from ("", rf"\begin{{tabular}}{{l{kinds}}}", r"\toprule")
    yield " & ".join([escaped(step.label), *titles]) + r" \\ \midrule"
    for line, label in enumerate(step.labels):
        name = escaped(label)
        name = rf"\textbf{{{name}}}" if line in step.marked else name
        texts = [
            ARROWS.get(column.cells[line], escaped(column.cells[line]))
            if column.words
            else f"\\({_number(column.cells[line])}\\)"
            for column in columns
        ]
        yield " & ".join([name, *texts]) + r" \\"
    yield from (r"\bottomrule", r"\end{tabular}", "")


def _kind(sentences: bool, words: bool, count: int) -> str:
    if sentences:
        return rf"p{{{0.8 / max(2, count):.2f}\textwidth}}"
    return "l" if words else "r"


def escaped(text: str) -> str:
    r"""Text that LaTeX prints as it is; letters beyond Latin-1 as their code.

    >>> escaped("50 % of a_b"), escaped("猫")
    ('50 \\% of a\\_b', 'U+732B')
    """
    return "".join(SPECIAL.get(c) or (c if ord(c) < 256 else f"U+{ord(c):04X}") for c in text)
