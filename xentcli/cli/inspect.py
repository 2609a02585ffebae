"""`xent inspect`."""

from __future__ import annotations

from typing import Any

import click

from xentcli.cli.console import emit, show, stdout_is_terminal
from xentcli.cli.inputs import read_once, text_style
from xentcli.cli.options import PATH, common_options, json_option, option, read_options


@click.command(short_help="Shape, dtype, order, byte order, version; --stats.")
@click.argument("paths", metavar="FILE...", type=PATH, nargs=-1, required=True)
@option("--stats", is_flag=True, help="Read the numbers too: smallest, largest, mean, NaN, inf.")
@read_options(targets=False)
@json_option
@common_options
def inspect(**given: Any) -> None:
    """What is in files of numbers: shape, dtype, order, byte order, version.

    \b
    xent inspect logits.npy targets.npy
    xent grad logits.npy targets.npy | xent inspect - --stats
    xent inspect batch.npz --json

    A FILE may be - for standard input.
    """
    from xentcli.files.inspection import inspect_path, line
    from xentcli.files.options import ReadOptions

    read_once(given["paths"])
    how = ReadOptions(given["input_format"], given["key"], text_style(given), "--key")
    found = [item for path in given["paths"] for item in inspect_path(path, how, given["stats"])]
    if given["as_json"]:
        from xentcli.files.json import dumps

        emit(dumps({"arrays": found}))
    elif stdout_is_terminal():
        from xentcli.cli.tables import inspection

        show(lambda width: inspection(found))
    else:
        emit("".join(f"{line(item)}\n" for item in found))
