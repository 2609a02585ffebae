"""Everything that is added up over the rows of a report."""

from __future__ import annotations

import math

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.fields import Field
from xentcli.engine.notes import Note
from xentcli.errors import Setting, plural
from xentcli.records import dataclass
from xentcli.report.along import LossAlong, RowSample
from xentcli.report.bins import BinTotals, borders
from xentcli.report.classes import ClassTotals, PairCounts
from xentcli.report.divergence import BaseField
from xentcli.report.kept import KeptColumns
from xentcli.report.means import Mean, RowWeights
from xentcli.report.options import ReportOptions
from xentcli.report.quantities import names, quantity
from xentcli.report.scores import Scores
from xentcli.report.worst import WorstRows

BATCH = 1 << 15  # rows that are added up at a time


@dataclass(frozen=True)
class RowsInfo:
    """What is known of the rows before they are read."""

    rows: int
    classes: int
    groups: int = 0
    probabilities: bool = False
    weighted: bool = False
    base: bool = False


class Totals:
    """The sums, counts and kept numbers of a report, with `add` and `merge`.

    All sums are exact, so that their bits depend neither on how the rows are cut nor on where
    each part is computed.
    """

    def __init__(self, info: RowsInfo, options: ReportOptions) -> None:
        self.info, self.options = info, options
        self.names = names(options.ranks, probabilities=info.probabilities, base=info.base)
        self.weights = RowWeights(info.groups)
        self.means = {name: Mean(info.groups) for name in self.names}
        self.along, self.worst = LossAlong(info.rows), WorstRows(options.worst)
        self.sample = RowSample(info.rows) if info.base else None
        by_class = None if info.probabilities else info.classes
        self.classes = ClassTotals(by_class) if by_class else None
        self.pairs = PairCounts(by_class) if by_class and options.confusion else None
        by_width = by_class and options.binning == "width"
        self.bins = BinTotals(borders(options.bins)) if by_width else None
        self.kept = KeptColumns(self._columns())
        self.nonfinite = NonfiniteLosses()
        self.masses = {"logits": StoredMass(), "base": StoredMass()}
        self.tied = 0
        self._waiting: list[Scores] = []

    def _columns(self) -> dict[str, str]:
        """The columns that are kept of all rows: at most 24 bytes; 16 more with a base, and 8 for
        row weights where the bins are made at the end."""
        columns = {"nll": "f8"}
        if not self.info.probabilities:
            columns["rank"] = "i4"
        if self.bins is None and not self.info.probabilities:
            columns |= {"confidence": "f8", "ties": "i4"}
            columns |= {"weight": "f8"} if self.info.weighted else {}
        if self.info.base:
            columns |= {name: "f8" for name in ("kl", "delta_p") if name in self.names}
        return columns

    def add(self, scores: Scores) -> None:
        """Take the next rows."""
        self._waiting.append(scores)
        if sum(map(len, self._waiting)) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Add up the rows that wait."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            scores = Scores.joined(waiting)
            for first in range(0, len(scores), BATCH):  # which stay in the cache
                self._take(scores.chosen(slice(first, first + BATCH)))

    def _take(self, scores: Scores) -> None:
        finite = self.nonfinite.add(scores)
        self.masses["logits"].add(scores[Field.LSE])
        if scores.base is not None:
            self.masses["base"].add(scores.base[BaseField.LSE])
        if self.options.skip_nonfinite and not finite.all():
            scores = scores.chosen(finite)
        if not len(scores):
            return
        v, group = scores.weights, scores.group
        columns = {name: quantity(name, scores) for name in self.names}
        self.weights.add(len(scores), v, group)
        for name, mean in self.means.items():
            mean.add(columns[name], v, group)
        self.along.add(scores)
        if self.options.worst:
            self.worst.add(scores)
        if self.sample:
            self.sample.add(scores)
        if self.bins:
            self.bins.add(columns["confidence"], columns["accuracy"], v)
        if self.classes:
            self.classes.add(scores)
        if self.pairs:
            self.pairs.add(scores)
        self._keep(scores, columns)

    def _keep(self, scores: Scores, columns: dict[str, Array]) -> None:
        above, ties = scores[Field.ABOVE], scores[Field.TIES]
        rank, ties = np.where(np.isnan(above), -1.0, above), np.where(np.isnan(ties), -1.0, ties)
        self.tied += int(np.count_nonzero(ties > 0))
        more = {} if scores.weights is None else {"weight": scores.weights}
        self.kept.add({**columns, **more, "rank": rank, "ties": ties})

    def merge(self, other: Totals) -> None:
        """Take the rows of another, which follow in the same whole."""
        self.flush()
        other.flush()
        self.tied += other.tied
        parts = (
            "weights",
            "along",
            "worst",
            "sample",
            "bins",
            "classes",
            "pairs",
            "kept",
            "nonfinite",
        )
        for name in parts:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None:
                mine.merge(theirs)
        for name, mass in self.masses.items():
            mass.merge(other.masses[name])
        for name, mean in self.means.items():
            mean.merge(other.means[name])


