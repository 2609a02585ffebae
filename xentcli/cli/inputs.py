"""From the paths of a command line to arrays, with the names that errors call them by."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields
from math import prod
from typing import TYPE_CHECKING, Any

from xentcli.cli.console import state
from xentcli.errors import OptionError, visible
from xentcli.options import LossOptions

if TYPE_CHECKING:
    from xentcli.arrays.dtypes import Array
    from xentcli.engine.problem import Extras
    from xentcli.files.options import ReadOptions
    from xentcli.files.outputs import Outputs
    from xentcli.files.reader import Reader
    from xentcli.files.text.style import TextStyle

NUMBER = r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|infinity)"
ROLES = ("logits", "targets", "grad", "weight", "sample_weight", "upstream", "loss")


@dataclass(frozen=True)
class Inputs:
    """The arrays of one command: what is large as readers, the rest as it is."""

    logits: Reader
    targets: Reader | None
    extras: Extras
    grad: Reader | None = None  # somebody else's, and its loss
    loss: Array | None = None


def loss_options_of(given: dict[str, Any]) -> LossOptions:
    """The command's options as one object; what a command does not have keeps its default."""
    names = {item.name for item in fields(LossOptions)}
    return LossOptions(**{name: value for name, value in given.items() if name in names})


def text_style(given: dict[str, Any]) -> TextStyle:
    """How this command reads and writes text."""
    from xentcli.files.text.style import TextStyle

    return TextStyle(given.get("delimiter"), given.get("header", False), given.get("decimals"))


@contextmanager
def open_inputs(given: dict[str, Any], outputs: Outputs) -> Iterator[Inputs]:
    """Open everything that the command names; `-` stands for standard input, once.

    Logits and targets may also be readers, of numbers from the command line.
    """
    from xentcli.engine.problem import Extras
    from xentcli.files.options import ReadOptions
    from xentcli.files.reader import load

    paths = {role: given[role] for role in ROLES if given.get(role) is not None}
    numbers = {"upstream": _number(paths.get("upstream"))}
    if numbers["upstream"] is not None:
        del paths["upstream"]
    read_once([path for path in paths.values() if isinstance(path, str)])
    outputs.protect_inputs(path for path in paths.values() if isinstance(path, str))
    state()["names"] = {role: _name(path) for role, path in paths.items()}
    style = text_style(given)
    how = ReadOptions(given["input_format"], given["key"], style, "--key", given["dtype"])
    with ExitStack() as stack:
        logits = stack.enter_context(_opened(paths.pop("logits"), how))
        targets = None
        if "targets" in paths:
            how = ReadOptions(given["target_format"], given["target_key"], style, "--target-key")
            targets = stack.enter_context(_opened(paths.pop("targets"), how))
            _tell_rows(logits, targets, given["class_axis"])
            targets = _line_as_targets(targets, logits.shape)
        grad = stack.enter_context(_open_grad(paths.pop("grad", None), given, logits))
        beside = {role: load(path, ReadOptions(style=style)) for role, path in paths.items()}
        upstream, loss = beside.pop("upstream", numbers["upstream"]), beside.pop("loss", None)
        yield Inputs(logits, targets, Extras(upstream=upstream, **beside), grad, loss)


@contextmanager
def _open_grad(path: str | None, given: dict[str, Any], logits: Reader) -> Iterator[Reader | None]:
    from xentcli.files.options import ReadOptions
    from xentcli.files.reader import open_reader

    if path is None:
        yield None
        return
    keys = given["grad_key"], text_style(given), "--grad-key", given["dtype"]
    with open_reader(path, ReadOptions(given["grad_format"], *keys)) as grad:
        _tell_rows(logits, grad, None)  # of the same shape
        yield grad


def _opened(path: str | Reader, how: ReadOptions) -> AbstractContextManager[Reader]:
    from xentcli.files.reader import open_reader

    return open_reader(path, how) if isinstance(path, str) else nullcontext(path)


def _name(path: str | Reader) -> str:
    """What messages call an input."""
    if not isinstance(path, str):
        return path.name
    return "<stdin>" if path == "-" else visible(path)


def read_once(paths: Sequence[str]) -> None:
    """Standard input and other pipes can be read only once."""
    if paths.count("-") > 1:
        raise OptionError("command line", "'-' is standard input, which can be read only once")
    pipes: set[tuple[int, int]] = set()
    for path in paths:
        identity = _pipe(path)
        if identity in pipes:
            what = f"'{visible(path)}' is a pipe, which can be read only once"
            raise OptionError("command line", what)
        if identity:
            pipes.add(identity)


def _pipe(path: str) -> tuple[int, int] | None:
    """Which pipe a path names, or None for everything else."""
    try:
        state = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116 (Path would change the name)
    except (OSError, ValueError):  # which opening it will say
        return None
    return (state.st_dev, state.st_ino) if stat.S_ISFIFO(state.st_mode) else None


def _number(text: str | None) -> float | None:
    """An upstream that is a number; else it is a file's name."""
    if text is None or not re.fullmatch(NUMBER, text):
        return None
    value = float(text)
    if not math.isfinite(value):
        raise OptionError("upstream", f"{text} is not allowed: a finite number, or a file")
    return value


def _tell_rows(logits: Reader, targets: Reader, class_axis: int | None) -> None:
    """A long table in a pipe does not say how many lines it has; the array beside it does.

    Not where the first axis is that of the classes: the other may have any length then.
    """
    from xentcli.files.reader import is_table
    from xentcli.files.text.table import TableReader

    for one, other in ((logits, targets), (targets, logits)):
        if isinstance(one, TableReader) and one.rows is None:
            if isinstance(other, TableReader) and other.rows is None:
                other.count()
            if class_axis in (0, -2):
                one.count()
                continue
            a_line = is_table(other) and other.shape[0] == 1
            one.assume(prod(other.shape) if a_line else prod(other.shape[:1]))


def _line_as_targets(targets: Reader, logits_shape: tuple[int, ...]) -> Reader:
    """A table has always two axes: one line or one column of it are class indices."""
    from xentcli.files.reader import InMemoryReader, is_table

    known = [logits_shape, *(_without(logits_shape, axis) for axis in range(len(logits_shape)))]
    if is_table(targets) and 1 in targets.shape and targets.shape not in known:
        return InMemoryReader(targets.whole().reshape(-1), targets.name, targets.format)
    return targets


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
