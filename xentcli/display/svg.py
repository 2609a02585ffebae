"""A document as a self-contained SVG picture: of its charts, or of the terminal output.

Every run of text has a fixed position and length, so any monospaced font will do. The colours
follow the viewer's light or dark theme.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from xentcli.display import chart_sheet
from xentcli.display.document import Document
from xentcli.display.terminal import draw

CELL, LINE, FONT, MARGIN = 8.4, 17, 14, 12
CSS = """
  svg { background: #ffffff; }
  text { font: 14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2328;
    white-space: pre; }
  .page { fill: #ffffff; } .b { font-weight: bold; } .i { font-style: italic; }
  .dim { fill: #59636e; } .frame { fill: #8c959f; }
  .rise { fill: #0072c6; } .fall { fill: #bd4b00; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; } .page { fill: #0d1117; }
    .dim { fill: #9198a1; } .frame { fill: #59636e; }
    .rise { fill: #4ea1f3; } .fall { fill: #f0883e; }
  }
"""
COLOURS = {32: "rise", 166: "fall", 244: "frame"}  # by their number in the terminal palette


def as_text(document: Document, width: int) -> str:
    """The charts of a document; without any, the picture of a terminal with `width` columns."""
    if chart_sheet.has_charts(document):
        return chart_sheet.as_text(document, width)
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system="256",
        force_terminal=True,
        legacy_windows=False,
    )
    lines = console.render_lines(draw(document, width), pad=False)
    across, down = 2 * MARGIN + width * CELL, 2 * MARGIN + len(lines) * LINE
    title = escape(document.title)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across:g} {down:g}" role="img" '
        f'width="{across:g}" height="{down:g}" aria-label="{title}">',
        f"<title>{title}</title>",
        f"<style>{CSS}</style>",
        f'<rect class="page" width="{across:g}" height="{down:g}"/>',
        *(text for number, line in enumerate(lines) for text in _line(line, number)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(segments: list[Segment], number: int) -> Iterator[str]:
    """Each run of one style at its position; spaces are not drawn."""
    column = 0
    y = MARGIN + number * LINE + FONT
    for segment in segments:
        text = segment.text.strip("\n ")
        start = column + len(segment.text) - len(segment.text.lstrip())
        column += cell_len(segment.text)
        if text:
            place = f'x="{MARGIN + start * CELL:.1f}" y="{y}"'
            length = f'textLength="{cell_len(text) * CELL:.1f}"'
            yield f"<text {place} {length}{_classes(segment.style)}>{escape(text)}</text>"


def _classes(style: Style | None) -> str:
    if style is None:
        return ""
    names = [name for name, on in (("b", style.bold), ("i", style.italic)) if on]
    colour = style.color.number if style.color else None
    names += ["dim"] if style.dim else [COLOURS[colour]] if colour in COLOURS else []
    return f' class="{" ".join(names)}"' if names else ""
