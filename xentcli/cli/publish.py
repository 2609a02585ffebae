"""How a derivation leaves: in which form, to the terminal, to standard output, to a file."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from xentcli.cli.console import say, show, state, stdout_is_terminal
from xentcli.cli.options import PATH, Decorator, json_option, option, together
from xentcli.errors import OptionError, visible

if TYPE_CHECKING:
    from xentcli.display.document import Document

FORMS = ("rich", "plain", "markdown", "latex", "json")
SAVED = "svg, html, md, tex, txt or json"


def document_options(*more: str) -> Decorator:
    """The options of `publish`; `more` are forms that only one command has."""
    return together(
        option(
            "-f",
            "--format",
            type=click.Choice([*FORMS, *more]),
            help="Form of the output. [default: rich on a terminal, else plain]",
        ),
        option(
            "--save",
            metavar="FILE",
            type=PATH,
            help=f"Write this file instead; its suffix says the form: {SAVED}.",
        ),
        *_line_options,
        json_option,
    )


_line_options = (
    option("-n", "--no-clobber", is_flag=True, help="Never replace an existing file."),
    option(
        "--decimals",
        type=click.IntRange(0, 20),
        default=4,
        show_default=True,
        metavar="N",
        help="Of the numbers; JSON always has all.",
    ),
    option(
        "--width",
        type=click.IntRange(40, 1000),
        metavar="N",
        help="Columns of lines. [default: the terminal's, else 80]",
    ),
)


def publish(document: Document, given: dict[str, Any]) -> None:
    """To the file asked for, else to standard output."""
    from xentcli.display import WIDTH, as_text
    from xentcli.files.outputs import Outputs

    path, width = given["save"], given["width"]
    form = "json" if given["as_json"] else given["format"]
    at_terminal = _at_terminal(form)
    with Outputs(no_clobber=given["no_clobber"]) as outputs:
        if path:
            saved = as_text(document, _form_of(path), width or WIDTH)
            outputs.open(path).write(saved.encode())
        if (form or not path) and not at_terminal:
            outputs.open("-").write(as_text(document, form or "plain", width or WIDTH).encode())
    if path:
        say(f"{document.title.partition(':')[0]} -> {visible(path)}")
    if (form or not path) and at_terminal:
        _show(document, width)


def _at_terminal(form: str | None) -> bool:
    """Whether to draw for a person, in colour; a pipe may ask for that."""
    if form == "rich" and state().get("color") == "always":
        return True
    return stdout_is_terminal() and form in (None, "rich") and _draws_boxes()


def _draws_boxes() -> bool:
    """Whether the terminal takes more than its own letters."""
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"


def _show(document: Document, width: int | None) -> None:
    from xentcli.display.terminal import draw

    show(lambda columns: draw(document, width or max(40, columns)))


def _form_of(path: str) -> str:
    from xentcli.display import SUFFIXES

    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise OptionError("save", f"the suffix says no form: {SAVED}", "--save explained.html")
    return SUFFIXES[suffix]
