"""The calibration of logits by one temperature: passes over the rows, and what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import RunningSum
from xentcli.engine.notes import Note
from xentcli.errors import DataError, OptionError, Setting, XentError, plural
from xentcli.report.bins import Bin, calibration
from xentcli.report.calibration_rows import Evaluation, LabelledRows, Rows, same_fold
from xentcli.report.statistic import Z95, Statistic, mean_statistic, share_statistic
from xentcli.report.temperature import PASSES, Ends, Search, at_beta, limits

BINS = 15
ORDER = (
    *("temperature", "nll_before", "nll_after", "ece_before", "ece_after"),
    *("accuracy_before", "accuracy_after"),
)
DEFINITION = "T > 0 that minimises the mean nll of softmax(logits / T)"


@dataclass(frozen=True)
class Calibration:
    """The temperature that fits best.

    `statistics` are temperature, and nll, accuracy and ece with _before (T = 1) and _after; with
    folds _after is that of rows which the fit has not seen, and `fold_temperatures` are those of
    the fits. `passes` is how often all rows were read.
    """

    temperature: float
    rows: int
    ignored: int
    nonfinite: int
    groups: int
    passes: int
    statistics: Mapping[str, Statistic]
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]
    fold_temperatures: tuple[float, ...] = ()
    notes: tuple[Note, ...] = ()

    def __getitem__(self, name: str) -> Statistic:
        """A statistic by name."""
        return self.statistics[name]

    def facts(self) -> dict[str, Any]:
        """For JSON: what `--temperature @FILE` reads, and everything else."""
        mine = self.statistics["temperature"]
        return {
            "temperature": mine.value,
            "se": mine.se,
            "n": mine.n,
            "interval": mine.interval,
            "definition": DEFINITION,
            "rows": self.rows,
            "ignored": self.ignored,
            "nonfinite": self.nonfinite,
            **({"groups": self.groups} if self.groups else {}),
            "statistics": {name: item.facts() for name, item in self.statistics.items()},
            "bins_before": [item.facts() for item in self.bins_before],
            "bins_after": [item.facts() for item in self.bins_after],
            **({"fold_temperatures": self.fold_temperatures} if self.fold_temperatures else {}),
            "passes": self.passes,
        }


class _Fit:
    """The search for the best β of all rows, or of those outside of a fold."""

    def __init__(self, fold: int | None) -> None:
        self.fold = fold
        self.search: Search | None = None
        self._limits = [RunningSum() for _ in range(3)]
        self._total = RunningSum()
        self.result: Evaluation | None = None

    @property
    def beta(self) -> float:
        return self.search.beta if self.search else 1.0

    @property
    def done(self) -> bool:
        return self.search is not None and self.search.done

    def add_limits(self, rows: LabelledRows) -> None:
        """What decides whether there is a best temperature, of the next rows."""
        weights = np.ones(len(rows.rows)) if rows.weights is None else rows.weights
        self._total.add(weights)
        for total, part in zip(self._limits, limits(rows.u), strict=True):
            total.add(part * weights)

    def take(self, evaluation: Evaluation) -> None:
        """Take the sums at `beta`, and find the next."""
        if self.search is None:
            total = self._total.value()
            if not total:
                raise DataError("targets", "no row is left to fit the temperature to")
            ends = Ends(*(part.value() / total for part in self._limits))
            ends.require_minimum()
            self.search = Search(ends)
        self.search.take(evaluation.slope)
        self.result = evaluation


class Calibrator:
    """Fits the temperature in as many passes over the rows as it takes."""

    def __init__(self, rows: Rows, *, skip_nonfinite: bool = False) -> None:
        self._rows, self._skip, self._passes = rows, skip_nonfinite, 0
        self._nonfinite, self._first = 0, 0
        self._fits = [_Fit(None)]
        if rows.folds > 1:
            self._fits += [_Fit(fold) for fold in range(rows.folds)]

    def run(self) -> Calibration:
        """All passes, then the result."""
        before = None
        while not all(fit.done for fit in self._fits):
            if self._passes >= PASSES:
                raise XentError("logits", f"no temperature found in {PASSES} passes")
            self._one_pass()
            before = before or self._fits[0].result
        fit = self._fits[0]
        assert before
        assert fit.result
        after = fit.result if self._rows.folds == 1 else self._held_out()
        return self._calibration(fit, before, after)

    def _blocks(self) -> Iterator[LabelledRows]:
        """The rows with a finite loss; an error at the end of the first pass for others."""
        first = self._passes == 0
        for rows in self._rows.blocks():
            finite = np.isfinite(rows.u.max(axis=-1))
            if first and not finite.all():
                self._first = self._first if self._nonfinite else int(rows.rows[np.argmin(finite)])
                self._nonfinite += int(np.count_nonzero(~finite))
            yield rows if finite.all() else rows.chosen(finite)
        self._passes += 1
        if first and self._nonfinite and not self._skip:
            verb = "is" if self._nonfinite == 1 else "are"
            what = f"the loss of {plural(self._nonfinite, 'row')} {verb} not finite"
            hint = Setting("skip_nonfinite"), " leaves such rows out"
            raise DataError("logits", f"{what}; first: row {self._first}", hint)

    def _one_pass(self) -> None:
        active = [fit for fit in self._fits if not fit.done]
        evaluations = [Evaluation(self._rows.groups, BINS) for _ in active]
        for rows in self._blocks():
            for fit, evaluation in zip(active, evaluations, strict=True):
                mine = same_fold(rows, fit.fold)
                if fit.search is None:
                    fit.add_limits(mine)
                evaluation.add(mine, at_beta(mine.u, fit.beta))
        for fit, evaluation in zip(active, evaluations, strict=True):
            fit.take(evaluation)

    def _held_out(self) -> Evaluation:
        """Each row at the temperature that was fitted without its fold."""
        evaluation = Evaluation(self._rows.groups, BINS)
        for rows in self._blocks():
            for fit in self._fits[1:]:
                mine = rows.chosen(rows.fold == fit.fold)
                evaluation.add(mine, at_beta(mine.u, fit.beta))
        return evaluation

    def _calibration(self, fit: _Fit, before: Evaluation, after: Evaluation) -> Calibration:
        problem, result = self._rows.problem, fit.result
        assert result
        found = {"temperature": _temperature(fit.beta, result.sandwich(), result.weights.count)}
        for name, item in (("before", before), ("after", after)):
            found |= {f"{key}_{name}": value for key, value in _statistics(item).items()}
        present = self._rows.groups and np.count_nonzero(result.weights.by_group()[1])
        return Calibration(
            temperature=found["temperature"].value,
            rows=problem.layout.rows,
            ignored=problem.ignored,
            nonfinite=self._nonfinite,
            groups=int(present),
            passes=self._passes,
            statistics={name: found[name] for name in ORDER if name in found},
            bins_before=before.bins.bins(),
            bins_after=after.bins.bins(),
            fold_temperatures=tuple(1 / other.beta for other in self._fits[1:]),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[Note, ...]:
        if not self._nonfinite:
            return ()
        verb = "is" if self._nonfinite == 1 else "are"
        text = f"the loss of {plural(self._nonfinite, 'row')} {verb} not finite; left out"
        return (Note("logits", text, strict=True),)


def _temperature(beta: float, error: float | None, n: int) -> Statistic:
    """T = 1/β with the interval 1/(β ± 1.96·se(β)), which is infinite above where β may be 0."""
    words = f"{DEFINITION}; se by the sandwich formula"
    if error is None or not math.isfinite(error):
        return Statistic(1 / beta, None, None, n, words)
    low, high = beta - Z95 * error, beta + Z95 * error
    interval = 1 / high, 1 / low if low > 0 else math.inf
    return Statistic(1 / beta, error / beta**2, interval, n, words)


def _statistics(item: Evaluation) -> dict[str, Statistic]:
    n = item.weights.count
    found = {
        "nll": mean_statistic(item.nll.over(item.weights), n, "mean nll, in nats"),
        "accuracy": share_statistic(
            item.accuracy.over(item.weights),
            item.weights.effective,
            n,
            "share of rows whose target has the largest logit; a tie counts in part",
        ),
    }
    errors = calibration(item.bins.bins(), n)
    return {**found, **({"ece": errors["ece"]} if errors else {})}


def fold_count(folds: int | None, rows: int) -> int:
    """The number of folds, 1 for none; an error for one that is not allowed."""
    if folds is None:
        return 1
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= max(2, rows):
        what = f"{folds!r} is not allowed; expected an integer from 2 to the number of rows"
        raise OptionError("folds", what)
    return folds


def require_indices(targets: Array | None) -> None:
    """An error for probability targets."""
    if targets is None:
        what = "probabilities; a temperature is fitted to class indices only"
        raise DataError("targets", what, "use the class indices that were observed")
