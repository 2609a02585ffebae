"""The calibration of logits by one temperature: passes over the rows, and what they show."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.fields import Field
from xentcli.errors import DataError, Setting, XentError, plural
from xentcli.report.calibration_result import Calibration, Fitted
from xentcli.report.calibration_rows import FLAT, EndTotals, Evaluation, Rows
from xentcli.report.scores import Scores
from xentcli.report.temperature import PASSES, Search

BINS = 15


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
        return self._fitted(fit, before, after)

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

    def _fitted(self, fit: _Fit, before: Evaluation, after: Evaluation) -> Calibration:
        assert fit.result
        fitted = Fitted(
            method="temperature",
            beta=fit.beta,
            error=fit.result.sandwich(),
            before=before,
            after=after,
            passes=self._passes,
            nonfinite=self._nonfinite,
            backend=self._backend.name,
            fold_temperatures=tuple(1 / other.beta for other in self._fits[1:]),
        )
        return fitted.calibration(self._rows)
