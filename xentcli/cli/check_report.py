"""The report of `xent check` for a terminal: the verdict first, then what is wrong, then figures.

Tables too wide for the terminal become lines, so that no number is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from xentcli.check.finding import short
from xentcli.check.report import NOT_KNOWN
from xentcli.cli.session import as_flag
from xentcli.cli.tables import AROUND, new_table

if TYPE_CHECKING:
    from xentcli.check.report import Report

Rows = list[list[str]]


def check_report(report: Report, width: int) -> RenderableType:
    """The report as a rich renderable."""
    parts: list[RenderableType] = [
        Text(text, style="bold green" if right else "bold red") for text, right in report.verdicts()
    ]
    for text in report.diagnosis(as_flag):
        parts.append(Text(text, style="dim" if text == NOT_KNOWN else "yellow"))
    if report.kept_digits():
        parts.append(Text(f"Digits kept, {report.kept_digits()}."))
    if report.by_digits:
        parts.append(Text(f"Judged in {report.chosen_dtype(as_flag)}."))
    parts += [_spreads(report), _places(report, width)]
    if report.where():
        parts.append(Text(f"All wrong entries are in {report.where()}."))
    for text in filter(None, (report.nonfinite(), report.oracle_limit())):
        parts.append(Text(text))
    return Group(*parts, *_worst(report, width))


def _spreads(report: Report) -> RenderableType:
    """One column for each unit, because there are fewer of them than percentiles."""
    spreads = report.spreads()
    drawn = new_table()
    drawn.add_column("error")
    for name in spreads:
        drawn.add_column("ULP" if name == "ulp" else name, justify="right", no_wrap=True)
    for row in next(iter(spreads.values())):
        drawn.add_row(row, *(short(facts[row]) for facts in spreads.values()))
    return drawn


def _places(report: Report, width: int) -> RenderableType:
    rows = [
        [name, *map(str, report.counts(place).values()), str(place.entries), short(place.max_ulp)]
        for name, place in report.places().items()
    ]
    counted = "not exact" if report.precision == "plain" else "off"
    titles = ["where", counted, "of", "max ULP"]
    if _width([titles, *rows]) > width:
        rows = [[row[0], row[1], row[3]] for row in rows]
        titles = ["where", counted, "max ULP"]
    drawn = new_table()
    for place, title in enumerate(titles):
        drawn.add_column(title, justify="right" if place else "left", no_wrap=place > 0)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _worst(report: Report, width: int) -> list[RenderableType]:
    rows = report.worst()
    titles = ["worst: row", "class", "given", "exact", "ULP"]
    if not rows:
        return []
    if _width([titles, *rows]) > width:
        lines = []
        for row, column, given, exact, ulp in rows:
            lines += [
                f"row {row}, class {column}: {ulp} ULP",
                f"  {given} given",
                f"  {exact} exact",
            ]
        return [Text("worst", style="bold"), *map(Text, lines)]
    drawn = new_table()
    for title in titles:
        drawn.add_column(title, justify="right", no_wrap=True)
    for cells in rows:
        drawn.add_row(*cells)
    return [drawn]


def _width(rows: Rows) -> int:
    """How wide a table of these cells is."""
    columns = list(zip(*rows, strict=True))
    return sum(max(map(len, column)) for column in columns) + AROUND * (len(columns) - 1)
