"""`xent examples`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xentcli.cli.console import say
from xentcli.cli.options import PATH, common_options, option, together
from xentcli.cli.publish import document_options, publish
from xentcli.errors import DataError, FileError, OptionError, plural, visible

if TYPE_CHECKING:
    from xentcli.examples.model import Example, Settings

STEPS = click.IntRange(1, 100_000)

example_options = together(
    option("--check", is_flag=True, help="Compare every published figure; exit 1 if one differs."),
    option("--write", metavar="DIR", type=PATH, help="Write the inputs there, as .npy and .csv."),
    option(
        "--steps",
        type=click.IntRange(1, 100_000),
        metavar="N",
        help="Of the training. [default: 51]",
    ),
    option("--lr", type=float, metavar="F", help="Rate of the training. [default: 0.1]"),
)


@click.command(short_help="The published worked examples, reproduced and compared.")
@click.argument("name", required=False)
@example_options
@document_options("csv")
@common_options
def examples(**given: Any) -> None:
    """The published worked examples, reproduced and compared.

    \b
    xent examples
    xent examples three-class
    xent examples training --steps 101 --lr 0.2 --format csv

    Without a NAME they are listed.
    """
    from xentcli.examples import all_examples, find
    from xentcli.examples.documents import listing

    chosen = [find(given["name"])] if given["name"] else all_examples()
    settings = _settings(given)
    if given["write"] is not None:
        _write(chosen, given)
    elif given["check"]:
        _check(chosen, given)
    elif given["name"]:
        _show(chosen[0], settings, given)
    else:
        publish(listing(chosen), given)


def _settings(given: dict[str, Any]) -> Settings:
    import math

    from xentcli.examples.model import Settings

    chosen = {name: given[name] for name in ("steps", "lr") if given[name] is not None}
    if chosen and given["name"] != "training":
        name = f"--{next(iter(chosen))}"
        raise OptionError(name, "belongs to the training", "xent examples training")
    if not math.isfinite(chosen.get("lr", 0.0)):
        raise OptionError("--lr", f"{chosen['lr']} is not allowed: a finite number")
    return Settings(**chosen)


def _show(example: Example, settings: Settings, given: dict[str, Any]) -> None:
    from xentcli.examples.documents import show
    from xentcli.examples.model import Worked

    document = show(Worked(example, settings), given["decimals"])
    publish(document, given)


def _check(chosen: list[Example], given: dict[str, Any]) -> None:
    from xentcli.examples.documents import checked

    document, wrong = checked(chosen)
    publish(document, given)
    if wrong:
        what = f"{plural(len(wrong), 'figure')} not reproduced: {', '.join(wrong)}"
        raise DataError("examples", what)


def _write(chosen: list[Example], given: dict[str, Any]) -> None:
    from xentcli.files.options import WriteOptions
    from xentcli.files.outputs import Outputs
    from xentcli.files.writer import save

    folder = Path(given["write"])
    with Outputs(no_clobber=given["no_clobber"]) as outputs:
        count = 0
        for example in chosen:
            _make(folder / example.name)
            for name, array in example.files.items():
                for kind in ("npy", "csv"):
                    sink = outputs.open(str(folder / example.name / f"{name}.{kind}"))
                    save(sink, array, WriteOptions(kind, key=name))
                    count += 1
    say(f"{plural(count, 'file')} of {plural(len(chosen), 'example')} -> {visible(str(folder))}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(visible(str(folder)), f"cannot be made: {error.strerror}") from error
