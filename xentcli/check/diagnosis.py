"""What a wrong gradient would be right for: every known mistake is tried on some rows.

A mistake explains a gradient when all entries of the rows agree to the rounding of plain
arithmetic. Two that cannot be told apart on these data are both named; what agrees with the
right gradient is no mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xentcli.check import mistakes, mistakes_of_options
from xentcli.check.case import Candidate, Case
from xentcli.check.factors import Factor, factors
from xentcli.check.mistakes import Mistake, transposed
from xentcli.check.precision import cancelled, lesser, rounded
from xentcli.check.report import Finding, short
from xentcli.check.rows import Scale
from xentcli.check.sample import Kept, Sample
from xentcli.check.statistics import Statistics
from xentcli.check.traces import ignored_rows, overflow, unwritten, zeros
from xentcli.check.units import Kind
from xentcli.dtypes import Array
from xentcli.options import LossOptions
from xentcli.problem import Problem

RIGHT = mistakes.MISTAKES[0]
TRANSPOSED = Mistake("transposed", "it is transposed", Case.make)
KNOWN = (*mistakes.MISTAKES, *mistakes_of_options.MISTAKES)
ROUGH = {"float16": 64.0, "bfloat16": 16.0}  # epsilons
MOST = 3  # mistakes that are named where they cannot be told apart
CONSTANT = "constant"
FEWEST = 3  # entries that a constant without a reason has to fit


class Match(NamedTuple):
    """A mistake that explains the gradient, and by how many ULP it misses."""

    name: str
    words: str
    factor: Factor
    ulp: float
    share: float

    @property
    def right(self) -> bool:
        """Whether it is no mistake at all."""
        return self.name == "right" and self.factor.value == 1

    def finding(self, rows: int) -> Finding:
        """In words."""
        words = [] if self.name == "right" else [self.words]
        words += [self.factor.words] if self.factor.words else []
        names = [] if self.name == "right" else [self.name]
        names += [self.factor.name] if self.factor.name else []
        how = _undone(self.factor.value)
        entries = "" if self.share == 1 else f"{self.share:.1%} of the entries of "
        ulp = short(max(1.0, self.ulp))
        evidence = f"matches within {ulp} ULP{how} in {entries}{rows} rows"
        return Finding(" and ".join(names), "; ".join(words), evidence)


def _undone(factor: float) -> str:
    """How to get from the wrong numbers to the right ones."""
    if factor == 1:
        return ""
    if factor == -1:
        return " if negated"
    sign = " if negated and" if factor < 0 else " if"
    size = abs(factor)
    return f"{sign} divided by {size:.7g}" if size >= 1 else f"{sign} multiplied by {1 / size:.7g}"


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
    early = [*zeros(kept), *overflow(kept, how)]
    if early:
        return early
    finite = kept.some(np.flatnonzero(_usable(kept)))
    if not len(finite.theirs):
        return []
    case = _case(sample, problem, finite, how)
    right = _fitting(case, RIGHT, case.make(), case.theirs)
    if right and right.right:
        whole = len(finite.theirs) == len(kept.theirs)
        return cancelled(case, finite, statistics) if whole else []
    return _explained(case, finite) or unwritten(finite, statistics)


def _explained(case: Case, kept: Kept) -> list[Finding]:
    """What explains all rows, or those that are off; else the same with less precision."""
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
    right = _fitting(rough, RIGHT, rough.make(), rough.theirs)
    if right and right.right:
        return known or [rounded(rough, kept)]
    found = [match.finding(len(rows)) for match in _matches(rough, rows)]
    return [*known, *found] if found else []


def _usable(kept: Kept) -> Array:
    """Rows of numbers only."""
    arrays = np.stack([kept.theirs, kept.exact, kept.rows.x])
    usable: Array = np.isfinite(arrays).all(axis=(0, 2))
    return usable


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
        if mistake is not RIGHT and _same(case, some, exact):
            continue
        yield _fitting(case, mistake, some, case.theirs[rows])
    for theirs, candidate in transposed(case):
        some = Candidate(*(part[rows] for part in candidate))
        yield _fitting(case, TRANSPOSED, some, theirs[rows])


def _same(case: Case, candidate: Candidate, exact: Array) -> bool:
    """Whether a mistake changes nothing that could be seen here."""
    known = np.isfinite(candidate.grad)
    seen = 2 * _rounding(case) * case.kind.epsilon * candidate.size
    moved = np.abs(candidate.grad - exact) > seen
    return not (moved & known).any()


def _fitting(case: Case, mistake: Mistake, candidate: Candidate, theirs: Array) -> Match | None:
    """The mistake as a match, with the constant that it takes; None if it does not explain it."""
    known: Array = np.isfinite(np.stack([candidate.grad, theirs])).all(axis=(0, 2))
    if not known.any() or 4 * np.count_nonzero(known) < len(known):
        return None
    grad, size, theirs = candidate.grad[known], candidate.size[known], theirs[known]
    factor = _factor(case, mistake, Candidate(grad, size), theirs)
    if factor is None:
        return None
    unit = case.kind.epsilon * np.abs(factor.value) * size
    missed = np.abs(theirs - factor.value * grad) - _least(case)
    shares = np.where(missed > 0, missed / unit, 0.0)
    most = float(np.quantile(shares, mistake.share, method="higher"))
    if not most <= _rounding(case):
        return None
    agreeing = float(np.mean(shares <= _rounding(case)))
    return Match(mistake.name, mistake.words, factor, most, agreeing)


def _least(case: Case) -> float:
    """What any number may be off by: the smallest, or some of them if each step was rounded."""
    return float(2.0**case.kind.smallest * (ROUGH.get(case.kind.name, 1.0) if case.rough else 1.0))


def _factor(case: Case, mistake: Mistake, candidate: Candidate, theirs: Array) -> Factor | None:
    """The constant that somebody's gradient is larger by, if it is one that has a reason."""
    grad, size = candidate
    if not grad.any() or not theirs.any():
        return None
    # In shares of the terms: what cancels, or is subnormal, says little of a constant.
    normal = 2.0 ** (case.kind.smallest + case.kind.digits)
    least = np.maximum(size, normal * np.abs(grad).max() / np.abs(theirs).max())
    share, other = grad / least, theirs / least
    constant = float((other * share).sum() / (share * share).sum())
    factor = _reason(constant, case)
    if factor is None and mistake is RIGHT and np.count_nonzero(candidate.grad) >= FEWEST:
        factor = _without_reason(constant, case.kind)
    return factor


