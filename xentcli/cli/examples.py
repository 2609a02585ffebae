"""`xent examples`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xentcli.cli.command import command
from xentcli.cli.console import inform
from xentcli.cli.declare import argument, option
from xentcli.cli.publish import FORMS, DocumentOptions, publish
from xentcli.errors import DataError, FileError, OptionError, plural, visible
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.examples.example import Example, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class ExampleName:
    """The example to show."""

    name: str | None = argument("[NAME]", required=False, type=click.STRING)


@dataclass(frozen=True, kw_only=True)
class ExampleOptions:
    """What to do with the examples."""

    check: bool = option(
        False,
        "Compare all published figures; the exit code is 1 if one differs.",
        group="Example",
        is_flag=True,
    )
    write: str | None = option(
        None,
        "Write the input files to DIR, as .npy and .csv.",
        group="Example",
        metavar="DIR",
        file=True,
    )
    steps: int | None = option(
        None,
        "Number of training steps (updates); 50 by default.",
        group="Example",
        type=click.IntRange(1, 100_000),
        metavar="N",
    )
    lr: float | None = option(
        None,
        "Learning rate; 0.1 by default.",
        group="Example",
        type=float,
        metavar="F",
    )


@dataclass(frozen=True, kw_only=True)
class ExampleDocument(DocumentOptions):
    """The format of the document; the training example can be CSV too."""

    format: str | None = option(
        None,
        "Format of the output; by default rich on a terminal, else plain.",
        "-f",
        "--format",
        group="Output",
        type=click.Choice([*FORMS, "csv"]),
    )


@command(
    "examples",
    examples=[
        "xent examples",
        "xent examples three-class",
        "xent examples training --steps 100 --lr 0.2 --format csv",
    ],
)
def examples(which: ExampleName, options: ExampleOptions, document: ExampleDocument) -> None:
    """Recompute published worked examples, and compare every figure.

    Without NAME, list all examples.
    """
    from xentcli.examples import all_examples, find
    from xentcli.examples.documents import list_document

    chosen = [find(which.name)] if which.name else all_examples()
    settings = _settings(options, which.name)
    if options.write is not None:
        _write(chosen, Path(options.write), no_clobber=document.no_clobber)
    elif options.check:
        _check(chosen, document)
    elif which.name:
        _show(chosen[0], settings, document)
    else:
        publish(list_document(chosen), document)


def _settings(options: ExampleOptions, name: str | None) -> TrainingSettings:
    from xentcli.examples.example import TrainingSettings

    given = {"steps": options.steps, "lr": options.lr}
    asked = [option for option, value in given.items() if value is not None]
    if asked and name != "training":
        raise OptionError(
            asked[0], "applies to the training example only", "xent examples training"
        )
    if options.lr is not None and not math.isfinite(options.lr):
        raise OptionError("lr", f"{options.lr} is not allowed; expected a finite number")
    default = TrainingSettings()
    return TrainingSettings(
        default.steps if options.steps is None else options.steps,
        default.lr if options.lr is None else options.lr,
    )


def _show(example: Example, settings: TrainingSettings, document: DocumentOptions) -> None:
    from xentcli.examples.documents import example_document
    from xentcli.examples.example import ComputedExample

    publish(example_document(ComputedExample(example, settings), document.decimals), document)


def _check(chosen: list[Example], document: DocumentOptions) -> None:
    from xentcli.examples.documents import check_document

    report, wrong = check_document(chosen)
    publish(report, document)
    if wrong:
        what = f"{plural(len(wrong), 'figure')} not reproduced: {', '.join(wrong)}"
        raise DataError("examples", what)


def _write(chosen: list[Example], folder: Path, *, no_clobber: bool) -> None:
    from xentcli.files.opening import save
    from xentcli.files.options import WriteOptions
    from xentcli.files.outputs import Outputs

    with Outputs(no_clobber=no_clobber) as outputs:
        count = 0
        for example in chosen:
            _make(folder / example.name)
            for name, array in example.files.items():
                for kind in ("npy", "csv"):
                    sink = outputs.open(str(folder / example.name / f"{name}.{kind}"))
                    save(sink, array, WriteOptions(kind, key=name))
                    count += 1
    what = f"{plural(count, 'file')} for {plural(len(chosen), 'example')}"
    inform(f"wrote {what} to {visible(str(folder))}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot create the directory: {error.strerror}"
        raise FileError(visible(str(folder)), what) from error
