"""Documents: explain, examples, report, calibrate. To the terminal, standard output or a file."""

from __future__ import annotations

import shutil
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from xentcli.cli.console import inform, show, stdout_is_terminal
from xentcli.cli.declare import option
from xentcli.cli.options import JsonOption, NoClobberOption
from xentcli.cli.session import current
from xentcli.errors import OptionError, visible
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.display.document import Document
    from xentcli.files.outputs import Outputs
    from xentcli.files.sink import Sink

FORMS = ("rich", "plain", "markdown", "latex", "html", "json")
SAVED = "svg, html, md, tex, txt or json"


@dataclass(frozen=True, kw_only=True)
class PageOptions(JsonOption, NoClobberOption):
    """The format of a document; `path` is where it is written, None for standard output."""

    format: str | None = option(
        None,
        "Format of the output; by default rich on a terminal, else plain.",
        "-f",
        "--format",
        group="Output",
        type=click.Choice(FORMS),
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

    @property
    def path(self) -> str | None:
        """The file to write."""
        return None


@dataclass(frozen=True, kw_only=True)
class DocumentOptions(PageOptions):
    """The format of a document, and the file of --output."""

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

    @property
    def path(self) -> str | None:
        """The file to write; - is standard output."""
        return self.output


@dataclass(frozen=True, kw_only=True)
class SavedOptions(PageOptions):
    """The same where --output is something else."""

    save: str | None = option(
        None,
        f"Write the result to FILE, in the format of its suffix ({SAVED}) or of --format.",
        group="Output",
        metavar="FILE",
        file=True,
    )

    @property
    def path(self) -> str | None:
        """The file to write."""
        return self.save


def publish(document: Document, options: PageOptions) -> None:
    """Write a document to its file, else to standard output; --json prints it too."""
    from xentcli.files.outputs import Outputs

    with Outputs(no_clobber=options.no_clobber) as outputs:
        Publication(outputs, options).write(document)
    announce(document, options)


class Publication:
    """Where a document goes, opened before the work that makes it, which may be long."""

    def __init__(self, outputs: Outputs, options: PageOptions) -> None:
        self._pages: list[tuple[Sink, str, int]] = []
        path = options.path
        to_file = path is not None and path != "-"
        if path is not None and to_file:
            form = options.format or _form_of(path)
            self._pages.append((outputs.open(path), form, _width(options, at_terminal=False)))
        if not _is_shown(options) and (not to_file or options.as_json):
            width = _width(options, at_terminal=stdout_is_terminal())
            self._pages.append((outputs.open("-"), options.form or "plain", width))

    def write(self, document: Document) -> None:
        """Write the document to each of them."""
        from xentcli.display import as_text

        for sink, form, width in self._pages:
            sink.write(as_text(document, form, width).encode())


def announce(document: Document, options: PageOptions) -> None:
    """Say where the document was written, or show it on the terminal; all outputs are in place."""
    if _is_shown(options):
        _show(document, options.width)
    elif options.path not in (None, "-"):
        inform(f"{document.title.partition(':')[0]} -> {visible(str(options.path))}")


def _is_shown(options: PageOptions) -> bool:
    """Whether the document is drawn on the terminal instead of being written."""
    return options.path is None and _at_terminal(options.form)


def _width(options: PageOptions, *, at_terminal: bool) -> int:
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
