"""The state of one run of the command line: its settings, and the names of its inputs."""

from __future__ import annotations

import os
from dataclasses import field, replace
from typing import Any, Literal, TypeAlias

import click

from xentcli.cli.declare import option
from xentcli.errors import SafeText, Setting, Words
from xentcli.records import dataclass

Color: TypeAlias = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Options of every command that change nothing about its result."""

    quiet: bool = option(
        False, "Print errors only.", "-q", "--quiet", group="General", is_flag=True
    )
    color: Color = option(
        "auto",
        "Colour; auto uses it on terminals unless NO_COLOR is set.",
        group="General",
        type=click.Choice(["auto", "always", "never"]),
        is_eager=True,
    )
    debug: bool = option(
        False, "Show tracebacks of errors.", group="General", is_flag=True, is_eager=True
    )


@dataclass
class Session:
    """The options as far as they are parsed, and the names of the inputs by their role.

    `class_names` are those given, or of the columns of the logits; `remarks` are those on inputs
    that were read whole, such as weights.
    """

    options: SessionOptions = field(default_factory=SessionOptions)
    names: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    remarks: dict[str, tuple[Words, ...]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # what set which option, by its name

    def remember(self, name: str, value: Any) -> None:
        """Set one of the options."""
        self.options = replace(self.options, **{name: value})

    def called(self, where: str) -> str:
        """An argument of the library as the user called it: the file's name, or the option."""
        if isinstance(where, SafeText):
            return where  # a file of the same name as an argument
        flag = FLAGS.get(where)
        variable = self.variables.get(where)
        set_by = f" (set by {variable})" if flag and variable else ""
        return self.names.get(where) or f"{flag or where}{set_by}"


TAB = r"$'\t'"  # as a shell takes it
FLAGS: dict[str, str] = {}  # what the command line calls each argument of the library


def as_flag(setting: Setting) -> str:
    """An option inside a message, as a user types it.

    >>> as_flag(Setting("ignore_index", 255)), as_flag(Setting("no_clobber", True))
    ('--ignore-index 255', '--no-clobber')
    >>> as_flag(Setting("delimiter", ";"))
    "--delimiter ';'"
    """
    flag = FLAGS.get(setting.name, "--" + setting.name.replace("_", "-"))
    if setting.value is None or setting.value is True:
        return flag
    from shlex import quote  # for messages alone

    return f"{flag} {TAB if setting.value == chr(9) else quote(str(setting.value))}"


def current() -> Session:
    """The session of the command that runs."""
    session: Session = click.get_current_context().find_root().ensure_object(Session)
    return session


def from_environment(ctx: click.Context) -> dict[str, str]:
    """The environment variables that set options of a command, by the name of the option."""
    found = {}
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name and source is click.core.ParameterSource.ENVIRONMENT:
            variables = parameter.envvar or ""
            names = [variables] if isinstance(variables, str) else variables
            found[parameter.name] = next((n for n in names if os.environ.get(n)), names[0])
    return found


def require_no_ignore_index(value: int, *, probs: bool) -> None:
    """An error for --ignore-index beside probabilities, of its default value too."""
    given = click.get_current_context().get_parameter_source("ignore_index")
    if probs and given is click.core.ParameterSource.COMMANDLINE:
        from xentcli.engine.targets import no_ignore_index

        raise no_ignore_index(value)


def remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """A callback for Click: keep an option of the session as soon as it is parsed."""
    assert parameter.name
    ctx.find_root().ensure_object(Session).remember(parameter.name, value)
    return value
