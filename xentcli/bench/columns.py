"""The columns of a table of the benchmark: names, titles, and how a number is written."""

from __future__ import annotations

from typing import Any, Protocol

# Title and format of each column.
COLUMNS = {
    "who": ("", "{}"),
    "median_ms": ("ms", "{:.1f}"),
    "min_ms": ("min", "{:.1f}"),
    "max_ms": ("max", "{:.1f}"),
    "cpu_ms": ("CPU", "{:.1f}"),
    "peak_mb": ("peak MB", "{:.0f}"),
    "gb_per_s": ("GB/s", "{:.1f}"),
    "of_the_limit": ("of limit", "{:.0%}"),
    "times_ours": ("× xent", "{:.2f}"),
    "loss_ulp": ("loss ULP", "{:.3g}"),
    "grad_ulp": ("grad ULP", "{:.3g}"),
}
OF_PROCESSES = ("who", "median_ms", "min_ms", "max_ms", "cpu_ms", "peak_mb", "times_ours")
OF_CALLS = tuple(name for name in COLUMNS if name not in ("cpu_ms", "peak_mb"))


class Result(Protocol):
    """A case and its table. A row has a value for each column or None, and also `why_not`, the
    reason why somebody was not timed, and `seconds`, those of each round."""

    @property
    def title(self) -> str:
        """The case in words."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""

    def words(self) -> str:
        """A sentence on how it was measured."""

    def about(self) -> dict[str, Any]:
        """The facts for JSON, besides the table."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows; the first is that of xent."""


def cell(name: str, value: Any) -> str:
    """A number as shown in tables.

    >>> cell("of_the_limit", 0.567), cell("median_ms", None), cell("min_ms", 0.56789)
    ('57%', '', '0.568')
    """
    if name.endswith("_ms") and value is not None and value < 10:
        return f"{value:.3f}"
    return "" if value is None else COLUMNS[name][1].format(value)
