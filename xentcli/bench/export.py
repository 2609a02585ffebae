"""Results of a benchmark as JSON, CSV, Markdown, and tab-separated lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from xentcli import __version__
from xentcli.backends.machine import describe
from xentcli.bench.columns import COLUMNS, Result, cell


def as_json(results: Sequence[Result]) -> str:
    """One JSON object with everything, including the seconds of each round."""
    cases = [{**result.about(), "contestants": result.rows()} for result in results]
    about = {"xent": __version__, "machine": describe(), "cases": cases}
    return json.dumps(about, allow_nan=False, indent=1) + "\n"


def as_csv(results: Sequence[Result]) -> str:
    """One line for each contestant of each case, with all digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = results[0].columns if results else ()
    writer.writerow(["case", *columns, "why_not"])
    for result in results:
        for row in result.rows():
            writer.writerow([result.title, *(row[name] for name in columns), row["why_not"]])
    return stream.getvalue()


def as_markdown(results: Sequence[Result]) -> str:
    """A table for each case."""
    return "\n".join(_markdown(result) for result in results)


def _markdown(result: Result) -> str:
    head = " | ".join(COLUMNS[name][0] for name in result.columns)
    lines = [f"**{result.title}**; {result.words()}", "", f"| {head} |"]
    lines.append("|" + "---|" + "---:|" * (len(result.columns) - 1))
    lines += [f"| {' | '.join(_cells(result, row))} |" for row in result.rows()]
    return "\n".join(lines) + "\n"


def _cells(result: Result, row: dict[str, Any]) -> list[str]:
    """A row; the reason why somebody was not timed is in place of the first number."""
    cells = [cell(name, row[name]) for name in result.columns]
    return [cells[0], row["why_not"], *cells[2:]] if row["why_not"] else cells


def as_lines(result: Result) -> str:
    """Tab-separated lines, for pipes."""
    lines = [f"# {result.title}; {result.words()}", "\t".join(result.columns)]
    for row in result.rows():
        cells = [cell(name, row[name]) or "-" for name in result.columns]
        lines.append("\t".join([*cells, *([row["why_not"]] if row["why_not"] else [])]))
    return "\n".join(lines) + "\n"