class StoredMass:
    """The least and the largest log-sum-exp of rows: 0 where they are log-probabilities."""

    def __init__(self) -> None:
        self.least, self.most = math.inf, -math.inf

    def add(self, lse: Array) -> None:
        """Take the next rows."""
        self.least = min(self.least, float(np.fmin.reduce(lse, initial=math.inf)))
        self.most = max(self.most, float(np.fmax.reduce(lse, initial=-math.inf)))

    def merge(self, other: StoredMass) -> None:
        """Take the rows of another."""
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def note(self, where: str) -> Note | None:
        """What a file of truncated log-probabilities says of itself."""
        if self.most < self.least:
            return None
        text = (
            "log-probabilities 16 nats below the largest and more are cut off there in a .kld "
            f"file; the probabilities of its rows sum to {math.exp(self.least):.6f} to "
            f"{math.exp(self.most):.6f}, and are divided by that"
        )
        return Note(where, text, strict=False)


class NonfiniteLosses:
    """Counts the rows whose loss, or whose comparison to the base, is NaN or infinite."""

    def __init__(self) -> None:
        self.rows = self.count = self.infinite_kl = 0
        self._first = (0, 0.0, "")

    def add(self, scores: Scores) -> Array:
        """Take the next rows; which of them are finite."""
        what = {"loss": scores[Field.NLL]}
        if scores.base is not None:
            what["loss of the base"] = scores.base[BaseField.NLL]
            what["KL divergence"] = scores.base[BaseField.KL]
            self.infinite_kl += int(np.count_nonzero(np.isposinf(what["KL divergence"])))
        finite = np.isfinite(np.stack(list(what.values())))
        every = finite.all(axis=0)
        self.rows += len(scores)
        if not self.count and not every.all():
            place = int(np.argmin(every))
            name = next(n for n, good in zip(what, finite[:, place], strict=True) if not good)
            self._first = int(scores.rows[place]), float(what[name][place]), name
        self.count += int(np.count_nonzero(~every))
        return np.asarray(every)

    def merge(self, other: NonfiniteLosses) -> None:
        """Take the rows of another, which follow."""
        if not self.count:
            self._first = other._first
        self.rows += other.rows
        self.count += other.count
        self.infinite_kl += other.infinite_kl

    def notes(self, *, skipped: bool) -> list[Note]:
        """What was found, and whether these rows are left out."""
        if not self.count:
            return []
        row, value, name = self._first
        verb = "is" if self.count == 1 else "are"
        found = f"{self.count} of {plural(self.rows, 'row')} {verb} not finite; first: the {name}"
        text = f"{found} of row {row} is {value:g}"
        if self.infinite_kl:
            one = "has a class" if self.infinite_kl == 1 else "have classes"
            text += (
                f"; {plural(self.infinite_kl, 'row')} {one} that the base gives a probability "
                "and the model none"
            )
        if skipped:
            return [Note("logits", f"{text}; left out", strict=True)]
        return [Note("logits", (f"{text} (", Setting("skip_nonfinite"), " leaves them out)"), True)]
