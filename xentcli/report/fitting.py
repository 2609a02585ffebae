"""The calibration of logits by one temperature: passes over the rows, and what they show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.fields import Field
from xentcli.engine.notes import Note
from xentcli.errors import DataError, OptionError, Setting, XentError, plural
from xentcli.report.bins import Bin, calibration
from xentcli.report.calibration_rows import FLAT, EndTotals, Evaluation, Rows
from xentcli.report.scores import Scores
from xentcli.report.statistic import Z95, Statistic, mean_statistic, share_statistic
from xentcli.report.temperature import PASSES, Search

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
    backend: str = "numpy"
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
        self.ends = EndTotals()
        self.result: Evaluation | None = None

    @property
    def beta(self) -> float:
        return self.search.beta if self.search else 1.0

    @property
    def done(self) -> bool:
        return self.search is not None and self.search.done

    def mine(self, folds: Array) -> Array | slice:
        """Which rows it uses."""
        return slice(None) if self.fold is None else folds != self.fold

    def take(self, evaluation: Evaluation) -> None:
        """Take the sums at `beta`, and find the next."""
        if self.search is None:
            ends = self.ends.ends()
            if ends is None:
                raise DataError("targets", "no row is left to fit the temperature to")
            ends.require_minimum()
            self.search = Search(ends)
        self.search.take(evaluation.slope)
        self.result = evaluation


class Calibrator:
    """Fits the temperature in as many passes over the rows as it takes."""

    def __init__(self, rows: Rows, *, skip_nonfinite: bool = False) -> None:
        self._rows, self._skip, self._passes = rows, skip_nonfinite, 0
        self._nonfinite, self._first = 0, 0
        self._backend = rows.backend()
        self._fits = [_Fit(None)]
        if rows.folds > 1:
            self._fits += [_Fit(fold) for fold in range(rows.folds)]

    def run(self) -> Calibration:
        """All passes, then the result."""
        before = self._first_pass()
        while not all(fit.done for fit in self._fits):
            if self._passes >= PASSES:
                raise XentError("logits", f"no temperature found in {PASSES} passes")
            self._one_pass()
        fit = self._fits[0]
        assert fit.result
        after = fit.result if self._rows.folds == 1 else self._held_out()
        return self._calibration(fit, before, after)

    def _finite(self, scores: Scores) -> Scores:
        """The rows with a finite loss."""
        finite = np.isfinite(scores[Field.NLL])
        return scores if finite.all() else scores.chosen(finite)

    def _first_pass(self) -> Evaluation:
        """The pass at T = 1, which also finds rows that are not finite, and where f′ ends."""
        evaluations = [Evaluation(self._rows.groups, BINS) for _ in self._fits]
        for piece in self._rows.pieces():
            plain = self._rows.scores(piece, self._backend, 1.0)
            self._count_nonfinite(plain)
            flat = self._rows.scores(piece, self._backend, FLAT)
            finite = np.isfinite(plain[Field.NLL])
            plain, flat = plain.chosen(finite), flat.chosen(finite)
            folds = self._rows.fold(plain)
            for fit, evaluation in zip(self._fits, evaluations, strict=True):
                which = fit.mine(folds)
                fit.ends.add(flat.chosen(which), plain.chosen(which))
                evaluation.add(plain.chosen(which), 1.0)
        self._passes += 1
        self._require_finite()
        for fit, evaluation in zip(self._fits, evaluations, strict=True):
            fit.take(evaluation)
        return evaluations[0]

    def _count_nonfinite(self, scores: Scores) -> None:
        finite = np.isfinite(scores[Field.NLL])
        if not finite.all():
            first = int(scores.rows[np.argmin(finite)])
            self._first = self._first if self._nonfinite else first
            self._nonfinite += int(np.count_nonzero(~finite))

    def _require_finite(self) -> None:
        if self._nonfinite and not self._skip:
            verb = "is" if self._nonfinite == 1 else "are"
            what = f"the loss of {plural(self._nonfinite, 'row')} {verb} not finite"
            hint = Setting("skip_nonfinite"), " leaves such rows out"
            raise DataError("logits", f"{what}; first: row {self._first}", hint)

    def _one_pass(self) -> None:
        active = [fit for fit in self._fits if not fit.done]
        evaluations = [Evaluation(self._rows.groups, BINS) for _ in active]
        for piece in self._rows.pieces():
            for fit, evaluation in zip(active, evaluations, strict=True):
                scores = self._finite(self._rows.scores(piece, self._backend, 1 / fit.beta))
                evaluation.add(scores.chosen(fit.mine(self._rows.fold(scores))), fit.beta)
        self._passes += 1
        for fit, evaluation in zip(active, evaluations, strict=True):
            fit.take(evaluation)

    def _held_out(self) -> Evaluation:
        """Each row at the temperature that was fitted without its fold."""
        evaluation = Evaluation(self._rows.groups, BINS)
        for piece in self._rows.pieces():
            for fit in self._fits[1:]:
                scores = self._finite(self._rows.scores(piece, self._backend, 1 / fit.beta))
                evaluation.add(scores.chosen(self._rows.fold(scores) == fit.fold), fit.beta)
        self._passes += 1
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
            backend=self._backend.name,
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
