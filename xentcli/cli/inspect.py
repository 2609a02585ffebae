"""`xent inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xentcli.cli.command import command
from xentcli.cli.console import show, stdout_is_terminal, write_stdout
from xentcli.cli.declare import argument, option
from xentcli.cli.failures import report
from xentcli.cli.inputs import logits_reading
from xentcli.cli.once import read_once
from xentcli.cli.options import ArrayReading, JsonOption, format_option, key_option
from xentcli.cli.session import current
from xentcli.errors import XentError
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.files.format import Facts, Inspected
    from xentcli.files.options import ReadOptions


@dataclass(frozen=True, kw_only=True)
class InspectPaths:
    """The files to inspect."""

    paths: tuple[str, ...] = argument("FILE...", many=True)


@dataclass(frozen=True, kw_only=True)
class InspectReading(ArrayReading):
    """How the files are read."""

    input_format: str | None = format_option("files")
    key: str | None = key_option("array")


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What to show."""

    stats: bool = option(
        False,
        "Also compute min, max, mean, and the counts of NaN and inf.",
        group="Inspect",
        is_flag=True,
    )


@command(
    "inspect",
    examples=[
        "xent inspect logits.npy targets.npy",
        "xent grad logits.npy targets.npy | xent inspect - --stats",
        "xent inspect batch.npz --json",
    ],
)
def inspect(
    files: InspectPaths, options: InspectOptions, reading: InspectReading, form: JsonOption
) -> int:
    """Show shape, dtype, memory order, byte order, version and metadata of array files.

    A FILE may be - for standard input. After a file that cannot be read the others are shown all
    the same; the exit code is then that of the first error.
    """
    read_once(files.paths)
    how = logits_reading(reading).logits
    failures = _Failures()
    found = (
        item for path in files.paths for item in failures.without(_each(path, how, options.stats))
    )
    if form.as_json:
        from xentcli.files.json import dumps

        write_stdout(dumps({"arrays": list(found)}))
        return failures.code
    for item in found:
        _print(item)
    return failures.code


def _each(path: str, how: ReadOptions, stats: bool) -> Inspected:
    """Facts, or an error, about each array of a file; an error about the file comes last."""
    from xentcli.files.inspection import inspect_path

    try:
        yield from inspect_path(path, how, stats)
    except XentError as error:
        yield error


class _Failures:
    """Prints errors where they come; `code` is the exit code of the first."""

    def __init__(self) -> None:
        self.code = 0

    def without(self, found: Inspected) -> Iterator[Facts]:
        """What is found, without the errors, which are printed."""
        for item in found:
            if isinstance(item, XentError):
                code = report(item, current())
                self.code = self.code or code
            else:
                yield item


def _print(facts: Facts) -> None:
    """One block on a terminal, one line in a pipe."""
    from xentcli.files.inspection import line

    if stdout_is_terminal():
        from xentcli.cli.tables import inspection

        show(lambda width: inspection([facts]))
    else:
        write_stdout(f"{line(facts)}\n")
