"""What was found, as data, as JSON and as lines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Layout, Shape
from xentcli.check.oracles.ulp import Errors, Kind
from xentcli.check.statistics import Bad, Statistics
from xentcli.errors import plural

NOT_KNOWN = "none of the mistakes that are known here explains it"
SHARP = 0.51  # ULP
ODD_WORDS = {
    "nan_extra": "NaN that should not be there",
    "nan_missing": "NaN missing",
    "inf_extra": "infinities that should not be there",
    "inf_missing": "infinities missing",
}


class Finding(NamedTuple):
    """A mistake that would explain the gradient: a name, what it is, and what speaks for it."""

    name: str
    words: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.words}: {self.evidence}"


class LossFound(NamedTuple):
    """The loss, or the worst of one per row."""

    given: float
    exact: float
    ulp: float
    kind: str
    losses: int
    off: int
    row: int

    @classmethod
    def of(cls, given: Array, exact: Array, found: Errors, kind: tuple[Array, str]) -> LossFound:
        """From as many losses as there are."""
        off, name = kind
        row = int(np.argmax(found.ulp))
        ulp = float(found.ulp[row])
        count = int(np.count_nonzero(off))
        return cls(float(given[row]), float(exact[row]), ulp, name, len(given), count, row)

    def words(self) -> str:
        """In one line."""
        which = ""
        if self.losses > 1:
            which = f"{self.off} of {self.losses} losses off; the worst, row {self.row}: "
        given, exact = (number(value, self.kind) for value in (self.given, self.exact))
        verdict, ulp = "wrong" if self.off else "right", short(self.ulp)
        return f"loss {verdict}: {which}{given} given, {exact} exact, {ulp} ULP of {self.kind}"


@dataclass(frozen=True)
class Report:
    """The verdict on a gradient, and everything that was counted for it."""

    shape: Shape
    class_axis: int
    kind: Kind
    tolerance: str
    method: str
    ignored: int
    statistics: Statistics
    loss: LossFound | None
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
            entries = plural(s.entries, "entry").replace("entrys", "entries")
            return f"gradient right: all of {entries} within {self.tolerance}"
        many = f"{s.off} of {s.entries} entries, in {s.rows_off} of {plural(rows, 'row')},"
        return f"gradient wrong: {many} off by more than {self.tolerance}"

    def verdicts(self) -> list[tuple[str, bool]]:
        """On gradient and loss, and whether that is right; what is wrong first."""
        verdicts = [(self.verdict, not self.statistics.off)]
        if self.loss:
            verdicts.append((self.loss.words(), not self.loss.off))
        return sorted(verdicts, key=lambda verdict: verdict[1])

    def place(self, bad: Bad) -> str:
        """Where an entry is, its row as an index where there are several axes of rows."""
        row_shape = Layout(self.shape, self.class_axis).row_shape
        index = np.unravel_index(bad.row, row_shape) if row_shape else (bad.row,)
        return ",".join(str(int(i)) for i in index)

    def where(self) -> str:
        """The rows and columns between which all that is off lies."""
        s = self.statistics
        if not s.off:
            return ""
        parts = zip(("rows", "columns"), (s.off_rows, s.off_columns), strict=True)
        return ", ".join(f"{name} {first} to {last}" for name, (first, last) in parts)

    def odd(self) -> str:
        """NaN and infinity, in words."""
        found = asdict(self.statistics.odd)
        return ", ".join(f"{count} {ODD_WORDS[name]}" for name, count in found.items() if count)

    def blind(self) -> str:
        """That the method does not see small errors, where it does not."""
        blind = self.statistics.blind
        if blind < SHARP:
            return ""
        return f"{self.method} may be off by {short(blind)} ULP themselves, and hide as much"

    def diagnosis(self) -> list[str]:
        """What would explain it; that nothing does, where something is off."""
        if self.ok or not self.statistics.off:
            return []
        return [str(finding) for finding in self.findings] or [NOT_KNOWN]

    def lines(self) -> list[str]:
        """The report for a pipe, and for an assertion."""
        lines = [text for text, _ in self.verdicts()]
        lines += [f"diagnosis: {text}" for text in self.diagnosis()]
        lines += [f"{name}: {_pairs(facts)}" for name, facts in self.spreads().items()]
        for name, place in self.places().items():
            lines.append(
                f"{name}: {place.entries}, {place.off} off, max {short(place.max_ulp)} ULP"
            )
        lines += [f"off: {self.where()}"] if self.where() else []
        lines += [f"not finite: {self.odd()}"] if self.odd() else []
        lines += [f"method: {self.blind()}"] if self.blind() else []
        for row, column, theirs, exact, ulp in self.worst():
            place = f"row {row}, class {column}"
            lines.append(f"worst: {place}: {theirs} given, {exact} exact, {ulp} ULP")
        return lines

    def worst(self) -> list[list[str]]:
        """Row, class, theirs, exact, and ULP of the entries that are off most."""
        name = self.kind.name
        return [
            [
                self.place(bad),
                str(bad.column),
                number(bad.theirs, name),
                number(bad.exact, name),
                short(bad.ulp),
            ]
            for bad in self.statistics.worst
        ]

    def spreads(self) -> dict[str, dict[str, float]]:
        """Largest and percentiles of the errors, by unit."""
        return {name: spread.facts() for name, spread in self.statistics.spreads.items()}

    def places(self) -> dict[str, Any]:
        """Where entries are, of the places that there are."""
        tail = self.statistics.tail
        names = {"last columns": f"last {plural(tail, 'column')}"}
        found = self.statistics.places.items()
        return {names.get(name, name): place for name, place in found if place.entries}

    def facts(self) -> dict[str, Any]:
        """The report as one JSON object."""
        from xentcli.files.json import plain

        s = self.statistics
        worst = [{**_plain(bad._asdict(), plain), "index": self.place(bad)} for bad in s.worst]
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "method": self.method,
            "method_ulp": plain(s.blind),
            "shape": list(self.shape),
            "dtype": self.kind.name,
            "ignored": self.ignored,
            "entries": s.entries,
            "off": s.off,
            "rows_off": s.rows_off,
            "errors": {name: _plain(facts, plain) for name, facts in self.spreads().items()},
            "places": {name: _plain(asdict(place), plain) for name, place in self.places().items()},
            "off_rows": s.off_rows or None,
            "off_columns": s.off_columns or None,
            "not_finite": asdict(s.odd),
            "worst": worst,
            "loss": _plain(self.loss._asdict(), plain) if self.loss else None,
            "diagnosis": [finding._asdict() for finding in self.findings],
        }


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


def number(value: float, kind: str) -> str:
    """A number with all its digits, and none that its kind does not have."""
    digits = {"float64": 17, "float32": 9}.get(kind, 6)
    return f"{value:.{digits}g}"
