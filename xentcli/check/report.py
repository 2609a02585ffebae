"""The report of a check: as data, as JSON and as lines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from xentcli.arrays.layout import Layout, Shape
from xentcli.check.finding import Finding, number, short
from xentcli.check.loss import LossVerdict
from xentcli.check.oracles.ulp import FloatInfo, Precision, Tolerance
from xentcli.check.statistics import EntryGroup, ErrorStatistics, WorstEntry
from xentcli.errors import Setting, Speak, plural, visible, worded
from xentcli.records import dataclass

CERTAINTY = ("confident rows", "less certain rows")
SHORTLY = 2  # entries in a summary
NOT_KNOWN = "no known mistake explains it"
SHARP = 0.51  # ULP: the report mentions an oracle that may be off by more
NONFINITE_WORDS = {
    "nan_extra": "unexpected NaN",
    "nan_missing": "NaN missing",
    "inf_extra": "unexpected infinities",
    "inf_missing": "infinities missing",
}


@dataclass(frozen=True)
class Report:
    """The verdict on a gradient, and everything that was counted for it."""

    shape: Shape
    class_axis: int
    finfo: FloatInfo
    tolerance: Tolerance
    promised: float  # ULP of an exact gradient
    by_digits: bool  # the dtype is the one that the digits of a text show
    method: str
    ignored: int
    sampled: int | None  # how many rows were compared, None for all
    statistics: ErrorStatistics
    loss: LossVerdict | None
    findings: tuple[Finding, ...]
    class_names: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is within the tolerance."""
        return not self.statistics.off and not (self.loss and self.loss.off)

    @property
    def precision(self) -> Precision | None:
        """How a gradient passed: exact, at plain precision, or within a given tolerance."""
        if self.statistics.unresolved and not self.tolerance.given:
            return None
        return self.tolerance.precision(self.statistics.off, self.statistics.inexact)

    @property
    def rows(self) -> int:
        """How many rows were compared."""
        return Layout(self.shape, self.class_axis).rows if self.sampled is None else self.sampled

    def _of_a_sample(self) -> str:
        if self.sampled is None:
            return ""
        rows = Layout(self.shape, self.class_axis).rows
        return f" of {self.sampled:,} sampled rows (of {rows:,})"

    @property
    def tolerance_words(self) -> str:
        """What passes."""
        return self.tolerance.words(self.finfo, self.promised)

    @property
    def verdict(self) -> str:
        """The gradient in one sentence."""
        s, name = self.statistics, self.finfo.name
        entries = f"{s.entries:,} {'entry' if s.entries == 1 else 'entries'}{self._of_a_sample()}"
        if s.unresolved and not s.off:
            return (
                f"PASS gradient, as far as {self.method} resolve it: none of {entries} off by "
                f"more than {self.tolerance_words}, but {s.unresolved:,} of them are known to no "
                f"better than {short(s.oracle_ulp)} ULP of {name}"
            )
        if self.precision == "given":
            return f"PASS gradient: all {entries} within {self.tolerance_words}"
        if self.precision == "exact":
            return f"PASS gradient, exact: all {entries} within {self.promised:g} ULP of {name}"
        if self.precision == "plain":
            return (
                f"PASS gradient, at plain {name} precision: {s.inexact:,} of {entries} off by more "
                f"than {self.promised:g} ULP, none by more than {self.tolerance_words}"
            )
        many = f"{s.off:,} of {entries}, in {s.rows_off:,} of {self.rows:,} rows"
        return f"FAIL gradient: {self._nonfinite_first()}{many}, off by more than " + (
            self.tolerance_words
        )

    def _nonfinite_first(self) -> str:
        """NaN and infinities, with the place of the first one: they come before mere errors."""
        found = (e for e in self.statistics.worst if not np.isfinite([e.candidate, e.exact]).all())
        first = next(found, None)
        if first is None or not self.nonfinite():
            return ""
        return f"{self.nonfinite()}, first in row {self.place(first)}, class {self.called(first)}; "

    def kept_digits(self) -> str:
        """How many digits a gradient at plain precision has left, by groups of entries."""
        if self.precision != "plain":
            return ""
        most = (self.finfo.digits + 1) * np.log10(2)
        groups = [
            f"{name} {min(most, max(0.0, most - np.log10(2 * group.max_ulp))):.1f}"
            for name in ("target entries", "other entries", *CERTAINTY)
            if (group := self.statistics.places.get(name)) and group.entries and group.max_ulp
        ]
        return f"of {most:.1f} at least: {', '.join(groups)}"

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

    def called(self, entry: WorstEntry) -> str:
        """The class of an entry: its index, and its name if there is one."""
        name = f" ({visible(self.class_names[entry.column])})" if self.class_names else ""
        return f"{entry.column}{name}"

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
        lines = self.loss.diagnosis(speak) if self.loss else []
        if not self.statistics.off:
            return lines
        return ([finding.text(speak) for finding in self.findings] or [NOT_KNOWN]) + lines

    def lines(self, speak: Speak = Setting.python) -> list[str]:
        """The report for a pipe, and for an assertion."""
        lines = [text for text, _ in self.verdicts()]
        lines += [f"diagnosis: {text}" for text in self.diagnosis(speak)]
        lines += [f"digits kept, {self.kept_digits()}"] if self.kept_digits() else []
        lines += [f"dtype: {self.chosen_dtype(speak)}"] if self.by_digits else []
        lines += [f"{name}: {_pairs(facts)}" for name, facts in self.spreads().items()]
        for name, place in self.places().items():
            counts = ", ".join(f"{count} {name}" for name, count in self.counts(place).items())
            lines.append(f"{name}: {place.entries}, {counts}, max {short(place.max_ulp)} ULP")
        lines += [f"off: {self.where()}"] if self.where() else []
        lines += [f"not finite: {self.nonfinite()}"] if self.nonfinite() else []
        lines += [f"method: {self.oracle_limit()}"] if self.oracle_limit() else []
        for row, column, given, exact, ulp in self.worst():
            place = f"row {row}, class {column}"
            lines.append(f"worst: {place}: {given} given, {exact} exact, {ulp} ULP")
        return lines

    def chosen_dtype(self, speak: Speak = Setting.python) -> str:
        """Why a text is judged in float32."""
        why = f"{self.finfo.name}, because the text has no more digits; "
        return worded((why, Setting("dtype", "f64"), " judges in float64"), speak)

    def counts(self, place: EntryGroup) -> dict[str, int]:
        """How many entries of a group are off or, where none has to be exact, are not."""
        if self.precision == "plain":
            return {"not exact": place.inexact}
        return {"off": place.off}

    def summary(self, speak: Speak = Setting.python) -> list[str]:
        """What fails and why, in a few lines, for an assertion."""
        lines = [text for text, passes in self.verdicts() if not passes]
        lines += [f"diagnosis: {text}" for text in self.diagnosis(speak)]
        for row, column, given, exact, ulp in self.worst()[:SHORTLY] if self.statistics.off else []:
            lines.append(f"row {row}, class {column}: {given} given, {exact} exact, {ulp} ULP")
        return lines

    def worst(self) -> list[list[str]]:
        """Row, class, given, exact, and ULP of the entries with the largest errors."""
        name = self.finfo.name
        return [
            [
                self.place(entry),
                self.called(entry),
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
            "precision": self.precision,
            "tolerance": self.tolerance_words,
            "method": self.method,
            "method_ulp": plain(s.oracle_ulp),
            "shape": list(self.shape),
            "dtype": self.finfo.name,
            "ignored": self.ignored,
            **self._counts(),
            "errors": {name: _plain(facts, plain) for name, facts in self.spreads().items()},
            "places": {name: _plain(asdict(place), plain) for name, place in self.places().items()},
            "off_rows": s.off_rows or None,
            "off_columns": s.off_columns or None,
            "not_finite": asdict(s.nonfinite),
            "worst": [self._worst_fact(entry, plain) for entry in s.worst],
            "loss": _plain(self.loss.facts(), plain) if self.loss else None,
            "diagnosis": [finding.facts(speak) for finding in self._all_findings()],
        }

    def _all_findings(self) -> tuple[Finding, ...]:
        return self.findings + (self.loss.findings if self.loss else ())

    def _counts(self) -> dict[str, int]:
        s = self.statistics
        counts = {"entries": s.entries, "rows_checked": self.rows, "off": s.off}
        return {**counts, "inexact": s.inexact, "rows_off": s.rows_off}

    def _worst_fact(self, entry: WorstEntry, plain: Any) -> dict[str, Any]:
        values = {"theirs": entry.candidate, "exact": entry.exact}
        place = {"row": entry.row, "column": entry.column}
        facts = _plain({"ulp": entry.ulp, **place, **values}, plain)
        return {**facts, "index": self.place(entry)}


def _plain(facts: dict[str, Any], plain: Any) -> dict[str, Any]:
    return {name: v if isinstance(v, str | None) else plain(v) for name, v in facts.items()}


def _pairs(facts: dict[str, float]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in facts.items())
