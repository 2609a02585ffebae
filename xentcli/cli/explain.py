"""`xent explain`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import click

from xentcli.cli.command import command
from xentcli.cli.declare import argument, option
from xentcli.cli.inputs import InputPaths, loss_paths, loss_reading, open_inputs
from xentcli.cli.options import DtypeName, LossReading
from xentcli.cli.publish import DocumentOptions, Publication, announce
from xentcli.cli.session import require_no_ignore_index
from xentcli.cli.summary import emit_notes
from xentcli.cli.table_options import class_names
from xentcli.cli.teacher import TeacherFiles, with_teacher
from xentcli.cli.upstream import NUMBER
from xentcli.errors import OptionError, visible
from xentcli.options import LossOptions, TeacherOptions
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.cli.inputs import Inputs
    from xentcli.display.document import Document
    from xentcli.explain import Derivation
    from xentcli.explain.class_selection import DisplayOptions
    from xentcli.files.reader import InMemoryReader


def _numbers(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    if text is None:
        return None
    parts = _parts(text)
    wrong = [part for part in parts if not re.fullmatch(NUMBER, part)]
    if wrong:
        raise click.BadParameter(
            f"'{visible(wrong[0])}' is not a number; expected numbers such as 1,2,3"
        )
    return parts


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


@dataclass(frozen=True, kw_only=True)
class ExplainInputs(LossReading, TeacherFiles):
    """The inputs of a loss; logits and targets may be given on the command line instead."""

    logits: str | None = argument("[LOGITS]", required=False)
    targets: str | None = argument("[TARGETS]", required=False)
    dtype: DtypeName = option(
        "auto",
        "Dtype that text, and arrays of dtype V2, are read as.",
        group="Input",
        type=click.Choice(get_args(DtypeName)),
    )


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Which row is explained, and how much of it is shown."""

    row: int = option(0, "Index of the row, starting at 0.", group="Row", type=int, metavar="INT")
    values: tuple[str, ...] | None = option(
        None,
        "Logits of a single row, instead of files.",
        "--logits",
        group="Row",
        metavar="X,X,…",
        callback=_numbers,
    )
    target: str | None = option(
        None,
        "Class index for --logits, or a name in --names, or one probability per class: 0.2,0.8.",
        group="Row",
        metavar="Y",
    )
    brief: bool = option(
        False, "Show the result only, without the steps.", group="Row", is_flag=True
    )
    top: int | None = option(
        None,
        "Show the K classes with the largest gradients and sum up the rest; by default 10 if there "
        "are more than 20.",
        group="Row",
        type=click.IntRange(1),
        metavar="K",
    )


@command(
    "explain",
    examples=[
        "xent explain --logits 1,2,3 --target 0 --names cat,dog,bird",
        "xent explain logits.npy targets.npy --row 7 --label-smoothing 0.1",
        "xent explain logits.npy targets.npy -o explained.html",
    ],
)
def explain(
    which: RowOptions,
    document: DocumentOptions,
    options: LossOptions,
    soft: TeacherOptions,
    sources: ExplainInputs,
) -> None:
    """Derive the gradient of one row, step by step.

    LOGITS and TARGETS are files as for xent grad. Only this row's logits are read, but all
    targets and weights, to compute the denominator of the mean.
    """
    from xentcli.explain.class_selection import DisplayOptions
    from xentcli.files.outputs import Outputs

    paths, reading = _paths(sources, which, options), loss_reading(sources, sources.dtype)
    paths, reading = with_teacher(sources, soft, paths, reading)
    with Outputs(no_clobber=document.no_clobber) as outputs:
        publication = Publication(outputs, document)
        with open_inputs(paths, reading, outputs, options.class_axis) as inputs:
            emit_notes(inputs.notes(), strict=False)
            shown = DisplayOptions(inputs.class_names, which.top, document.decimals)
            made = _document(inputs, options, soft, which.row, shown)
        made = replace(made, steps=()) if which.brief else made
        publication.write(made)
    announce(made, document)


def _document(
    inputs: Inputs, options: LossOptions, soft: TeacherOptions, row: int, shown: DisplayOptions
) -> Document:
    """The document of a row, against its target or a teacher."""
    from xentcli.explain import document, from_readers, taught_document

    if inputs.teacher:
        readers = inputs.logits, inputs.targets, inputs.teacher
        taught = from_readers.derive_taught_from_readers(readers, options, soft, inputs.extras, row)
        return taught_document.to_document(taught, shown)
    return document.to_document(_derived(inputs, options, row), shown)


def _derived(inputs: Inputs, options: LossOptions, number: int) -> Derivation:
    """The derivation of one row of open inputs."""
    from xentcli.explain.from_readers import derive_from_readers

    assert inputs.targets  # nothing is written while they are read
    row = derive_from_readers(inputs.logits, inputs.targets, options, inputs.extras, number)
    probs = row.target is None and not row.ignored
    require_no_ignore_index(options.ignore_index, probs=probs)
    return row


def _paths(sources: ExplainInputs, which: RowOptions, options: LossOptions) -> InputPaths:
    """The files, or the numbers given on the command line."""
    if which.values is not None or which.target is not None:
        if sources.logits is not None:
            what = "LOGITS and TARGETS cannot be combined with --logits and --target"
            raise OptionError("command line", what)
        return loss_paths(*_inline(which, options, sources), sources)
    if sources.logits is None:
        raise OptionError(
            "command line",
            "LOGITS and TARGETS are required, or --logits and --target",
            "xent explain --logits 1,2,3 --target 0",
        )
    return loss_paths(sources.logits, sources.targets, sources)


def _inline(
    which: RowOptions, options: LossOptions, sources: ExplainInputs
) -> tuple[InMemoryReader, InMemoryReader]:
    """Numbers from the command line, as arrays of one row."""
    import numpy as np

    from xentcli.files.reader import InMemoryReader

    if which.values is None or which.target is None:
        raise OptionError("command line", "--logits and --target are both required")
    logits = np.array([which.values], dtype=np.float64)
    target = np.array(_target(which.target, sources), dtype=np.float64)
    if len(target) > 1 or options.target_kind == "probs":
        target = target[None, :]
    return InMemoryReader(logits, "--logits", "npy"), InMemoryReader(target, "--target", "npy")


def _target(text: str, sources: ExplainInputs) -> tuple[str, ...]:
    """The numbers of --target; the index of a class that it names."""
    from xentcli.files.class_names import ClassNames

    parts = _parts(text)
    wrong = next((part for part in parts if not re.fullmatch(NUMBER, part)), None)
    if wrong is None:
        return parts
    names = ClassNames(class_names(sources.names))
    if not names.names:
        what = f"'{visible(wrong)}' is not a number; expected numbers such as 1,2,3"
        raise OptionError("target", what, "--names cat,dog,… gives the classes names")
    index = names.index(text.strip())
    if index is None:
        raise names.unknown(text.strip(), "target")
    return (str(index),)
