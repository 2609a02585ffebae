"""The command line: declare, build objects, call, print.

`main` is the one place where errors become messages and exit codes. Command modules import
click and nothing heavier, so that `xent --help` is quick; what computes is imported in the
functions that need it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from xentcli import __version__
from xentcli.cli import bench, check, examples, explain, info, inspect, losses
from xentcli.cli.console import State, tell, wants_color
from xentcli.cli.options import called
from xentcli.errors import FileError, XentError, visible
from xentcli.signals import die

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class ClosedPipe(BaseException):
    """Nobody reads what is written. Click would make an exit code 1 of a BrokenPipeError."""


class Xent(click.Group):
    """The group of all commands, with a closed pipe told apart."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse; `--help` is printed here."""
        with _pipe_watched():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _pipe_watched():
            return super().invoke(ctx)


@contextmanager
def _pipe_watched() -> Iterator[None]:
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise ClosedPipe from error


@click.group(cls=Xent, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version", message="xent %(version)s")
def cli() -> None:
    """Softmax cross-entropy and its gradient, from files and pipes.

    \b
    xent grad logits.npy targets.npy -o grad.npy
    cat logits.npy | xent loss - targets.npy --label-smoothing 0.1
    xent inspect logits.npy

    Any option --some-name can be set by the variable XENT_SOME_NAME.
    """


for command in (
    losses.grad,
    losses.loss,
    losses.softmax,
    explain.explain,
    examples.examples,
    check.check,
    inspect.inspect,
    bench.bench,
    info.info,
    info.completion,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and end the process."""
    try:
        code = _run(arguments, {})
    except ClosedPipe:
        die(getattr(signal, "SIGPIPE", signal.SIGTERM))
    if code:
        _drop_stdout()
    sys.exit(code)


def _run(arguments: list[str] | None, state: State) -> int:
    try:
        code = cli.main(arguments, prog_name="xent", standalone_mode=False, obj=state)
    except click.exceptions.NoArgsIsHelpError as error:
        tell(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        return _usage(error, state)
    except click.exceptions.Exit as error:
        return error.exit_code
    except XentError as error:
        return _report(error, state)
    except MemoryError:
        return _report(FileError("xent", "there is not enough memory"), state)
    except OSError as error:
        where = visible(os.fsdecode(error.filename)) if error.filename else "<stdout>"
        return _report(FileError(where, error.strerror or str(error)), state)
    except Exception as error:  # noqa: BLE001 (the last line of defence: a bug in xent)
        return _bug(error, state)
    return code or 0  # Click hands on what a command exits with


def _drop_stdout() -> None:
    """What a failed command has not written yet is not wanted any more."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _usage(error: click.UsageError, state: State) -> int:
    if isinstance(error, click.exceptions.NoSuchCommand | click.exceptions.NoSuchOption):
        where = "command line"
    else:
        where = error.ctx.command_path if error.ctx else "command line"
    _line("error", f"{where}: {visible(' '.join(error.format_message().split()))}", state)
    if error.ctx:
        _line("hint", f"{error.ctx.command_path} --help", state)
    return error.exit_code


def _report(error: XentError, state: State) -> int:
    _trace(state)
    _line("error", f"{called(error.where, state)}: {error.what}", state)
    if error.hint:
        _line("hint", error.hint, state)
    return error.exit_code


def _trace(state: State) -> None:
    if state.get("debug"):
        import traceback

        traceback.print_exc()


def _bug(error: Exception, state: State) -> int:
    _trace(state)
    text = visible(f"{type(error).__name__}: {error}")
    _line("error", f"this is a bug in xent {__version__}: {text}", state)
    _line("hint", "please report it with the output of the same command with --debug", state)
    return 70


def _line(kind: str, text: str, state: State) -> None:
    word = {"error": "xent: error:", "hint": "hint:"}[kind]
    if sys.stderr and wants_color(sys.stderr, state.get("color", "auto")):
        word = click.style(word, fg="red" if kind == "error" else "yellow", bold=True)
    tell(f"{word} {text}")
