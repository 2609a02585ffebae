"""`xent info` and `xent completion`."""

from __future__ import annotations

import click

from xentcli.cli.console import emit, show, stdout_is_terminal
from xentcli.cli.options import common_options, json_option

SHELLS = ("bash", "zsh", "fish", "powershell")


@click.command(short_help="Versions, CPU, threads, backends, cache folder.")
@json_option
@common_options
def info(as_json: bool) -> None:
    """What runs here: versions, CPU, threads, backends, cache folder.

    \b
    xent info
    xent info --json
    """
    from xentcli.backends.machine import describe

    facts = describe()
    if as_json:
        from xentcli.files.json import dumps

        emit(dumps(facts))
    elif stdout_is_terminal():
        from xentcli.cli.tables import facts_table

        show(lambda width: facts_table(facts))
    else:
        emit("".join(f"{name}\t{value}\n" for name, value in facts.items()))


@click.command(short_help="Shell completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    xent completion bash > ~/.local/share/bash-completion/completions/xent
    xent completion zsh > ~/.zfunc/_xent
    xent completion fish > ~/.config/fish/completions/xent.fish
    """
    from click.shell_completion import get_completion_class

    from xentcli.errors import UnavailableError

    kind = get_completion_class(shell)
    if kind is None:
        raise UnavailableError(
            shell, "this version of click has no completion for it", "click 8.5 or later has"
        )
    root = click.get_current_context().find_root().command
    emit(kind(root, {}, "xent", "_XENT_COMPLETE").source())
