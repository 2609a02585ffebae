"""`xent explain`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from xentcli.cli.inputs import NUMBER, loss_options_of, open_inputs
from xentcli.cli.options import (
    PATH,
    common_options,
    dtype_option,
    loss_options,
    option,
    read_options,
    together,
)
from xentcli.cli.publish import document_options, publish
from xentcli.errors import OptionError, visible

if TYPE_CHECKING:
    from xentcli.explain import Derivation
    from xentcli.files.reader import InMemoryReader


def _numbers(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    if text is None:
        return None
    parts = tuple(part.strip() for part in text.split(","))
    wrong = [part for part in parts if not re.fullmatch(NUMBER, part)]
    if wrong:
        raise click.BadParameter(f"'{visible(wrong[0])}' is not a number; 1,2,3 is meant")
    return parts


def _names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text is not None else ()


row_options = together(
    option("--row", type=int, default=0, show_default=True, help="Which row, counted from 0."),
    option(
        "--logits", "values", metavar="X,X,…", callback=_numbers, help="One row, instead of files."
    ),
    option(
        "--target",
        metavar="Y",
        callback=_numbers,
        help="The class of --logits, or a probability for each: 0.2,0.8.",
    ),
    option("--names", metavar="NAME,…", callback=_names, help="Of the classes, for the tables."),
    option(
        "--top",
        type=click.IntRange(1),
        metavar="K",
        help="Show K classes, the rest as one line. [default: 10 of more than 20]",
    ),
)


@click.command(short_help="The derivation of one row's gradient, step by step.")
@click.argument("logits", type=PATH, required=False)
@click.argument("targets", type=PATH, required=False)
@row_options
@document_options()
@loss_options
@read_options(targets=True)
@dtype_option
@common_options
def explain(**given: Any) -> None:
    """The derivation of one row's gradient, step by step.

    \b
    xent explain --logits 1,2,3 --target 0 --names cat,dog,bird
    xent explain logits.npy targets.npy --row 7 --label-smoothing 0.1
    xent explain logits.npy targets.npy --save explained.html

    LOGITS and TARGETS are files as for xent grad. Only the row's logits are read of them, and
    of the targets what the mean divides by.
    """
    from xentcli.explain.class_selection import View
    from xentcli.explain.document import tell

    view = View(given["names"], given["top"], given["decimals"])
    publish(tell(_derivation(given), view), given)


def _derivation(given: dict[str, Any]) -> Derivation:
    from xentcli.explain.from_readers import from_readers
    from xentcli.files.outputs import Outputs

    inline = given["values"] is not None or given["target"] is not None
    if inline:
        given = {**given, **_inline(given)}
    elif given["logits"] is None or given["targets"] is None:
        raise OptionError(
            "command line",
            "LOGITS and TARGETS are needed, or --logits and --target",
            "xent explain --logits 1,2,3 --target 0",
        )
    with open_inputs(given, Outputs()) as inputs:  # nothing is written while it is read
        assert inputs.targets
        options = loss_options_of(given)
        return from_readers(inputs.logits, inputs.targets, options, inputs.extras, given["row"])


def _inline(given: dict[str, Any]) -> dict[str, InMemoryReader]:
    """Numbers of the command line as the only row of two arrays."""
    import numpy as np

    from xentcli.files.reader import InMemoryReader

    if given["logits"] is not None:
        raise OptionError("command line", "files and --logits, --target do not go together")
    if given["values"] is None or given["target"] is None:
        raise OptionError("command line", "--logits and --target are needed both")
    logits = np.array([given["values"]], dtype=np.float64)
    target = np.array(given["target"], dtype=np.float64)
    if len(target) > 1 or given["target_kind"] == "probs":
        target = target[None, :]
    return {
        "logits": InMemoryReader(logits, "--logits", "npy"),
        "targets": InMemoryReader(target, "--target", "npy"),
    }
