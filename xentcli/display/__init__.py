"""Documents as text: for a terminal, as a file of several formats, as JSON and CSV.

Each format is a module with a function `as_text`.
"""

from __future__ import annotations

from importlib import import_module

from xentcli.display.document import Document

FORMATS = ("rich", "plain", "markdown", "latex", "html", "json")
SUFFIXES = {
    "svg": "svg",
    "html": "html",
    "htm": "html",
    "md": "markdown",
    "tex": "latex",
    "json": "json",
    "txt": "plain",
}
WIDTH = 80  # columns, unless a terminal has its own


def as_text(document: Document, format: str, width: int = WIDTH) -> str:
    """A document in one of the formats; the same characters on every machine.

    `width` is the line width in columns of rich, plain and svg.

    >>> as_text(Document("A title", (), ()), "markdown")
    '## A title\\n'
    """
    module = import_module(f"xentcli.display.{'terminal' if format == 'rich' else format}")
    return str(module.as_text(document, width))
