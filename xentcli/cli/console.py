"""What a command says beside its result: the summary, notes, previews, and when in colour."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import click

from xentcli import signals
from xentcli.cli.session import current
from xentcli.errors import FileError

SHOW_CURSOR = b"\r\x1b[2K\x1b[?25h"  # and clear the line of the bar


def wants_color(stream: TextIO, choice: str) -> bool:
    """Whether to colour: as asked, else on a terminal where NO_COLOR is not set."""
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_stderr(text: str) -> None:
    """One line on stderr; a stderr that is full or gone changes no result."""
    if sys.stderr is not None:
        with suppress(OSError):
            click.echo(text, file=sys.stderr, color=True)


def inform(text: str) -> None:
    """One line on stderr, unless --quiet."""
    if not current().options.quiet:
        write_stderr(f"xent: {text}")


def note(text: str) -> None:
    """A note on stderr, unless --quiet."""
    inform(f"note: {text}")


def status(text: str) -> None:
    """What is going on, on a line of its own that the next one replaces, on terminals."""
    if sys.stderr is not None and sys.stderr.isatty() and not current().options.quiet:
        with suppress(OSError):
            click.echo(f"\r\033[2K{text}", nl=False, file=sys.stderr, color=True)


def write_stdout(text: str) -> None:
    """Text on standard output, which has to be there."""
    if sys.stdout is None:
        raise FileError("<stdout>", "standard output is closed")
    click.echo(text, nl=False, file=sys.stdout)


def show(draw: Callable[[int], Any]) -> None:
    """What `draw` makes for the terminal's width, on standard output."""
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
    """A bar on stderr, once the work has taken a second, where a person may see it.

    It shows the rate at which `nbytes` of input go through, and the time that is left.
    """

    def __init__(self, wanted: bool, nbytes: int) -> None:
        self._nbytes = nbytes
        seen = sys.stderr is not None and sys.stderr.isatty()
        self._wanted = wanted and seen and not current().options.quiet
        self._start = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        """So many rows are done."""
        if not self._wanted or (self._bar is None and time.monotonic() - self._start < 1):
            return
        if self._bar is None:
            self._bar = _bar(self._nbytes)
        self._bar.update(0, completed=self._nbytes * done // max(1, total))

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            signals.terminal.remove(SHOW_CURSOR)


def _bar(nbytes: int) -> Any:
    from rich import progress
    from rich.console import Console

    color = wants_color(sys.stderr, current().options.color)
    console = Console(stderr=True, color_system="auto" if color else None)
    columns = (
        progress.BarColumn(None),
        progress.TaskProgressColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=console, transient=True)
    signals.terminal.append(SHOW_CURSOR)
    bar.start()
    bar.add_task("", total=nbytes)
    return bar


def stdout_is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout is not None and sys.stdout.isatty()
