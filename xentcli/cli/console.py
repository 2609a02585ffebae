"""Messages, notes, progress and previews on the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, TextIO

import click

from xentcli import signals
from xentcli.cli.session import current
from xentcli.errors import visible

SHOW_CURSOR = b"\r\x1b[2K\x1b[?25h"  # and clear the line of the bar
HIDE_CURSOR = b"\x1b[?25l"


def wants_color(stream: TextIO, choice: str) -> bool:
    """Whether to use colour: as asked, else on a terminal where NO_COLOR is not set."""
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_stderr(text: str) -> None:
    """Write one line to stderr; a stderr that is full or closed changes no result."""
    if sys.stderr is not None:
        with suppress(OSError):
            click.echo(text, file=sys.stderr, color=True)


def inform(text: str) -> None:
    """Write a message to stderr, unless --quiet."""
    if not current().options.quiet:
        write_stderr(f"xent: {visible(text)}")


def note(text: str) -> None:
    """Write a note to stderr, unless --quiet."""
    inform(f"note: {text}")


def status(text: str) -> None:
    """Replace the status line on stderr, if that is a terminal."""
    if sys.stderr is not None and sys.stderr.isatty() and not current().options.quiet:
        with suppress(OSError):
            click.echo(f"\r\033[2K{text}", nl=False, file=sys.stderr, color=True)


def write_stdout(text: str) -> None:
    """Write to standard output; an error if it is closed."""
    click.echo(text, nl=False, file=sys.stdout)


def show(draw: Callable[[int], Any]) -> None:
    """Print what `draw` returns for the terminal's width."""
    from rich.console import Console

    color = wants_color(sys.stdout, current().options.color)
    console = Console(
        color_system="auto" if color else None,
        force_terminal=color or None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(draw(console.width))


class Progress:
    """A progress bar on stderr, on terminals only, shown after one second.

    It shows the time left and, with `rate`, how fast the `nbytes` of input are read.
    """

    def __init__(self, wanted: bool, nbytes: int, *, rate: bool = True) -> None:
        self._nbytes, self._rate = nbytes, rate
        seen = sys.stderr is not None and sys.stderr.isatty()
        self._wanted = wanted and seen and not current().options.quiet
        self._start = time.monotonic()
        self._bar: Any = None
        self._shown = ExitStack()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Update: `done` of `total` rows."""
        if not self._wanted or (self._bar is None and time.monotonic() - self._start < 1):
            return
        if self._bar is None:
            self._shown.enter_context(signals.changed_terminal(SHOW_CURSOR, HIDE_CURSOR))
            self._bar = self._shown.enter_context(_bar(self._nbytes, rate=self._rate))
        self._bar.update(0, completed=self._nbytes * done // max(1, total))

    def __exit__(self, *error: object) -> None:
        self._shown.close()


def _bar(nbytes: int, *, rate: bool) -> Any:
    from rich import progress
    from rich.console import Console

    color = wants_color(sys.stderr, current().options.color)
    console = Console(stderr=True, color_system="auto" if color else None)
    columns = (
        progress.BarColumn(None),
        progress.TaskProgressColumn(),
        *([progress.TransferSpeedColumn()] if rate else []),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=console, transient=True)
    bar.add_task("", total=nbytes)
    return bar


def stdout_is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()
