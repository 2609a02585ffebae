"""Where the table of `xent bench` goes, and the earlier one that it is compared with."""

from __future__ import annotations

from pathlib import PurePath

import click

from xentcli.cli.declare import option
from xentcli.cli.options import JsonOption, NoClobberOption
from xentcli.errors import OptionError, visible
from xentcli.records import dataclass


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    """Comparison with an earlier run."""

    baseline: str | None = option(
        None,
        "Compare with a table that -o FILE.json wrote; exit 1 if xent has become slower.",
        group="Comparison",
        metavar="FILE",
        file=True,
    )
    fail_above: float = option(
        1.2,
        "How many times as long as in the baseline is too slow; times are compared in units of "
        "what was measured beside them.",
        group="Comparison",
        type=click.FloatRange(0, min_open=True),
        metavar="F",
    )


FORMATS = {"json": "json", "csv": "csv", "md": "markdown"}  # by suffix


@dataclass(frozen=True, kw_only=True)
class ExportOptions(JsonOption, NoClobberOption):
    """Files for the table; `export_…` are the names that these options had in 0.1."""

    output: tuple[str, ...] = option(
        (),
        "Write the table to PATH, in the format of its suffix (json, csv, md) or of --format; may "
        "be repeated.",
        "-o",
        "--output",
        group="Output",
        metavar="PATH",
        multiple=True,
        file=True,
    )
    format: str | None = option(
        None,
        "Format of the output; by default from its suffix.",
        "-f",
        "--format",
        group="Output",
        type=click.Choice(tuple(FORMATS.values())),
    )
    export_json: str | None = option(
        None, "Write the table as JSON.", group="Output", metavar="PATH", file=True, hidden=True
    )
    export_csv: str | None = option(
        None, "Write the table as CSV.", group="Output", metavar="PATH", file=True, hidden=True
    )
    export_markdown: str | None = option(
        None, "Write the table as Markdown.", group="Output", metavar="PATH", file=True, hidden=True
    )

    def wanted(self) -> list[tuple[str, str]]:
        """Where the table goes, and in which format."""
        named = {"json": self.export_json, "csv": self.export_csv, "markdown": self.export_markdown}
        found = [(path, form) for form, path in named.items() if path]
        found += [(path, self.format or _format_of(path)) for path in self.output]
        return found + ([("-", "json")] if self.as_json else [])


def _format_of(path: str) -> str:
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        what = f"{visible(path)}: unknown suffix; expected json, csv or md"
        raise OptionError("output", what, "--format markdown")
    return FORMATS[suffix]
