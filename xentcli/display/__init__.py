"""Documents as text: for people, for other programs, for files.

Each form has a module with one function. They draw what a document says, and compute no number.
"""

from __future__ import annotations

from importlib import import_module

from xentcli.display.document import Document

FORMATS = ("rich", "plain", "markdown", "latex", "json")
SUFFIXES = {
    "svg": "svg",
    "html": "html",
    "htm": "html",
    "md": "markdown",
    "tex": "latex",
    "json": "json",
    "txt": "plain",
}
NARROW, WIDTH = 40, 80  # columns: the fewest that will do, and what is taken where nobody says


def as_text(document: Document, format: str, width: int = WIDTH) -> str:
    """A document in one of the forms; the same characters on every machine.

    `width` is for the forms made of lines: rich, plain, svg.

    >>> as_text(Document("A title", (), ()), "markdown")
    '## A title\\n'
    """
    module = import_module(f"xentcli.display.{'terminal' if format == 'rich' else format}")
    return str(module.as_text(document, width))
