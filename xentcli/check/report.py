"""The report of a check: as data, as JSON and as lines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Layout, Shape
from xentcli.check.oracles.ulp import Errors, FloatInfo
from xentcli.check.statistics import ErrorStatistics, WorstEntry
from xentcli.errors import Setting, Speak, Words, plural, worded

NOT_KNOWN = "no known mistake explains it"
SHARP = 0.51  # ULP: the report mentions an oracle that may be off by more
NONFINITE_WORDS = {
    "nan_extra": "unexpected NaN",
    "nan_missing": "NaN missing",
    "inf_extra": "unexpected infinities",
    "inf_missing": "infinities missing",
}


class Finding(NamedTuple):
    """A mistake that would explain the gradient: its name, a description, and the evidence."""

    name: str
    words: str
    evidence: Words

    def text(self, speak: Speak = Setting.python) -> str:
        """The description and the evidence, with options written by `speak`."""
        return f"{self.words}: {worded(self.evidence, speak)}"

    def facts(self, speak: Speak = Setting.python) -> dict[str, str]:
        """The finding for JSON."""
        return {**self._asdict(), "evidence": worded(self.evidence, speak)}


class LossVerdict(NamedTuple):
    """The loss, or the worst of one per row; `kind` is the dtype whose ULP are counted."""

    given: float
    exact: float
    ulp: float
    kind: str
    losses: int
    off: int
    row: int

    @classmethod
    def of(cls, losses: tuple[Array, Array], found: Errors, off: Array, kind: str) -> LossVerdict:
        """From as many losses as there are, given and exact, and which of them are off."""
        row = int(np.argmax(found.ulp))
        given, exact = (float(values[row]) for values in losses)
        count = int(np.count_nonzero(off))
        return cls(given, exact, float(found.ulp[row]), kind, len(off), count, row)

    def words(self) -> str:
        """The verdict in one line."""
        which = ""
        if self.losses > 1:
            which = f"{self.off:,} of {self.losses:,} losses off; the worst, row {self.row}: "
        given, exact = (number(value, self.kind) for value in (self.given, self.exact))
        error = f"{short(self.ulp)} ULP of {self.kind}"
        return f"{_pass(not self.off)} loss: {which}{given} given, {exact} exact, {error}"


@dataclass(frozen=True)
class Report:
    """The verdict on a gradient, and everything that was counted for it."""

    shape: Shape
    class_axis: int
    finfo: FloatInfo
    tolerance: str
    method: str
    ignored: int
    statistics: ErrorStatistics
    loss: LossVerdict | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is within the tolerance."""
        return not self.statistics.off and not (self.loss and self.loss.off)

    @property
    def verdict(self) -> str:
        """The gradient in one sentence."""
        s, rows = self.statistics, Layout(self.shape, self.class_axis).rows
        if not s.off:
            entries = f"{s.entries:,} {'entry' if s.entries == 1 else 'entries'}"
            return f"{_pass(True)} gradient: all {entries} within {self.tolerance}"
        many = f"{s.off:,} of {s.entries:,} entries, in {s.rows_off:,} of {rows:,} rows"
        return f"{_pass(False)} gradient: {many}, off by more than {self.tolerance}"

    def verdicts(self) -> list[tuple[str, bool]]:
        """On gradient and loss, and whether each passes; what fails comes first."""
        verdicts = [(self.verdict, not self.statistics.off)]
        if self.loss:
            verdicts.append((self.loss.words(), not self.loss.off))
        return sorted(verdicts, key=lambda verdict: verdict[1])

    def place(self, entry: WorstEntry) -> str:
        """Where an entry is, its row as an index where there are several axes of rows."""
        row_shape = Layout(self.shape, self.class_axis).row_shape
        index = np.unravel_index(entry.row, row_shape) if row_shape else (entry.row,)
        return ",".join(str(int(i)) for i in index)

    def where(self) -> str:
        """The ranges of rows and columns that hold all entries that are off."""
        s = self.statistics
        if not s.off:
            return ""
        parts = zip(("rows", "columns"), (s.off_rows, s.off_columns), strict=True)
        return ", ".join(f"{name} {first} to {last}" for name, (first, last) in parts)

    def nonfinite(self) -> str:
        """The counts of NaN and infinities, in words."""
        found = asdict(self.statistics.nonfinite)
        return ", ".join(
            f"{count:,} {NONFINITE_WORDS[name]}" for name, count in found.items() if count
        )

    def oracle_limit(self) -> str:
        """How small an error the method cannot see, where that matters."""
        limit = self.statistics.oracle_ulp
        if limit < SHARP:
            return ""
        return f"{self.method} may be off by {short(limit)} ULP, and miss errors up to that"

    def diagnosis(self, speak: Speak = Setting.python) -> list[str]:
        """What would explain the errors, or that nothing does."""
        if self.ok or not self.statistics.off:
            return []
        return [finding.text(speak) for finding in self.findings] or [NOT_KNOWN]

    def lines(self, speak: Speak = Setting.python) -> list[str]:
        """The report for a pipe, and for an assertion."""
        lines = [text for text, _ in self.verdicts()]
        lines += [f"diagnosis: {text}" for text in self.diagnosis(speak)]
        lines += [f"{name}: {_pairs(facts)}" for name, facts in self.spreads().items()]
        for name, place in self.places().items():
            lines.append(
                f"{name}: {place.entries}, {place.off} off, max {short(place.max_ulp)} ULP"
            )
        lines += [f"off: {self.where()}"] if self.where() else []
        lines += [f"not finite: {self.nonfinite()}"] if self.nonfinite() else []
        lines += [f"method: {self.oracle_limit()}"] if self.oracle_limit() else []
        for row, column, given, exact, ulp in self.worst():
            place = f"row {row}, class {column}"
            lines.append(f"worst: {place}: {given} given, {exact} exact, {ulp} ULP")
        return lines

    def worst(self) -> list[list[str]]:
        """Row, class, given, exact, and ULP of the entries with the largest errors."""
        name = self.finfo.name
        return [
            [
                self.place(entry),
                str(entry.column),
                number(entry.candidate, name),
                number(entry.exact, name),
                short(entry.ulp),
            ]
            for entry in self.statistics.worst
        ]

    def spreads(self) -> dict[str, dict[str, float]]:
        """Largest and percentiles of the errors, by unit."""
        return {name: spread.facts() for name, spread in self.statistics.spreads.items()}

    def places(self) -> dict[str, Any]:
        """The groups of entries that are not empty, by name."""
        tail = self.statistics.tail
        names = {"last columns": f"last {plural(tail, 'column')}"}
        found = self.statistics.places.items()
        return {names.get(name, name): place for name, place in found if place.entries}

    def facts(self, speak: Speak = Setting.python) -> dict[str, Any]:
        """The report as one JSON object."""
        from xentcli.files.json import plain

        s = self.statistics
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "method": self.method,
            "method_ulp": plain(s.oracle_ulp),
            "shape": list(self.shape),
            "dtype": self.finfo.name,
            "ignored": self.ignored,
            "entries": s.entries,
            "off": s.off,
            "rows_off": s.rows_off,
            "errors": {name: _plain(facts, plain) for name, facts in self.spreads().items()},
            "places": {name: _plain(asdict(place), plain) for name, place in self.places().items()},
            "off_rows": s.off_rows or None,
            "off_columns": s.off_columns or None,
            "not_finite": asdict(s.nonfinite),
            "worst": [self._worst_fact(entry, plain) for entry in s.worst],
            "loss": _plain(self.loss._asdict(), plain) if self.loss else None,
            "diagnosis": [finding.facts(speak) for finding in self.findings],
        }

    def _worst_fact(self, entry: WorstEntry, plain: Any) -> dict[str, Any]:
        values = {"theirs": entry.candidate, "exact": entry.exact}
        place = {"row": entry.row, "column": entry.column}
        facts = _plain({"ulp": entry.ulp, **place, **values}, plain)
        return {**facts, "index": self.place(entry)}


def _pass(ok: bool) -> str:
    return "PASS" if ok else "FAIL"


def _plain(facts: dict[str, Any], plain: Any) -> dict[str, Any]:
    return {name: v if isinstance(v, str) else plain(v) for name, v in facts.items()}


def _pairs(facts: dict[str, float]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in facts.items())


def short(value: float) -> str:
    """An error to three digits.

    >>> short(0.123456), short(1234567.0)
    ('0.123', '1.23e+06')
    """
    return f"{value:.3g}"


def number(value: float, dtype: str) -> str:
    """A number with all the digits that its dtype has, and no more."""
    digits = {"float64": 17, "float32": 9}.get(dtype, 6)
    return f"{value:.{digits}g}"
