"""`xent help` and `xent man`: the help of a command, and of all of them as a manual page."""

from __future__ import annotations

import click

from xentcli.cli import COMMANDS
from xentcli.cli.command import command
from xentcli.cli.console import write_stdout
from xentcli.cli.declare import argument
from xentcli.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Topic:
    """The command that help is wanted for."""

    command: str | None = argument("[COMMAND]", required=False, type=click.Choice(tuple(COMMANDS)))


@command("help", examples=["xent help", "xent help grad"])
def help(topic: Topic) -> None:
    """Show the help of a command; without COMMAND, the list of commands."""
    root = click.get_current_context().find_root()
    if topic.command is None:
        write_stdout(root.get_help() + "\n")
        return
    assert isinstance(root.command, click.Group)
    chosen = root.command.get_command(root, topic.command)
    assert chosen
    with chosen.make_context(
        topic.command, ["--quiet"], parent=root, resilient_parsing=True
    ) as ctx:
        write_stdout(ctx.get_help() + "\n")


@command("man", examples=["xent man | man -l -", "xent man > ~/.local/share/man/man1/xent.1"])
def man() -> None:
    """Print the manual page of all commands, for the program man."""
    from xentcli.cli.manual import manual

    write_stdout(manual(click.get_current_context().find_root()))
