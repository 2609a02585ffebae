"""The report of `xent check` for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from xentcli.check.report import Report


def check_report(report: Report, width: int) -> RenderableType:
    """The verdict, what may be wrong, and the figures."""
    return Group(*(Text(line) for line in report.lines()))
