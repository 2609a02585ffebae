"""The options for tables: delimiter, decimal mark, header, which columns, names of the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import click

from xentcli.cli.declare import option
from xentcli.errors import OptionError, visible
from xentcli.files.text.style import Header
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.files.columns import ColumnOptions
    from xentcli.files.options import ReadOptions


def _one_character(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    value = "\t" if value == r"\t" else value
    parts = value is None or (len(value) == 1 and value.isascii() and not value.isalnum())
    if not parts or value in ("+", "-", ".", '"', "\r", "\n", "\0"):
        raise click.BadParameter(
            f"{visible(value or '')!r} cannot delimit numbers: one character such as ',' or ';'"
        )
    return value


def _names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """A callback for names, patterns and numbers separated by commas; quotes as in CSV."""
    if text is None:
        return ()
    import csv  # few commands get a list

    try:
        (parts,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        parts = [""]
    if not all(part.strip() for part in parts):
        raise click.BadParameter(f"'{visible(text)}' is not a list such as a,b,c")
    return tuple(part.strip() for part in parts)


def _delimiter(what: str, *names: str) -> Any:
    words = (
        f"Field delimiter of {what}, such as ';' or '\\t'; by default a comma, or what is found."
    )
    return option(None, words, *names, group="Table", metavar="C", callback=_one_character)


def _decimal(what: str) -> Any:
    words = f"Decimal mark in {what}."
    return option(".", words, group="Table", type=click.Choice([".", ","]))


_HEADER = "Whether line 1 of the {} is a header; auto: if no cell of it is empty or a number."
_HEADERS = click.Choice(get_args(Header))


def _list(words: str, *names: str) -> Any:
    return option(None, words, *names, group="Table", metavar="LIST", callback=_names)


@dataclass(frozen=True, kw_only=True)
class LogitsTable:
    """How the logits are read from a table."""

    delimiter: str | None = _delimiter(
        "the logits, of weights and of text outputs", "-d", "--delimiter"
    )
    decimal: str = _decimal("the logits and weights; outputs have a point")
    header: Header = option("auto", _HEADER.format("logits"), group="Table", type=_HEADERS)
    columns: tuple[str, ...] = _list(
        "Columns of the logits, one per class: names, patterns such as 'logit_*', or numbers from "
        "1 such as 2-11."
    )
    drop: tuple[str, ...] = _list("Columns to leave out, named likewise.")
    names: str | None = option(
        None,
        "Class names, a,b,c or a file with one per line; by default the names of the columns. "
        "Targets may be such names.",
        group="Table",
        metavar="FILE|LIST",
        file=True,
    )


@dataclass(frozen=True, kw_only=True)
class TargetsTable:
    """How the targets are read from a table."""

    target_column: tuple[str, ...] = _list(
        "Column of the targets, in TARGETS, or in LOGITS where TARGETS is not given; several for "
        "probabilities.",
        "--target-column",
    )
    target_drop: tuple[str, ...] = _list("Columns of TARGETS to leave out.")
    target_delimiter: str | None = _delimiter("the targets")
    target_decimal: str = _decimal("the targets")
    target_header: Header = option("auto", _HEADER.format("targets"), group="Table", type=_HEADERS)


def logits_options(table: LogitsTable, options: ReadOptions) -> ReadOptions:
    """How the logits are read, with what the options say about tables."""
    from xentcli.files.columns import ColumnOptions
    from xentcli.files.text.style import TextStyle

    _require_two_signs(table.delimiter, table.decimal, "")
    style = TextStyle(table.delimiter, table.header, None, table.decimal)
    columns = ColumnOptions(table.columns, table.drop)
    _require_table(options, columns, "--raw", "--columns and --drop")
    return replace(options, style=style, columns=columns)


def targets_options(table: TargetsTable, options: ReadOptions) -> ReadOptions:
    """How the targets are read, with what the options say about tables."""
    from xentcli.files.columns import ColumnOptions
    from xentcli.files.text.style import TextStyle

    _require_two_signs(table.target_delimiter, table.target_decimal, "target-")
    style = TextStyle(
        table.target_delimiter, table.target_header, None, table.target_decimal, "target_", True
    )
    columns = ColumnOptions(table.target_column, table.target_drop)
    _require_table(options, columns, "--target-raw", "--target-column and --target-drop")
    return replace(options, style=style, columns=columns)


def _require_table(options: ReadOptions, columns: ColumnOptions, raw: str, flags: str) -> None:
    """An error for columns of a file that is no table."""
    if options.raw and (columns.keep or columns.drop):
        raise OptionError("command line", f"{flags} are for tables, and {raw} reads none")


def _require_two_signs(delimiter: str | None, decimal: str, prefix: str) -> None:
    """An error for one sign that is both."""
    if delimiter == decimal:
        what = f"--{prefix}delimiter and --{prefix}decimal are both '{decimal}'"
        raise OptionError("command line", what)


def class_names(given: str | None) -> tuple[str, ...]:
    """The names of the classes, from a list or a file; none where they are not given."""
    if given is None:
        return ()
    from xentcli.files.name_list import read_names

    return read_names(given)
