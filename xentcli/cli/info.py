"""`xent info` and `xent completion`."""

from __future__ import annotations

import click

from xentcli.cli.command import command
from xentcli.cli.console import show, stdout_is_terminal, write_stdout
from xentcli.cli.declare import argument
from xentcli.cli.options import JsonOption
from xentcli.errors import UnavailableError
from xentcli.records import dataclass

SHELLS = ("bash", "zsh", "fish", "powershell")


@command(
    "info",
    examples=["xent info", "xent info --json"],
)
def info(form: JsonOption) -> None:
    """Show versions, CPU, threads, backends and the cache folder."""
    from xentcli.backends.machine import describe

    facts = describe()
    if form.as_json:
        from xentcli.files.json import dumps

        write_stdout(dumps(facts))
    elif stdout_is_terminal():
        from xentcli.cli.tables import facts_table

        show(lambda width: facts_table(facts))
    else:
        write_stdout("".join(f"{name}\t{value}\n" for name, value in facts.items()))


@dataclass(frozen=True, kw_only=True)
class Shell:
    """The shell that the script is for."""

    shell: str = argument("SHELL", type=click.Choice(SHELLS))


@command(
    "completion",
    examples=[
        "xent completion bash > ~/.local/share/bash-completion/completions/xent",
        "xent completion zsh > ~/.zfunc/_xent",
        "xent completion fish > ~/.config/fish/completions/xent.fish",
    ],
)
def completion(shell: Shell) -> None:
    """Print the completion script of a shell: bash, zsh, fish or powershell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell.shell)
    if kind is None:
        what = "this version of click cannot generate it"
        raise UnavailableError(shell.shell, what, "it needs click 8.5 or later")
    root = click.get_current_context().find_root().command
    write_stdout(kind(root, {}, "xent", "_XENT_COMPLETE").source())
