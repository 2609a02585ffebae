"""The command line: options become objects, objects go to the library, results are printed.

`main` is the one place where errors become messages and exit codes. Command modules import
click and nothing heavier, so that `xent --help` is quick; what computes is imported in the
functions that need it.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from xentcli import __version__
from xentcli.cli import failures, help
from xentcli.cli.console import write_stderr
from xentcli.cli.session import Session, from_environment
from xentcli.cli.streams import safe_streams
from xentcli.errors import FileError, XentError, lacks_memory, visible
from xentcli.signals import Stopped, die

SETTINGS = {"help_option_names": ["-h", "--help"]}
# Each command: the module that holds it, which is imported when it is needed, and its line in the
# list of commands.
COMMANDS = {
    "grad": ("losses", "Compute the gradient with respect to the logits, and the loss."),
    "loss": ("losses", "Compute the loss only."),
    "softmax": ("losses", "Compute probabilities, or log-probabilities with --log."),
    "explain": ("explain", "Derive one row's gradient, step by step."),
    "examples": ("examples", "Recompute published worked examples."),
    "check": ("check", "Check a gradient (and loss) that another program computed."),
    "report": ("report", "Report perplexity, accuracy, calibration and more, with errors."),
    "calibrate": ("calibrate", "Find the temperature that fits best, with its interval."),
    "inspect": ("inspect", "Show shape, dtype and memory order of array files."),
    "bench": ("bench", "Benchmark against memory bandwidth and other libraries."),
    "compile": ("compile", "Compile the CPU kernels ahead, for images and clusters."),
    "info": ("info", "Show versions, CPU, threads, backends and the cache folder."),
    "completion": ("info", "Print a shell completion script."),
    "help": ("pages", "Show the help of a command."),
    "man": ("pages", "Print the manual page."),
}
EXAMPLES = (
    "xent grad logits.npy targets.npy -o grad.npy",
    "cat logits.npy | xent loss - targets.npy --label-smoothing 0.1",
    "xent inspect logits.npy",
)


class ClosedPipe(BaseException):
    """The reader of stdout is gone. Click would turn a BrokenPipeError into exit code 1."""


class LazyCommands(dict[str, click.Command]):
    """The commands by name; each is imported when it is asked for."""

    def __init__(self) -> None:
        super().__init__({name: click.Command(name) for name in COMMANDS})

    def __getitem__(self, name: str) -> click.Command:
        module, line = COMMANDS[name]
        command: click.Command = getattr(import_module(f"xentcli.cli.{module}"), name)
        command.short_help = line
        return command

    def get(self, name: str, default: Any = None) -> Any:
        """The command, or the default if there is none of that name."""
        return self[name] if name in COMMANDS else default


class Xent(click.Group):
    """The group of all commands; turns a closed pipe into `ClosedPipe`."""

    context_class = help.Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line for each command, without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse; `--help` is printed here."""
        with _pipe_watched():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _pipe_watched():
            return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does, examples, and the rest of the text."""
        help.write_page(formatter, self.help or "", EXAMPLES)


@contextmanager
def _pipe_watched() -> Iterator[None]:
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise ClosedPipe from error


@click.group(cls=Xent, commands=LazyCommands(), context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version", message="xent %(version)s")
def cli() -> None:
    """Softmax cross-entropy and its gradient, from files and pipes.

    Every option --some-name of any command can also be set by the environment variable
    XENT_SOME_NAME; for one that takes no value, to 1.

    Exit codes: 0 done, 1 invalid data or a difference found, 2 wrong usage, 3 something is not
    available, 4 reading or writing failed, 70 a bug.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and end the process."""
    with safe_streams():
        try:
            code = _run(arguments, Session())
        except ClosedPipe:
            die(getattr(signal, "SIGPIPE", signal.SIGTERM))
        except Stopped as stopped:
            die(stopped.number)
        if code:
            _drop_stdout()
        sys.exit(code)


def _run(arguments: list[str] | None, session: Session) -> int:
    try:
        code = cli.main(arguments, prog_name="xent", standalone_mode=False, obj=session)
    except click.exceptions.NoArgsIsHelpError as error:
        write_stderr(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        return _usage(error, session)
    except click.exceptions.Exit as error:
        return error.exit_code
    except XentError as error:
        return failures.report(error, session)
    except Exception as error:  # noqa: BLE001 (whatever it is, it gets a message)
        return _unforeseen(error, session)
    return code or 0  # Click returns the command's exit code


def _drop_stdout() -> None:
    """Discard unwritten output of a failed command."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, FileError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _usage(error: click.UsageError, session: Session) -> int:
    if isinstance(error, click.exceptions.NoSuchCommand | click.exceptions.NoSuchOption):
        where = "command line"
    else:
        where = error.ctx.command_path if error.ctx else "command line"
    message = " ".join(error.format_message().split())
    failures.line("error", f"{where}: {message}{_choice(message)}{_variable(error)}", session)
    if error.ctx:
        failures.line("hint", f"{error.ctx.command_path} --help", session)
    return error.exit_code


def _choice(message: str) -> str:
    """The choice that was probably meant."""
    found = re.search(r": '(.*)' is not one of (.*)\.$", message)
    if not found:
        return ""
    from difflib import get_close_matches

    near = get_close_matches(found[1], re.findall("'([^']*)'", found[2]), 1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _variable(error: click.UsageError) -> str:
    """Where a wrong value comes from, if not from the command line."""
    parameter = getattr(error, "param", None)
    if parameter is None or error.ctx is None:
        return ""
    variable = from_environment(error.ctx).get(parameter.name)
    return f" It was set by the environment variable {variable}." if variable else ""


def _unforeseen(error: Exception, session: Session) -> int:
    """The message for an error that is not xent's own: of the system, or a bug in xent."""
    if lacks_memory(error):
        return failures.report(FileError("xent", "not enough memory"), session)
    if isinstance(error, OSError):
        where = visible(os.fsdecode(error.filename)) if error.filename else "xent"
        return failures.report(FileError(where, error.strerror or str(error)), session)
    failures.trace(error, session)
    failures.line("error", f"bug in xent {__version__}: {type(error).__name__}: {error}", session)
    hint = "please report it, with the output of the same command and --debug"
    failures.line("hint", hint, session)
    return 70
