"""What may have gone wrong in a gradient: every known mistake is tried on some rows.

A mistake explains a gradient when all entries of the rows agree to the rounding of naive
arithmetic. Two that cannot be told apart on these data are both named; what agrees with the
right gradient is not a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis import mistakes, option_mistakes, undeclared
from xentcli.check.diagnosis.hypothesis_case import Hypothesis, HypothesisCase
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
from xentcli.check.diagnosis.pairs import (
    FIRST_ROWS,
    FirstMistake,
    first_mistakes,
    plausible,
    second_mistakes,
)
from xentcli.check.diagnosis.patterns import ignored_rows, nonfinite, overflow, unwritten, zeros
from xentcli.check.diagnosis.precision import (
    cancelled,
    lower_precision,
    rounded,
    rounded_text,
)
from xentcli.check.diagnosis.sample import Sample, SampledRows
from xentcli.check.diagnosis.teacher_case import TeacherCase
from xentcli.check.diagnosis.teacher_mistakes import OF_GRADIENTS
from xentcli.check.finding import Finding
from xentcli.check.oracles.rows import GradientSpec
from xentcli.check.statistics import ErrorStatistics
from xentcli.engine.problem import Problem
from xentcli.errors import plural

TRANSPOSED = Mistake("transposed", "it is transposed", HypothesisCase.make)
KNOWN = (*mistakes.MISTAKES, *option_mistakes.MISTAKES)
MOST = 3  # mistakes that are named where they cannot be told apart


def diagnose(
    sample: Sample,
    statistics: ErrorStatistics,
    problem: Problem,
    spec: GradientSpec,
) -> tuple[Finding, ...]:
    """The mistakes that would explain a gradient that is off, if any."""
    sampled = sample.all()
    if not statistics.off or sampled is None:
        return ()
    with np.errstate(all="ignore"):
        ignored = ignored_rows(sampled, spec, problem)
        rest = sampled.some(np.flatnonzero(sampled.rows.present))
        if not rest.off.any():
            return tuple(ignored)
        return (*ignored, *_of_present(sample, statistics, problem, (rest, spec)))


def _of_present(
    sample: Sample,
    statistics: ErrorStatistics,
    problem: Problem,
    data: tuple[SampledRows, GradientSpec],
) -> list[Finding]:
    sampled, spec = data
    early = overflow(sampled, spec)
    if early:
        return early
    finite = sampled.some(np.flatnonzero(_usable(sampled)))
    if not len(finite.candidate):
        return nonfinite(sampled, statistics, rest_is_right=False)
    case = _case(sample, problem, finite, spec)
    right = is_right(case)
    first = nonfinite(sampled, statistics, rest_is_right=right)
    if right and first:
        return first
    printed = rounded_text(finite, spec.finfo.epsilon)
    if printed:
        return [*first, printed]
    if right and spec.teacher:
        return [rounded(case, finite)]
    if right:
        return cancelled(case, finite, statistics)
    return [*first, *(_explained(case, finite) or unwritten(finite, statistics))]


def _explained(case: HypothesisCase, sampled: SampledRows) -> list[Finding]:
    """What explains all rows, or those that are off; else the same at lower precision."""
    if zeros(sampled):
        return zeros(sampled)
    for rows in (np.arange(len(sampled.candidate)), np.flatnonzero(sampled.off.any(axis=1))):
        found = _matches(case, rows)
        if found:
            return [match.finding(_count(case, rows)) for match in found]
    for trials in () if isinstance(case, TeacherCase) else (_forgotten(case), _pairs(case)):
        found = _different([match for match in trials if match])
        if found:
            return [match.finding(_count(case, rows)) for match in found]
    return _roughly(case, sampled)


def _count(case: HypothesisCase, rows: Array) -> str:
    """How many rows were examined, in words; a sample is called one."""
    if case.whole:
        return plural(len(rows), "row")
    return f"all {plural(len(rows), 'row')} of a sample, of {case.layout.rows}"


def _forgotten(case: HypothesisCase) -> Iterator[Match | None]:
    """The options that would explain the gradient if they had been given; the simplest first."""
    exact = case.make().grad
    for mistake in undeclared.forgotten(case):
        match = _fitted(case, mistake, exact)
        yield match
        if match:
            return


def _fitted(case: HypothesisCase, mistake: Mistake, exact: Array) -> Match | None:
    hypothesis = mistake.make(case)
    if hypothesis is None or same(case, hypothesis, exact):
        return None
    return fitting(case, mistake, Trial(hypothesis, case.candidate, exact))


def _pairs(case: HypothesisCase) -> Iterator[Match | None]:
    """Two mistakes at once that explain all rows: tried on a few of them first."""
    if not plausible(case):
        return
    few = case.some(np.arange(min(FIRST_ROWS, len(case.candidate))))
    promising = {first.words for first in first_mistakes(few) if any(_second(first))}
    for first in first_mistakes(case):
        if first.words in promising:
            yield from _second(first)


def _second(first: FirstMistake) -> Iterator[Match | None]:
    exact = first.case.make().grad
    if first.settings:  # a factor that only the option explains
        trial = Trial(first.case.make(), first.case.candidate, exact)
        match = fitting(first.case, RIGHT, trial)
        if match and match.factor.name not in ("", CONSTANT):
            yield match._replace(name=first.name, words=first.words, settings=first.settings)
            return
    for mistake in second_mistakes(first):
        match = _fitted(first.case, mistake, exact)
        if match and mistake.name != first.name:
            name = " and ".join(sorted([first.name, mistake.name]))
            words = f"{first.words}; {mistake.words}"
            settings = first.settings + match.settings
            yield match._replace(name=name, words=words, settings=settings)
            if mistake.settings:
                return  # the others are less simple


def _roughly(case: HypothesisCase, sampled: SampledRows) -> list[Finding]:
    """The same at lower precision: of a dtype that the numbers fit into, or half precision."""
    lower, rows = lower_precision(case), np.arange(len(sampled.candidate))
    finfo = lower.finfo if lower else case.finfo
    if lower is None and finfo.name not in ROUGH:
        return []
    rough = replace(case, finfo=finfo, rough=True)
    known = [lower.finding] if lower else []
    if is_right(rough):
        return known or [rounded(rough, sampled)]
    found = [match.finding(_count(case, rows)) for match in _matches(rough, rows)]
    return [*known, *found] if found else []


def _usable(sampled: SampledRows) -> Array:
    """Which rows are finite; a logit may be −∞."""
    usable: Array = np.isfinite(np.stack([sampled.candidate, sampled.exact])).all(axis=(0, 2))
    return usable & (sampled.rows.x < np.inf).all(axis=1)


def _case(
    sample: Sample, problem: Problem, sampled: SampledRows, spec: GradientSpec
) -> HypothesisCase:
    layout = problem.layout
    case = HypothesisCase(
        sampled.rows,
        sampled.candidate,
        *spec[:3],
        layout,
        present=layout.rows - problem.ignored,
        columns=sample.transposed(sampled.rows.numbers),
        whole=sample.whole,
    )
    return TeacherCase(**vars(case), teacher=spec.teacher) if spec.teacher else case


def _matches(case: HypothesisCase, rows: Array) -> list[Match]:
    """The mistakes that explain some rows; else a constant factor without a known reason."""
    found = [match for match in _tried(case, rows) if match]
    named = [match for match in found if match.factor.name != CONSTANT]
    if any(match.right for match in found) or not named:
        return [match for match in found if not match.right][:1] if not named else []
    best = min(match.ulp for match in named)
    return _different([match for match in named if match.ulp <= 4 * best + 4])


def _different(matches: list[Match]) -> list[Match]:
    """One for each name; combinations of two only if no single mistake explains the rows."""
    simple = [match for match in matches if not (match.factor.name and match.name != "right")]
    seen = {match.finding("").name: match for match in reversed(simple or matches)}
    return list(reversed(seen.values()))[:MOST]


def _tried(case: HypothesisCase, rows: Array) -> Iterator[Match | None]:
    exact = case.make().grad[rows]
    for mistake in OF_GRADIENTS if isinstance(case, TeacherCase) else KNOWN:
        if case.rough and case.finfo.name != "float32" and mistake is not RIGHT:
            continue  # so little precision cannot tell mistakes apart
        hypothesis = mistake.make(case)
        if hypothesis is None:
            continue
        some = Hypothesis(*(part[rows] for part in hypothesis))
        if mistake is not RIGHT and same(case, some, exact):
            continue
        yield fitting(case, mistake, Trial(some, case.candidate[rows], exact))
    for candidate, hypothesis in transposed(case):
        some = Hypothesis(*(part[rows] for part in hypothesis))
        yield fitting(case, TRANSPOSED, Trial(some, candidate[rows], np.full_like(exact, np.inf)))
