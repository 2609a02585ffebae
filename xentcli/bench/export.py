"""Results of a benchmark as JSON, CSV, Markdown, and tab-separated lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from xentcli import __version__
from xentcli.backends.machine import describe
from xentcli.bench import BenchResult

# Title and format of each column.
COLUMNS = {
    "who": ("", "{}"),
    "median_ms": ("ms", "{:.1f}"),
    "min_ms": ("min", "{:.1f}"),
    "max_ms": ("max", "{:.1f}"),
    "gb_per_s": ("GB/s", "{:.1f}"),
    "of_the_limit": ("of limit", "{:.0%}"),
    "times_ours": ("× xent", "{:.2f}"),
    "loss_ulp": ("loss ULP", "{:.3g}"),
    "grad_ulp": ("grad ULP", "{:.3g}"),
}


def cell(name: str, value: Any) -> str:
    """A number as shown in tables.

    >>> cell("of_the_limit", 0.567), cell("median_ms", None), cell("min_ms", 0.56789)
    ('57%', '', '0.568')
    """
    if name.endswith("_ms") and value is not None and value < 10:
        return f"{value:.3f}"
    return "" if value is None else COLUMNS[name][1].format(value)


def limits_words(result: BenchResult) -> str:
    """The limit, and the machine's rates, as a sentence."""
    rates = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in result.rates().items())
    limit = cell("median_ms", result.limit() * 1e3)
    return f"limit: {limit} ms; GB/s of moving as many bytes: {rates}"


def as_json(results: Sequence[BenchResult]) -> str:
    """One JSON object with everything, including the seconds of each round."""
    cases = [
        {
            "case": result.case.title(),
            "shape": list(result.case.shape),
            "dtype": result.case.dtype,
            "bytes_moved": result.case.moved,
            "limit_ms": result.limit() * 1e3,
            "limits_gb_per_s": {name: rate / 1e9 for name, rate in result.rates().items()},
            "contestants": [
                {**row, "seconds": one.seconds}
                for row, one in zip(result.rows(), result.contestants, strict=True)
            ],
        }
        for result in results
    ]
    about = {"xent": __version__, "machine": describe(), "cases": cases}
    return json.dumps(about, allow_nan=False, indent=1) + "\n"


def as_csv(results: Sequence[BenchResult]) -> str:
    """One line for each contestant of each case, with all digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", *COLUMNS, "why_not"])
    for result in results:
        for row in result.rows():
            writer.writerow([result.case.title(), *row.values()])
    return stream.getvalue()


def as_markdown(results: Sequence[BenchResult]) -> str:
    """A table for each case."""
    return "\n".join(_markdown(result) for result in results)


def _markdown(result: BenchResult) -> str:
    head = " | ".join(title for title, _ in COLUMNS.values())
    lines = [f"**{result.case.title()}**; {limits_words(result)}", "", f"| {head} |"]
    lines.append("|" + "---|" + "---:|" * (len(COLUMNS) - 1))
    for row in result.rows():
        cells = [cell(name, row[name]) for name in COLUMNS]
        if row["why_not"]:
            cells[1] = row["why_not"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_lines(result: BenchResult) -> str:
    """Tab-separated lines, for pipes."""
    lines = [f"# {result.case.title()}; {limits_words(result)}", "\t".join(COLUMNS)]
    for row in result.rows():
        cells = [cell(name, row[name]) or "-" for name in COLUMNS]
        lines.append("\t".join([*cells, *([row["why_not"]] if row["why_not"] else [])]))
    return "\n".join(lines) + "\n"
