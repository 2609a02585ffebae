"""Output of documents (explain, examples): to the terminal, standard output or a file."""

from __future__ import annotations

import shutil
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

FORMS = ("rich", "plain", "markdown", "latex", "json")
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
    output: str | None = option(
        None,
        f"Write to PATH, in the format of its suffix ({SAVED}) or of --format; - is standard "
        "output, also on a terminal.",
        "-o",
        "--output",
        "--save",
        group="Output",
        metavar="PATH",
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
    """Write a document to the file of --output, else to standard output; --json prints it too."""
    from xentcli.display import as_text
    from xentcli.files.outputs import Outputs

    path, form = options.output, options.form
    if path is None and _at_terminal(form):
        _show(document, options.width)
        return
    with Outputs(no_clobber=options.no_clobber) as outputs:
        if path not in (None, "-"):
            form = options.format or _form_of(path)
            saved = as_text(document, form, _width(options, at_terminal=False))
            outputs.open(path).write(saved.encode())
        if path in (None, "-") or options.as_json:
            form = options.form or "plain"
            text = as_text(document, form, _width(options, at_terminal=stdout_is_terminal()))
            outputs.open("-").write(text.encode())
    if path not in (None, "-"):
        inform(f"{document.title.partition(':')[0]} -> {visible(path)}")


def _width(options: DocumentOptions, *, at_terminal: bool) -> int:
    """The width asked for, else that of the terminal, else the default."""
    from xentcli.display import WIDTH

    if options.width or not at_terminal:
        return options.width or WIDTH
    return max(40, shutil.get_terminal_size().columns)


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
        raise OptionError("output", what, "-o explained.html, or --format markdown")
    return SUFFIXES[suffix]
