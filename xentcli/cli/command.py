"""Commands from typed functions: the options of a command are the fields of its parameters.

    @command("loss", examples=[…])
    def loss(paths: LossPaths, options: LossOptions, reading: ReadingOptions) -> None: …

Each parameter of such a function is a frozen dataclass, whose fields become Click's arguments and
options and come back as one object. So a misspelt option, and a command that lacks an option which
something else needs, are errors of the type checker.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields
from typing import Any, get_type_hints

import click

from xentcli.cli.declare import flag_of, parameter
from xentcli.cli.help import Command
from xentcli.cli.session import FLAGS, SessionOptions, current, from_environment, remember

BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def command(
    name: str, *, examples: Sequence[str]
) -> Callable[[Callable[..., int | None]], Command]:
    """A command from a function that returns its exit code, or None for 0."""

    def make(function: Callable[..., int | None]) -> Command:
        classes = get_type_hints(function)
        classes.pop("return", None)

        def parameters() -> list[click.Parameter]:
            own = [parameter(item) for cls in classes.values() for item in _declared(cls)]
            return [*own, *map(_of_session, _declared(SessionOptions))]

        return Command(
            name,
            examples=examples,
            parameters=parameters,
            callback=_callback(function, classes),
            help=inspect.getdoc(function),
        )

    return make


def _declared(cls: Any) -> tuple[Field[Any], ...]:
    """The fields of a class of options, whose flags are known from now on."""
    found = fields(cls)
    FLAGS.update({item.name: flag_of(item) for item in found if "argument" not in item.metadata})
    return found


def _of_session(item: Field[Any]) -> click.Parameter:
    made = parameter(item)
    made.callback, made.expose_value = remember, False
    return made


def _callback(
    function: Callable[..., int | None], classes: Mapping[str, Any]
) -> Callable[..., int | None]:
    """What Click calls with a value for each option: they are put into their objects."""

    def call(**values: Any) -> int | None:
        current().variables = from_environment(click.get_current_context())
        with _one_blas_thread():
            from xentcli.arrays.float_errors import ignoring_float_errors  # imports NumPy

        objects = {
            name: cls(**{item.name: values[item.name] for item in fields(cls)})
            for name, cls in classes.items()
        }
        return ignoring_float_errors(function)(**objects)

    return call


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """NumPy is imported inside, without a thread of OpenBLAS for each processor.

    Nothing here multiplies large matrices, and to start two threads takes 30 ms, half of what
    importing NumPy takes. Other processes do not inherit the setting.
    """
    if "numpy" in sys.modules or BLAS_THREADS in os.environ:
        yield
        return
    os.environ[BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[BLAS_THREADS]
