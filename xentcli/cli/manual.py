"""The manual page in roff, made of the same data as the help of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from xentcli import __version__
from xentcli.cli.help import Command

ESCAPES = {"\\": r"\e", "-": r"\-", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
STATUS = (
    ("0", "done"),
    ("1", "invalid data; non-finite results with --strict; a difference found"),
    ("2", "wrong usage, or a missing input"),
    ("3", "a device or extra is not available"),
    ("4", "reading or writing failed"),
    ("70", "a bug in xent"),
)


def manual(root: click.Context) -> str:
    """The page of a group and all of its commands."""
    assert isinstance(root.command, click.Group)
    about, _, rest = inspect.cleandoc(root.command.help or "").partition("\n\n")
    lines = [
        f'.TH XENT 1 "" "xentcli {__version__}" "User Commands"',
        ".SH NAME",
        f"xent {_text('-')} {_text(about[0].lower() + about[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B xent",
        _text("COMMAND [OPTIONS] [ARGUMENTS]"),
        ".SH DESCRIPTION",
        *_paragraphs(rest.partition("Exit codes")[0]),
        ".SH COMMANDS",
    ]
    for name in root.command.list_commands(root):
        found = root.command.get_command(root, name)
        assert isinstance(found, Command)
        lines += _command(found, found.context_class(found, info_name=name, parent=root))
    lines.append(".SH EXIT STATUS")
    for code, meaning in STATUS:
        lines += [".TP", _text(code), _text(meaning)]
    return "\n".join(lines) + "\n"


def _command(command: Command, ctx: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(ctx))
    yield from (
        f'.SS "xent {_text(ctx.info_name or "")}"',
        ".PP",
        f".B xent {_text(ctx.info_name or '')}",
    )
    yield _text(usage)
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    yield from (".PP", "Examples:", ".PP", ".nf", ".RS 4")
    yield from map(_text, command.examples)
    yield from (".RE", ".fi")
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record and not isinstance(parameter, click.Argument):
            term, text = record
            yield from (".TP", f".B {_text(term)}", _text(" ".join(text.split())))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in filter(None, text.split("\n\n")):
        yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(words: str) -> str:
    """Text as roff reads it: no escape, no request at the start of a line.

    >>> _text("a -o B\\\\n"), _text(".x")
    ('a \\\\-o B\\\\en', '\\\\&.x')
    """
    escaped = "".join(ESCAPES.get(c, c) for c in words)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
