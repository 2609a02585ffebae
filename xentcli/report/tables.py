"""Tables that documents of reports and of calibrations share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xentcli.display.chart import Chart
from xentcli.display.document import Column, Formula, Step
from xentcli.display.latex import escaped
from xentcli.errors import plural
from xentcli.report.bins import Bin
from xentcli.report.statistic import Statistic


def column(title: str, values: Iterable[Any], **more: Any) -> Column:
    """A column with a title in words."""
    return Column(Formula(title, rf"\text{{{escaped(title)}}}"), tuple(values), **more)


def statistics_step(
    title: str, labels: tuple[str, ...], items: Sequence[Statistic], remarks: tuple[str, ...] = ()
) -> Step:
    """Statistics with their errors and intervals."""
    intervals = [item.interval or (None, None) for item in items]
    columns = [column("value", [item.value for item in items])]
    if any(item.se is not None for item in items):
        columns.append(column("± se", [item.se for item in items]))
    if any(item.interval for item in items):
        columns.append(column("95 % from", [low for low, _ in intervals]))
        columns.append(column("to", [high for _, high in intervals]))
    return Step(title, heading="statistic", labels=labels, columns=tuple(columns), remarks=remarks)


def bins_step(title: str, bins: Sequence[Bin], kind: str, chart: Chart) -> Step:
    """The calibration bins; `kind` says how they were made."""
    columns = (
        column("rows", [item.n for item in bins]),
        column("confidence", [item.confidence for item in bins]),
        column("accuracy", [item.accuracy for item in bins], bar="fraction"),
        column("from", [item.interval[0] if item.interval else None for item in bins]),
        column("to", [item.interval[1] if item.interval else None for item in bins]),
    )
    digits = 2 if kind == "equal width" else 4
    return Step(
        title,
        heading="bin",
        labels=tuple(f"{item.low:.{digits}f}–{item.high:.{digits}f}" for item in bins),
        columns=columns,
        remarks=(
            f"{plural(len(bins), 'bin')} with rows, of {kind}; from, to: 95 % interval of the "
            "accuracy, which the bars show.",
        ),
        charts=(chart,),
    )
