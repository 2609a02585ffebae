"""Output of documents (explain, examples): to the terminal, standard output or a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from xentcli.cli.console import inform, show, stdout_is_terminal
from xentcli.cli.declare import option
from xentcli.cli.options import JsonOption, NoClobberOption
from xentcli.cli.session import current
from xentcli.errors import OptionError, visible

if TYPE_CHECKING:
    from xentcli.display.document import Document
    from xentcli.files.outputs import Outputs
    from xentcli.files.sink import Sink

FORMS = ("rich", "plain", "markdown", "latex", "html", "json")
SAVED = "svg, html, md, tex, txt or json"


@dataclass(frozen=True, kw_only=True)
class DocumentOptions(JsonOption, NoClobberOption):
    """The format of a document, and where it is written."""

    format: str | None = option(
        None,
        "Format of the output; by default rich on a terminal, else plain.",
        "-f",
        "--format",
        group="Output",
        type=click.Choice(FORMS),
    )
    save: str | None = option(
        None,
        f"Write to FILE, in the format of its suffix: {SAVED}.",
        group="Output",
        metavar="FILE",
        file=True,
    )
    decimals: int = option(
        4,
        "Decimals shown; JSON is always exact.",
        group="Output",
        type=click.IntRange(0, 20),
        metavar="N",
    )
    width: int | None = option(
        None,
        "Line width in columns; by default that of the terminal, else 80.",
        group="Output",
        type=click.IntRange(40, 1000),
        metavar="N",
    )

    @property
    def form(self) -> str | None:
        """The format asked for, or None."""
        return "json" if self.as_json else self.format


def publish(document: Document, options: DocumentOptions) -> None:
    """Write a document to the file of --save, else to standard output."""
    from xentcli.files.outputs import Outputs

    with Outputs(no_clobber=options.no_clobber) as outputs:
        Publication(outputs, options).write(document)
    announce(document, options)


class Publication:
    """Where a document goes, opened before the work that makes it, which may be long."""

    def __init__(self, outputs: Outputs, options: DocumentOptions) -> None:
        self._width, path, form = options.width, options.save, options.form
        self._forms: list[tuple[Sink, str]] = []
        if path:
            saved = _form_of(path)
            self._forms.append((outputs.open(path), saved))
        if (form or not path) and not _at_terminal(form):
            self._forms.append((outputs.open("-"), form or "plain"))

    def write(self, document: Document) -> None:
        """Write the document to each of them."""
        from xentcli.display import WIDTH, as_text

        for sink, form in self._forms:
            sink.write(as_text(document, form, self._width or WIDTH).encode())


def announce(document: Document, options: DocumentOptions) -> None:
    """Say where the document was saved, or show it on the terminal; all outputs are in place."""
    path, form = options.save, options.form
    if path:
        inform(f"{document.title.partition(':')[0]} -> {visible(path)}")
    if (form or not path) and _at_terminal(form):
        _show(document, options.width)


def _at_terminal(form: str | None) -> bool:
    """Whether to draw for a terminal; a pipe gets that only if it is asked for."""
    if form == "rich" and current().options.color == "always":
        return True
    return stdout_is_terminal() and form in (None, "rich") and _draws_boxes()


def _draws_boxes() -> bool:
    """Whether the terminal's encoding has box characters."""
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"


def _show(document: Document, width: int | None) -> None:
    from xentcli.display.terminal import draw

    show(lambda columns: draw(document, width or max(40, columns)))


def _form_of(path: str) -> str:
    from xentcli.display import SUFFIXES

    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        what = f"{visible(path)}: unknown suffix; expected {SAVED}"
        raise OptionError("save", what, "--save explained.html")
    return SUFFIXES[suffix]
