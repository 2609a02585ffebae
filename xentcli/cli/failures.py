"""Errors as lines on stderr: the one place where they are printed."""

from __future__ import annotations

import sys

import click

from xentcli.cli.console import wants_color, write_stderr
from xentcli.cli.session import Session, as_flag
from xentcli.errors import XentError, visible


def report(error: XentError, session: Session) -> int:
    """Print an error with its hint; returns its exit code."""
    trace(error, session)
    what, hint = error.in_words(as_flag)
    line("error", f"{session.called(error.where)}: {what}", session)
    if hint:
        line("hint", hint, session)
    return error.exit_code


def trace(error: BaseException, session: Session) -> None:
    """Print the traceback of an error, with --debug."""
    if session.options.debug:
        import traceback

        for text in "".join(traceback.format_exception(error)).splitlines():
            write_stderr(visible(text))


def line(kind: str, text: str, session: Session) -> None:
    """Print one line, an error or a hint."""
    word = {"error": "xent: error:", "hint": "hint:"}[kind]
    if sys.stderr and wants_color(sys.stderr, session.options.color):
        word = click.style(word, fg="red" if kind == "error" else "yellow", bold=True)
    write_stderr(f"{word} {visible(text)}")
