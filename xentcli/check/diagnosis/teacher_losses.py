"""What went wrong with a loss against a teacher: what each mistake would make of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import RunningSum
from xentcli.check.diagnosis.teacher_case import Setup
from xentcli.check.diagnosis.teacher_mistakes import TEACHER_MISTAKES, TeacherMistake
from xentcli.check.finding import Finding
from xentcli.check.oracles.rows import FloatRows, GradientSpec
from xentcli.check.oracles.ulp import FloatInfo
from xentcli.errors import Words

OF_LOSSES = tuple(mistake for mistake in TEACHER_MISTAKES if not mistake.only_gradient)
ROUNDING = 16.0  # units of the terms: naive arithmetic may be off by so much
MOST = 3  # mistakes that are named where they cannot be told apart


class JudgedLosses(NamedTuple):
    """The losses given and the exact ones, how far off each may be, and their dtype."""

    given: Array
    exact: Array
    allowed: Array
    finfo: FloatInfo


class _Wrong:
    """The losses that a mistake leads to, and the sizes of their terms: of each row, or sums."""

    def __init__(self) -> None:
        self.each: list[tuple[Array, Array]] = []
        self.sums = RunningSum(), RunningSum()

    def add(self, losses: Array, sizes: Array, *, per_row: bool) -> None:
        if per_row:
            self.each.append((losses, sizes))
            return
        self.sums[0].add(losses)
        self.sums[1].add(sizes)

    def merge(self, other: _Wrong) -> None:
        self.each += other.each
        for mine, others in zip(self.sums, other.sums, strict=True):
            mine.merge(others)

    def values(self, denominator: float, *, per_row: bool) -> tuple[Array, Array]:
        if per_row:
            losses, sizes = (np.concatenate(parts) for parts in zip(*self.each, strict=True))
        else:
            losses, sizes = (np.array([total.value() / denominator]) for total in self.sums)
        return losses, np.abs(sizes)


class WrongLosses:
    """Adds up what every mistake would make of the losses, while the rows go by."""

    def __init__(self, spec: GradientSpec, *, per_row: bool) -> None:
        self._spec, self._per_row = spec, per_row
        self._found: dict[int, _Wrong] = {}

    def add(self, rows: FloatRows) -> None:
        """The next rows."""
        assert self._spec.teacher
        setup = Setup(self._spec.options, self._spec.teacher.task, rows)
        for place, mistake in enumerate(OF_LOSSES):
            changed = mistake.change(setup)
            if changed is not None:
                made = changed.made(self._spec)
                wrong = self._found.setdefault(place, _Wrong())
                wrong.add(made.losses, made.loss_size, per_row=self._per_row)

    def merge(self, other: WrongLosses) -> None:
        """Take those of the rows that follow."""
        for place, wrong in other._found.items():
            self._found.setdefault(place, _Wrong()).merge(wrong)

    def findings(self, judged: JudgedLosses) -> tuple[Finding, ...]:
        """The mistakes that explain the losses given, and would change the exact ones."""
        denominator = float(self._spec.scale.denominator.high)
        found: dict[str, Finding] = {}
        with np.errstate(all="ignore"):
            for place, wrong in sorted(self._found.items()):
                losses, sizes = wrong.values(denominator, per_row=self._per_row)
                unit = judged.finfo.unit(np.maximum(np.abs(losses), sizes))
                near = np.maximum(ROUNDING * unit, judged.allowed)
                close = np.abs(judged.given - losses) <= near
                if close.all() and (np.abs(losses - judged.exact) > 2 * near).any():
                    finding = _finding(OF_LOSSES[place])
                    found.setdefault(finding.name, finding)
        return tuple(found.values())[:MOST]


def _finding(mistake: TeacherMistake) -> Finding:
    evidence: Words = "it matches the loss"
    if mistake.settings:
        evidence = ("it matches the loss; if it is meant: ", *mistake.settings)
    return Finding(mistake.name, mistake.words, evidence)
