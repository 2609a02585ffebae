"""`xent inspect`."""

from __future__ import annotations

from dataclasses import dataclass

from xentcli.cli.command import command
from xentcli.cli.console import show, stdout_is_terminal, write_stdout
from xentcli.cli.declare import argument, option
from xentcli.cli.inputs import logits_reading, read_once
from xentcli.cli.options import ArrayReading, JsonOption, format_option, key_option


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
) -> None:
    """Show shape, dtype, memory order, byte order and version of array files.

    A FILE may be - for standard input.
    """
    from xentcli.files.inspection import inspect_path, line

    read_once(files.paths)
    how = logits_reading(reading).logits
    found = [item for path in files.paths for item in inspect_path(path, how, options.stats)]
    if form.as_json:
        from xentcli.files.json import dumps

        write_stdout(dumps({"arrays": found}))
    elif stdout_is_terminal():
        from xentcli.cli.tables import inspection

        show(lambda width: inspection(found))
    else:
        write_stdout("".join(f"{line(item)}\n" for item in found))
