"""The charts of a document side by side in one SVG picture, under its title and introduction."""

from __future__ import annotations

from html import escape

from xentcli.display.chart import CSS, HEIGHT, WIDTH, Chart, as_svg
from xentcli.display.document import Document
from xentcli.display.grid import fold

GAP, LINE = 16, 20
CHARACTERS = 112  # of a line of the introduction over two charts
STYLE = (
    """
svg { --text: #1f2328; --quiet: #59636e; --card: #ffffff; --line: #d1d9e0; --rise: #0072c6;
  --fall: #bd4b00; background: var(--card); }
@media (prefers-color-scheme: dark) {
  svg { --text: #e6edf3; --quiet: #9198a1; --card: #0d1117; --line: #3d444d; --rise: #4ea1f3;
    --fall: #f0883e; } }
.page { fill: var(--card); }
.head, .intro { font: 13px system-ui, sans-serif; fill: var(--text); }
.head { font-size: 16px; font-weight: 600; }
"""
    + CSS
)


def has_charts(document: Document) -> bool:
    """Whether any step of a document has a chart."""
    return any(step.charts for step in document.steps)


def as_text(document: Document, width: int) -> str:
    """The picture; its size does not depend on the width of a terminal."""
    charts = [chart for step in document.steps for chart in step.charts]
    across = 2 if len(charts) > 1 else 1
    lines = [part for line in document.intro for part in fold(line, CHARACTERS * across // 2)]
    top = GAP + LINE * (len(lines) + 1) + GAP
    down = -(-len(charts) // across)
    size = (GAP + across * (WIDTH + GAP), top + down * (HEIGHT + GAP))
    title = escape(document.title)
    words = [
        f'<text class="intro" x="{GAP}" y="{GAP + LINE * number + 14}">{escape(line)}</text>'
        for number, line in enumerate(lines, 1)
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'width="{size[0]}" height="{size[1]}" aria-label="{title}">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{size[0]}" height="{size[1]}"/>',
        f'<text class="head" x="{GAP}" y="{GAP + 14}">{title}</text>',
        *words,
        *(_placed(chart, *divmod(number, across), top) for number, chart in enumerate(charts)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _placed(chart: Chart, row: int, column: int, top: int) -> str:
    x, y = GAP + column * (WIDTH + GAP), top + row * (HEIGHT + GAP)
    return as_svg(chart, f'x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"')