def _rounding(case: Case) -> float:
    """How many epsilons of its terms plain arithmetic may be off by.

    A gradient of halves was computed in float32 and rounded once, unless it is only stored in
    more than it was computed in.
    """
    if case.kind.name in ("float16", "bfloat16"):
        return ROUGH[case.kind.name] if case.rough else 2.0
    reach = float(np.ptp(case.z, axis=1).max(initial=0.0))
    return 16.0 + 2.0 * min(reach, 200.0) + float(np.sqrt(case.classes))


def _reason(constant: float, case: Case) -> Factor | None:
    """The known constant that is meant, with its sign."""
    for factor in factors(case):
        if abs(abs(constant) / abs(factor.value) - 1) > _rough(case.kind):
            continue
        if constant * factor.value > 0:
            return factor
        words = "; ".join(filter(None, ["the sign is wrong", factor.words]))
        name = " and ".join(filter(None, ["sign", factor.name]))
        return Factor(-factor.value, name, words)
    return None


def _without_reason(constant: float, kind: Kind) -> Factor | None:
    power = round(float(np.log2(abs(constant)))) if constant else 0
    if constant > 0 and abs(power) > 1 and abs(constant / 2.0**power - 1) < _rough(kind):
        words = f"it is multiplied by 2^{power}, as a loss scale does"
        return Factor(2.0**power, "loss-scale", words)
    words = "it is the right gradient times a constant, for which no reason is known"
    return Factor(constant, CONSTANT, words)


def _rough(kind: Kind) -> float:
    """How exactly a constant can be told."""
    return max(1e-4, kind.epsilon)
