"""Results as rich renderables of a given width; nothing here prints or computes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xentcli.arrays.dtypes import BF16, Array, widen
from xentcli.errors import plural, visible

if TYPE_CHECKING:
    from xentcli.bench.columns import Result

ROWS = 10  # of a preview
AROUND = 3  # characters that rich puts around each cell


def new_table(title: str | None = None) -> Table:
    """An empty table in xent's style."""
    from rich import box

    return Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")


def preview(
    first: Array,
    title: str,
    shape: tuple[int, ...],
    how: tuple[int | None, int],
    names: tuple[str, ...] = (),
) -> RenderableType:
    """The first rows of an array and as many classes as fit, and how to get the rest.

    `how` is to how many decimals, and how wide; `names` are those of the classes.
    """
    values, (decimals, width) = (
        widen(first, np.dtype(np.float32)) if first.dtype == BF16 else first,
        how,
    )
    lines = list(islice(np.ndindex(shape[:-1]), ROWS))
    labels = [",".join(map(str, index)) for index in lines]
    cells = [[_number(value, decimals) for value in row[:width]] for row in values]
    numbered = [str(column) for column in range(min(shape[-1], width))]
    heads: list[str] = [visible(name) for name in names[:width]] or numbered
    room = width - max([3, *map(len, labels)]) - AROUND
    columns = min(shape[-1], _fitting(cells, heads, room))
    table = new_table()
    table.add_column("row", justify="right", style="dim", no_wrap=True)
    for column in range(columns):
        table.add_column(Text(heads[column]), justify="right", overflow="fold")
    for label, row in zip(labels, cells, strict=True):
        table.add_row(label, *row[:columns])
    rows, classes = int(np.prod(shape[:-1])), shape[-1]
    shown = f"{len(lines)} of {plural(rows, 'row')}, {columns} of {plural(classes, 'column')}."
    hint = Text(f"{shown} -o FILE saves all, -o - prints all.", style="dim")
    return Group(Text(title, style="bold"), table, hint)


def _number(value: Any, decimals: int | None) -> str:
    return f"{value:.6g}" if decimals is None else f"{value:.{decimals}f}"


def _fitting(cells: list[list[str]], heads: list[str], width: int) -> int:
    """How many columns fit below their heads; at least one."""
    columns = list(zip(*cells, strict=True))
    used, count = 0, 0
    for column, texts in enumerate(columns):
        used += max(map(len, [*texts, heads[column]])) + AROUND
        if used > width:
            break
        count += 1
    return max(1, min(count, len(columns)))


def facts_table(facts: dict[str, Any]) -> RenderableType:
    """Names and values."""
    from xentcli.files.inspection import listed

    table = new_table()
    table.show_header = False
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        shown = f"{value:.9g}" if isinstance(value, float) else str(value)
        shown = listed(value) if name == "columns" else shown
        table.add_row(name.replace("_", " "), Text(shown))
    return table


def bench_table(result: Result, width: int) -> RenderableType:
    """The benchmark table, as many columns as fit, and the libraries that were skipped."""
    from xentcli.bench.columns import COLUMNS, cell

    names = list(result.columns)
    few = ["who", "median_ms", "of_the_limit", "peak_mb", "times_ours"]
    if width < 76:
        names = [name for name in names if name in [*few, "grad_ulp"]]
    if width < 48:
        names = [name for name in names if name in few]
    table = new_table()
    for name in names:
        justify: Any = "left" if name == "who" else "right"
        table.add_column(COLUMNS[name][0], justify=justify, overflow="fold")
    absent = []
    for row in result.rows():
        if row["why_not"]:
            absent.append(f"{row['who']} {row['why_not']}")
            continue
        style = "bold" if row["who"] == "xent" else None
        table.add_row(*(cell(name, row[name]) for name in names), style=style)
    words: list[RenderableType] = [
        Text(result.title, style="bold"),
        table,
        Text(result.words()),
    ]
    return Group(*words, *([Text("; ".join(absent), style="dim")] if absent else []))


def inspection(found: list[dict[str, Any]]) -> RenderableType:
    """One block of facts for each array."""
    return Group(*(facts_table(facts) for facts in found))
