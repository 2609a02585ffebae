"""The result of `report`: numbers with their errors, and the tables that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Any

from xentcli.engine.notes import Note
from xentcli.records import dataclass
from xentcli.report.along import Segment
from xentcli.report.bins import Bin
from xentcli.report.classes import ClassResult, Confusion
from xentcli.report.statistic import Statistic
from xentcli.report.worst import WorstRow


@dataclass(frozen=True)
class Histogram:
    """How many rows have a value from each edge to the next."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Ranks:
    """The lowest rank of each target, counted from 0.

    `tied` is the number of rows where another class has the same logit as the target.
    """

    quantiles: Mapping[str, float]
    tied: int
    histogram: Histogram


@dataclass(frozen=True)
class Report:
    """What logits and targets say about a model.

    `rows` are all rows, `ignored` of them are left out, `nonfinite` have a loss that is NaN or
    infinite. `statistics` are by name; what is not defined or was not asked for is absent.
    `sample` are pairs of losses (base, model), for a picture.
    """

    rows: int
    ignored: int
    nonfinite: int
    groups: int
    statistics: Mapping[str, Statistic]
    bins: tuple[Bin, ...] = ()
    binning: str = "width"
    classes: tuple[ClassResult, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    worst: tuple[WorstRow, ...] = ()
    ranks: Ranks | None = None
    nll_histogram: Histogram | None = None
    along: tuple[Segment, ...] = ()
    sample: tuple[tuple[float, float], ...] = ()
    backend: str = "numpy"
    notes: tuple[Note, ...] = field(default=())

    def __getitem__(self, name: str) -> Statistic:
        """A statistic by name."""
        return self.statistics[name]

    def facts(self) -> dict[str, Any]:
        """The report as one object for JSON; what is absent is not in it."""
        tables: dict[str, Any] = {
            "bins": [item.facts() for item in self.bins],
            "binning": self.binning if self.bins else None,
            "classes": [_present(asdict(item)) for item in self.classes],
            "confusion": [asdict(item) for item in self.confusion],
            "worst": [_present(asdict(item)) for item in self.worst],
            "ranks": asdict(self.ranks) if self.ranks else None,
            "nll_histogram": asdict(self.nll_histogram) if self.nll_histogram else None,
            "along": [_present(asdict(item)) for item in self.along],
        }
        return {
            "rows": self.rows,
            "ignored": self.ignored,
            "nonfinite": self.nonfinite,
            **({"groups": self.groups} if self.groups else {}),
            "statistics": {name: item.facts() for name, item in self.statistics.items()},
            **{name: table for name, table in tables.items() if table},
            "backend": self.backend,
        }


def _present(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
