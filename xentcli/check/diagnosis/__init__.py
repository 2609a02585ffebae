"""What a wrong gradient would be right for: every known mistake is tried on some rows.

A mistake explains a gradient when all entries of the rows agree to the rounding of plain
arithmetic. Two that cannot be told apart on these data are both named; what agrees with the
right gradient is no mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis import mistakes, option_mistakes
from xentcli.check.diagnosis.hypothesis_case import Candidate, Case
from xentcli.check.diagnosis.matching import (
    CONSTANT,
    RIGHT,
    ROUGH,
    Match,
    Trial,
    fitting,
    is_right,
    same,
)
from xentcli.check.diagnosis.mistakes import Mistake, transposed
from xentcli.check.diagnosis.patterns import ignored_rows, overflow, unwritten, zeros
from xentcli.check.diagnosis.precision import cancelled, lesser, rounded
from xentcli.check.diagnosis.sample import Kept, Sample
from xentcli.check.oracles.rows import Scale
from xentcli.check.oracles.ulp import Kind
from xentcli.check.report import Finding
from xentcli.check.statistics import Statistics
from xentcli.engine.problem import Problem
from xentcli.options import LossOptions

TRANSPOSED = Mistake("transposed", "it is transposed", Case.make)
KNOWN = (*mistakes.MISTAKES, *option_mistakes.MISTAKES)
MOST = 3  # mistakes that are named where they cannot be told apart


def diagnose(
    sample: Sample, statistics: Statistics, problem: Problem, how: tuple[LossOptions, Scale, Kind]
) -> tuple[Finding, ...]:
    """What would explain that a gradient is off; nothing where nothing does."""
    kept = sample.all()
    if not statistics.off or kept is None:
        return ()
    with np.errstate(all="ignore"):
        ignored = ignored_rows(kept, how, problem)
        rest = kept.some(np.flatnonzero(kept.rows.present))
        if not rest.off.any():
            return tuple(ignored)
        return (*ignored, *_of_present(sample, statistics, problem, (rest, how)))


def _of_present(
    sample: Sample,
    statistics: Statistics,
    problem: Problem,
    data: tuple[Kept, tuple[LossOptions, Scale, Kind]],
) -> list[Finding]:
    kept, how = data
    early = overflow(kept, how)
    if early:
        return early
    finite = kept.some(np.flatnonzero(_usable(kept)))
    if not len(finite.theirs):
        return []
    case = _case(sample, problem, finite, how)
    if is_right(case):
        whole = len(finite.theirs) == len(kept.theirs)
        return cancelled(case, finite, statistics) if whole else []
    return _explained(case, finite) or unwritten(finite, statistics)


def _explained(case: Case, kept: Kept) -> list[Finding]:
    """What explains all rows, or those that are off; else the same with less precision."""
    if zeros(kept):
        return zeros(kept)
    for rows in (np.arange(len(kept.theirs)), np.flatnonzero(kept.off.any(axis=1))):
        found = _matches(case, rows)
        if found:
            return [match.finding(len(rows)) for match in found]
    return _roughly(case, kept)


def _roughly(case: Case, kept: Kept) -> list[Finding]:
    """The same with less precision: of a kind that the numbers are of, or half precision."""
    less, rows = lesser(case), np.arange(len(kept.theirs))
    kind = less.kind if less else case.kind
    if less is None and kind.name not in ROUGH:
        return []
    rough = replace(case, kind=kind, rough=True)
    known = [less.finding] if less else []
    if is_right(rough):
        return known or [rounded(rough, kept)]
    found = [match.finding(len(rows)) for match in _matches(rough, rows)]
    return [*known, *found] if found else []


def _usable(kept: Kept) -> Array:
    """Rows of numbers only; a logit may be −∞."""
    usable: Array = np.isfinite(np.stack([kept.theirs, kept.exact])).all(axis=(0, 2))
    return usable & (kept.rows.x < np.inf).all(axis=1)


def _case(
    sample: Sample, problem: Problem, kept: Kept, how: tuple[LossOptions, Scale, Kind]
) -> Case:
    layout = problem.layout
    return Case(
        kept.rows,
        kept.theirs,
        *how,
        layout,
        present=layout.rows - problem.ignored,
        columns=sample.transposed(kept.rows.numbers),
        whole=sample.whole,
    )


def _matches(case: Case, rows: Array) -> list[Match]:
    """The mistakes that explain some rows: those with a reason, else a constant without one."""
    found = [match for match in _tried(case, rows) if match]
    named = [match for match in found if match.factor.name != CONSTANT]
    if any(match.right for match in found) or not named:
        return [match for match in found if not match.right][:1] if not named else []
    best = min(match.ulp for match in named)
    return _different([match for match in named if match.ulp <= 4 * best + 4])


def _different(matches: list[Match]) -> list[Match]:
    """One for each name; two mistakes at once only where one does not do."""
    simple = [match for match in matches if not (match.factor.name and match.name != "right")]
    seen = {match.finding(0).name: match for match in reversed(simple or matches)}
    return list(reversed(seen.values()))[:MOST]


def _tried(case: Case, rows: Array) -> Iterator[Match | None]:
    exact = case.make().grad[rows]
    for mistake in KNOWN:
        if case.rough and case.kind.name != "float32" and mistake is not RIGHT:
            continue  # so little precision cannot tell mistakes apart
        candidate = mistake.make(case)
        if candidate is None:
            continue
        some = Candidate(*(part[rows] for part in candidate))
        if mistake is not RIGHT and same(case, some, exact):
            continue
        yield fitting(case, mistake, Trial(some, case.theirs[rows], exact))
    for theirs, candidate in transposed(case):
        some = Candidate(*(part[rows] for part in candidate))
        yield fitting(case, TRANSPOSED, Trial(some, theirs[rows], np.full_like(exact, np.inf)))
