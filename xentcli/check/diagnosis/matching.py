"""Whether a mistake explains a gradient: by which constant factor, and how closely."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis import mistakes
from xentcli.check.diagnosis.factors import factors, usable
from xentcli.check.diagnosis.hypothesis_case import Factor, Hypothesis, HypothesisCase
from xentcli.check.diagnosis.mistakes import Mistake
from xentcli.check.finding import Finding, short
from xentcli.check.oracles.ulp import FloatInfo
from xentcli.errors import Setting, Words

RIGHT = mistakes.MISTAKES[0]
CONSTANT = "constant"
FEWEST = 2  # entries that a constant has to fit; one more without a known reason
MANY = 100  # entries
CLEAR = 4.0  # times the rounding: an entry that is not lost in it
ROUGH = {"float16": 64.0, "bfloat16": 16.0}  # epsilons


class Match(NamedTuple):
    """A mistake that explains the gradient, and the ULP that are left."""

    name: str
    words: str
    factor: Factor
    ulp: float
    share: float
    settings: tuple[Setting, ...] = ()

    @property
    def right(self) -> bool:
        """Whether it is the right gradient."""
        return self.name == "right" and self.factor.value == 1

    def finding(self, rows: str) -> Finding:
        """The match as a finding; `rows` in words."""
        words = [] if self.name == "right" else [self.words]
        words += [self.factor.words] if self.factor.words else []
        names = [] if self.name == "right" else [self.name]
        names += [self.factor.name] if self.factor.name else []
        how = _undone(self.factor.value)
        entries = "" if self.share == 1 else f"{self.share:.1%} of the entries of "
        ulp = short(max(1.0, self.ulp))
        text = f"matches within {ulp} ULP{how} in {entries}{rows}"
        meant = [part for setting in self.settings for part in (" and ", setting)][1:]
        evidence: Words = (text, "; if it is meant: ", *meant) if meant else text
        return Finding(" and ".join(names), "; ".join(words), evidence)


def _undone(factor: float) -> str:
    """The correction, in words."""
    if factor == 1:
        return ""
    if factor == -1:
        return " if negated"
    sign = " if negated and" if factor < 0 else " if"
    size = abs(factor)
    return f"{sign} divided by {size:.7g}" if size >= 1 else f"{sign} multiplied by {1 / size:.7g}"


def is_right(case: HypothesisCase) -> bool:
    """Whether a gradient is right up to the rounding of naive arithmetic."""
    grad, size = case.make()
    return bool((_shares(case, Hypothesis(grad, size), case.candidate) <= rounding(case)).all())


class Trial(NamedTuple):
    """The gradient that a mistake leads to, the candidate, and the exact one, of the same rows."""

    hypothesis: Hypothesis
    candidate: Array
    exact: Array


def fitting(case: HypothesisCase, mistake: Mistake, trial: Trial) -> Match | None:
    """The mistake as a match, with its constant factor; None if it does not explain the rows."""
    known: Array = np.isfinite(np.stack([trial.hypothesis.grad, trial.candidate])).all(axis=(0, 2))
    if not known.any() or 4 * np.count_nonzero(known) < len(known):
        return None
    grad, size = (part[known] for part in trial.hypothesis)
    candidate = trial.candidate[known]
    factor = _factor(case, mistake, Hypothesis(grad, size), candidate)
    if factor is None:
        return None
    scaled = Hypothesis(factor.value * grad, np.abs(factor.value) * size)
    if mistake is not RIGHT and same(case, scaled, trial.exact[known]):
        return None  # two mistakes that undo each other
    shares = _shares(case, scaled, candidate)
    most = float(np.quantile(shares, _share(mistake, shares.size), method="higher"))
    if not most <= rounding(case):
        return None
    agreeing = float(np.mean(shares <= rounding(case)))
    return Match(mistake.name, mistake.words, factor, most, agreeing, mistake.settings)


def _share(mistake: Mistake, entries: int) -> float:
    """The share of the entries that has to agree: all, or all but a few of many."""
    if mistake.share == 1 or entries < MANY:
        return 1.0
    return min(mistake.share, 1 - 3 / entries)


def same(case: HypothesisCase, hypothesis: Hypothesis, exact: Array) -> bool:
    """Whether a mistake would change nothing that can be seen on these rows."""
    known = np.isfinite(hypothesis.grad)
    seen = 2 * rounding(case) * case.finfo.epsilon * hypothesis.size
    moved = np.abs(hypothesis.grad - exact) > seen
    return not (moved & known).any()


def _shares(case: HypothesisCase, hypothesis: Hypothesis, candidate: Array) -> Array:
    """How many epsilons of its terms each entry is off by."""
    # Any number may be off by the smallest, or by some of them if each step was rounded.
    least = 2.0**case.finfo.smallest * (ROUGH.get(case.finfo.name, 1.0) if case.rough else 1.0)
    missed = np.abs(candidate - hypothesis.grad) - least
    return np.where(missed > 0, missed / (case.finfo.epsilon * hypothesis.size), 0.0)


def _factor(
    case: HypothesisCase, mistake: Mistake, hypothesis: Hypothesis, candidate: Array
) -> Factor | None:
    """The constant that the candidate is larger by, if there is a reason for it."""
    grad, size = hypothesis
    seen = clear(case, hypothesis)
    if np.count_nonzero(seen) < FEWEST or not candidate.any():
        return None
    # In shares of the terms: what cancels, or is subnormal, says little of a constant.
    normal = 2.0 ** (case.finfo.smallest + case.finfo.digits)
    least = np.maximum(size, normal * np.abs(grad).max() / np.abs(candidate).max())
    share, other = np.where(seen, grad / least, 0.0), np.where(seen, candidate / least, 0.0)
    constant = float((other * share).sum() / (share * share).sum())
    if not usable(constant):
        return None
    factor = _reason(constant, case)
    if factor is None and mistake is RIGHT and np.count_nonzero(seen) > FEWEST:
        factor = _without_reason(constant, case.finfo)
    return factor


def clear(case: HypothesisCase, hypothesis: Hypothesis) -> Array:
    """Which entries are not lost in the rounding of naive arithmetic."""
    least = CLEAR * rounding(case) * case.finfo.epsilon * hypothesis.size
    return np.asarray(np.abs(hypothesis.grad) > least)


def rounding(case: HypothesisCase) -> float:
    """How many epsilons of its terms naive arithmetic may be off by.

    A gradient of halves was computed in float32 and rounded once, unless it is only stored in
    more than it was computed in.
    """
    if case.finfo.name in ("float16", "bfloat16"):
        return ROUGH[case.finfo.name] if case.rough else 2.0
    top = case.z.max(axis=1, keepdims=True)
    reach = float((top - np.where(np.isfinite(case.z), case.z, top)).max(initial=0.0))
    return 16.0 + 2.0 * min(reach, 200.0) + float(np.sqrt(case.classes))


def _reason(constant: float, case: HypothesisCase) -> Factor | None:
    """The known factor that a constant is, with its sign."""
    for factor in factors(case):
        if abs(abs(constant) / abs(factor.value) - 1) > _rough(case.finfo):
            continue
        if constant * factor.value > 0:
            return factor
        words = "; ".join(filter(None, ["the sign is wrong", factor.words]))
        name = " and ".join(filter(None, ["sign", factor.name]))
        return Factor(-factor.value, name, words)
    return None


def _without_reason(constant: float, finfo: FloatInfo) -> Factor | None:
    power = round(math.log2(abs(constant)))
    scale = float(np.exp2(float(power)))  # infinite beyond float64, where 2.0**power is an error
    if constant > 0 and abs(power) > 1 and abs(constant / scale - 1) < _rough(finfo):
        words = f"it is multiplied by 2^{power}, as a loss scale does"
        return Factor(scale, "loss-scale", words)
    words = "it is the right gradient times a constant of unknown origin"
    return Factor(constant, CONSTANT, words)


def _rough(finfo: FloatInfo) -> float:
    """How precisely a constant is known."""
    return max(1e-4, finfo.epsilon)
