"""A document as one HTML page, without scripts, external fonts or images.

Steps are side by side on wide screens, and below each other on narrow ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from xentcli.display import chart
from xentcli.display.document import ARROWS, COMMANDS_TITLE, Document, Fact, Step, format_number
from xentcli.display.grid import TextColumn, bar_fraction, column_groups, text_column

SHORT = 12  # characters of labels that are not wrapped
NARROW = 42  # characters of a table that fits on a phone
WIDE = 1000  # of one whose sentences the browser wraps
CSS = """
:root { color-scheme: light dark; --text: #1f2328; --quiet: #59636e; --page: #f6f8fa;
  --card: #ffffff; --line: #d1d9e0; --rise: #0072c6; --fall: #bd4b00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9198a1; --page: #0d1117; --card: #151b23;
    --line: #3d444d; --rise: #4ea1f3; --fall: #f0883e; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 75rem; margin: auto; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .25rem; }
h2 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: .35rem 0; }
.quiet { color: var(--quiet); }
.steps { columns: 29rem 2; column-gap: 1rem; margin-top: 1rem; }
section { break-inside: avoid; margin: 0 0 1rem; padding: .75rem 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; }
.tables { display: flex; flex-wrap: wrap; gap: .5rem 2rem; overflow-x: auto; }
.full { column-span: all; margin-top: 1rem; }
.last { margin-top: 1rem; }
.formula, td, th, code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: .875rem; }
.formula { font-style: italic; overflow-wrap: anywhere; }
table { border-collapse: collapse; flex: 1 1 auto; }
th, td { padding: .15rem .75rem .15rem 0; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid var(--line); }
.word, .label { text-align: left; }
.label { white-space: normal; }
.short { white-space: nowrap; }
.long { white-space: normal; min-width: 10rem; font: inherit; overflow-wrap: anywhere; }
.target { font-weight: 700; }
.drawn { width: 45%; min-width: 7rem; padding-right: 0; }
.bar { position: relative; height: 1rem; }
.bar i { position: absolute; top: .1rem; bottom: .1rem; border-radius: 2px; }
.signed::before { content: ""; position: absolute; left: 50%; top: 0; bottom: 0;
  border-left: 1px solid var(--quiet); }
.rise { background: var(--rise); } .fall { background: var(--fall); }
.rises { color: var(--rise); } .falls { color: var(--fall); }
code { overflow-wrap: anywhere; }
"""
CHARTS = """.charts { display: flex; flex-wrap: wrap; gap: .5rem 1rem; }
.chart { flex: 1 1 18rem; min-width: 0; max-width: 34rem; height: auto; }"""


def as_text(document: Document, width: int) -> str:
    """The whole page."""
    title = escape(document.title)
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        f'<head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{CSS}{_chart_css(document)}</style></head>",
        f"<body><main><header><h1>{title}</h1>",
        *(f'<p class="quiet">{escape(line)}</p>' for line in document.intro),
        '</header><div class="steps">',
    ]
    for number, step in document.numbered():
        lines += _step(step, number, document.decimals)
    lines.append("</div>")
    if document.commands:
        lines.append(f'<section class="last"><h2>{COMMANDS_TITLE}</h2>')
        lines += [f"<p><code>{escape(command)}</code></p>" for command in document.commands]
        lines.append("</section>")
    return "\n".join([*lines, "</main></body></html>"]) + "\n"


def _chart_css(document: Document) -> str:
    return CHARTS + chart.CSS if any(step.charts for step in document.steps) else ""


def _step(step: Step, number: str, decimals: int) -> Iterator[str]:
    wraps = any(text_column(column, decimals).wraps for column in step.columns)
    tables = column_groups(step, decimals, WIDE if wraps else NARROW, 0)
    full = ' class="full"' if wraps or len(tables) > 1 else ""
    title = f"{number}. {step.title}" if number else step.title
    yield f"<section{full}><h2>{escape(title)}</h2>"
    if step.formula.text:
        yield f'<p class="formula">{escape(step.formula.text)}</p>'
    if step.charts:
        yield '<div class="charts">'
        yield from map(chart.as_svg, step.charts)
        yield "</div>"
    yield '<div class="tables">'
    for group in tables:
        if group.columns:
            yield from _table(step, group.columns)
    yield "</div>"
    for fact in step.facts:
        yield _fact(fact, decimals)
    for remark in step.remarks:
        yield f"<p>{escape(remark)}</p>"
    yield "</section>"


def _fact(fact: Fact, decimals: int) -> str:
    note = f' <span class="quiet">{escape(fact.note)}</span>' if fact.note else ""
    value = escape(format_number(fact.value, decimals))
    return f"<p><code>{escape(fact.formula.text)} = <b>{value}</b></code>{note}</p>"


def _table(step: Step, columns: list[TextColumn]) -> Iterator[str]:
    drawn = [column for column in columns if column.column.bar]
    short = " short" * (max(map(len, step.labels), default=0) <= SHORT)
    yield "<table><thead><tr>"
    yield f'<th class="word">{escape(step.heading)}</th>'
    yield from (f"<th{_classes(column)}>{escape(column.title)}</th>" for column in columns)
    yield f"{'<th></th>' if drawn else ''}</tr></thead><tbody>"
    for row, label in enumerate(step.labels):
        mark = " ●" if row in step.marked else ""
        target = ' class="target"' if mark else ""
        yield f'<tr{target}><td class="label{short}">{escape(label)}{mark}</td>'
        yield from (_cell(column, row) for column in columns)
        yield f"{_bar(drawn, row)}</tr>"
    yield "</tbody></table>"


def _classes(column: TextColumn) -> str:
    names = ["word"] * column.is_words + ["long"] * column.wraps
    return f' class="{" ".join(names)}"' if names else ""


def _cell(column: TextColumn, row: int) -> str:
    text = column.cells[row]
    if text in ARROWS:
        return f'<td class="word {text}">{ARROWS[text]}</td>'
    return f"<td{_classes(column)}>{escape(text)}</td>"


def _bar(drawn: list[TextColumn], row: int) -> str:
    if not drawn:
        return ""
    column = drawn[-1].column
    part = bar_fraction(column, row)
    if column.bar == "fraction":
        style, kind = f"left:0;width:{100 * part:.2f}%", "rise"
    elif part < 0:
        style, kind = f"right:50%;width:{-50 * part:.2f}%", "rise"
    else:
        style, kind = f"left:50%;width:{50 * part:.2f}%", "fall"
    bar = f'<i class="{kind}" style="{style}"></i>'
    return f'<td class="drawn"><div class="bar {column.bar}">{bar}</div></td>'
