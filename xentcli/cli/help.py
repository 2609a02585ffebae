"""Help pages: options in groups, readable from 40 columns on, in any encoding."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import click

from xentcli.cli.streams import ERRORS

WIDEST, NARROWEST = 100, 30  # columns
TWO_COLUMNS = 76  # with fewer, the text of an option stands below it


class HelpFormatter(click.HelpFormatter):
    """Click's formatter, for terminals of 40 columns too, where it breaks words."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        import shutil  # this and `textwrap` are for help alone

        width = width or max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))
        super().__init__(indent_increment, width, max_width)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Terms and texts, side by side, or below each other where there is little room."""
        if self.width >= TWO_COLUMNS:
            super().write_dl(rows, col_max, col_spacing)
            return
        for term, text in rows:
            self._wrapped(term.replace("|", "| "), 0, "  ", glue="| ")
            self._wrapped(text, 4)

    def getvalue(self) -> str:
        """The page, in characters that standard output has: Click would switch ASCII to UTF-8."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return super().getvalue().encode(encoding, ERRORS).decode(encoding)

    def write_example(self, command: str) -> None:
        """A command that can be pasted, continued with a backslash where it is too long."""
        import textwrap

        room = self.width - self.current_indent - 2
        whole = re.sub(
            r"((?<!\S)-{1,2}[a-z-]+|xent|[|>]) (?=[^-|>])", "\\1\N{NO-BREAK SPACE}", command
        )
        lines = textwrap.wrap(
            whole, room, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        )
        start = " " * self.current_indent
        text = " \\\n".join(start + line for line in lines)
        self.write(text.replace("\N{NO-BREAK SPACE}", " ") + "\n")

    def _wrapped(self, text: str, indent: int, hanging: str = "", glue: str = "") -> None:
        import textwrap

        start = " " * (self.current_indent + indent)
        lines = textwrap.wrap(
            text,
            self.width,
            initial_indent=start,
            subsequent_indent=start + hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines:
            self.write((line.replace(glue, glue.rstrip()) if glue else line) + "\n")


class Option(click.Option):
    """An option that belongs to a group of the help page."""

    def __init__(self, names: Sequence[str], group: str, **settings: object) -> None:
        super().__init__(names, **settings)  # type: ignore[arg-type] # Click's own settings
        self.group = group


class Context(click.Context):
    """Click's context, with the help pages of this module."""

    formatter_class = HelpFormatter


class Command(click.Command):
    """A command whose help has examples, and its options in groups."""

    context_class = Context

    def __init__(
        self,
        name: str,
        *,
        examples: Sequence[str],
        parameters: Callable[[], list[click.Parameter]],
        **settings: object,
    ) -> None:
        self._make_parameters = parameters
        super().__init__(name, **settings)  # type: ignore[arg-type] # Click's own settings
        self.examples = tuple(examples)

    @cached_property
    def _made_parameters(self) -> list[click.Parameter]:
        return self._make_parameters()

    @property
    def params(self) -> list[click.Parameter]:
        """Arguments and options, made when they are asked for: a module has several commands, of
        which one is used."""
        return self._made_parameters

    @params.setter
    def params(self, _: object) -> None:
        """Click gives every command an empty list at first."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Click's parser, which finds short options at once.

        By itself it looks for `-o` among the long options first, and for names that are like it:
        2 ms for the first option, 1 for each more.
        """
        parser: Any = super().make_parser(ctx)
        with suppress(AttributeError):  # these are no public names of Click's
            short, match, process = parser._short_opt, parser._match_short_opt, parser._process_opts
            parser._process_opts = lambda option, state: (
                match(option, state) if option in short else process(option, state)
            )
        return parser

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does, examples, and the rest of the text."""
        write_page(formatter, self.help or "", self.examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section for each group, in the order in which the command declares them."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and not isinstance(parameter, click.Argument):
                groups.setdefault(getattr(parameter, "group", "General"), []).append(record)
        for name, records in groups.items():
            with formatter.section(f"{name} options"):
                formatter.write_dl(records)


def write_page(formatter: click.HelpFormatter, text: str, examples: Sequence[str]) -> None:
    """What a command does, examples that can be pasted, and the rest of the text."""
    assert isinstance(formatter, HelpFormatter)
    first, _, rest = inspect.cleandoc(text).partition("\n\n")
    _write_text(formatter, first)
    with formatter.section("Examples"):
        for example in examples:
            formatter.write_example(example)
    _write_text(formatter, rest)


def _write_text(formatter: click.HelpFormatter, text: str) -> None:
    if text:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
