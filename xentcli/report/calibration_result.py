"""The result of `calibrate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xentcli.engine.notes import Note
from xentcli.errors import plural
from xentcli.records import dataclass
from xentcli.report.bins import Bin, calibration
from xentcli.report.calibration_rows import Evaluation, Rows
from xentcli.report.means import effective_rows
from xentcli.report.options import Method
from xentcli.report.statistic import Z95, Statistic, mean_statistic, share_statistic

ORDER = (
    *("temperature", "nll_before", "nll_after", "ece_before", "ece_after"),
    *("accuracy_before", "accuracy_after"),
)
DEFINITIONS: dict[Method, str] = {
    "temperature": "T > 0 that minimises the mean nll of softmax(logits / T)",
    "bias": "T > 0 that minimises, with biases b that sum to 0, the mean nll of "
    "softmax(logits / T + b) + 1e-6/2·Σ b²",
}
ACCURACY = "share of rows whose target has the largest logit; a tie counts in part"


@dataclass(frozen=True)
class Calibration:
    """The temperature that fits best, and with the method bias a bias for each class.

    `statistics` are temperature, and nll, accuracy and ece with _before (T = 1) and _after; with
    folds _after is that of rows which the fit has not seen, and `fold_temperatures` are those of
    the fits. `passes` is how often all rows were read.
    """

    temperature: float
    method: Method
    rows: int
    ignored: int
    nonfinite: int
    groups: int
    passes: int
    statistics: Mapping[str, Statistic]
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]
    biases: tuple[float, ...] = ()
    backend: str = "numpy"
    fold_temperatures: tuple[float, ...] = ()
    notes: tuple[Note, ...] = ()

    def __getitem__(self, name: str) -> Statistic:
        """A statistic by name."""
        return self.statistics[name]

    def facts(self) -> dict[str, Any]:
        """For JSON: what `--temperature @FILE` reads, and everything else."""
        mine = self.statistics["temperature"]
        optional = {
            "groups": self.groups,
            "biases": self.biases,
            "fold_temperatures": self.fold_temperatures,
        }
        return {
            "temperature": mine.value,
            "se": mine.se,
            "n": mine.n,
            "interval": mine.interval,
            "method": self.method,
            "definition": DEFINITIONS[self.method],
            "rows": self.rows,
            "ignored": self.ignored,
            "nonfinite": self.nonfinite,
            **{name: value for name, value in optional.items() if value},
            "statistics": {name: item.facts() for name, item in self.statistics.items()},
            "bins_before": [item.facts() for item in self.bins_before],
            "bins_after": [item.facts() for item in self.bins_after],
            "passes": self.passes,
        }


@dataclass(frozen=True)
class Fitted:
    """What a fit has found: β = 1/T with its error, biases, and the rows before and after."""

    method: Method
    beta: float
    error: float | None
    before: Evaluation
    after: Evaluation
    passes: int
    nonfinite: int
    backend: str
    biases: tuple[float, ...] = ()
    fold_temperatures: tuple[float, ...] = ()

    def calibration(self, rows: Rows) -> Calibration:
        """The result for the user."""
        found = {"temperature": self._temperature()}
        for name, item in (("before", self.before), ("after", self.after)):
            found |= {f"{key}_{name}": value for key, value in _statistics(item).items()}
        present = rows.groups and np.count_nonzero(self.before.weights.by_group()[1])
        return Calibration(
            temperature=found["temperature"].value,
            method=self.method,
            rows=rows.problem.layout.rows,
            ignored=rows.problem.ignored,
            nonfinite=self.nonfinite,
            groups=int(present),
            passes=self.passes,
            statistics={name: found[name] for name in ORDER if name in found},
            bins_before=self.before.bins.bins(),
            bins_after=self.after.bins.bins(),
            biases=self.biases,
            backend=self.backend,
            fold_temperatures=self.fold_temperatures,
            notes=self._notes(),
        )

    def _temperature(self) -> Statistic:
        """T = 1/β with the interval 1/(β ± 1.96·se(β)), infinite above where β may be 0."""
        n, beta, error = self.before.weights.count, self.beta, self.error
        words = f"{DEFINITIONS[self.method]}; se by the sandwich formula"
        if error is None or not math.isfinite(error):
            return Statistic(1 / beta, None, None, n, words)
        low, high = beta - Z95 * error, beta + Z95 * error
        interval = 1 / high, 1 / low if low > 0 else math.inf
        return Statistic(1 / beta, error / beta**2, interval, n, words)

    def _notes(self) -> tuple[Note, ...]:
        if not self.nonfinite:
            return ()
        verb = "is" if self.nonfinite == 1 else "are"
        text = f"the loss of {plural(self.nonfinite, 'row')} {verb} not finite; left out"
        return (Note("logits", text, strict=True),)


def _statistics(item: Evaluation) -> dict[str, Statistic]:
    n, accuracy = item.weights.count, item.accuracy.over(item.weights)
    found = {
        "nll": mean_statistic(item.nll.over(item.weights), n, "mean nll, in nats"),
        "accuracy": share_statistic(accuracy, effective_rows(item.weights, accuracy), n, ACCURACY),
    }
    errors = calibration(item.bins.bins(), n)
    return {**found, **({"ece": errors["ece"]} if errors else {})}
