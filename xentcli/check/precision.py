"""Gradients that are right, but for the precision that they were computed in."""

from __future__ import annotations

import numpy as np

from xentcli.check.case import Case
from xentcli.check.mistakes_of_options import HALVES
from xentcli.check.report import Finding, short
from xentcli.check.sample import Kept
from xentcli.check.statistics import Statistics
from xentcli.check.units import KINDS
from xentcli.dtypes import NAMES, Array, narrow, widen

ENOUGH = 0.99  # of the numbers that have to be of a kind
FEWEST = 16  # numbers, so that it is no chance
ROUGH = 64.0  # epsilons of the lesser kind


def cancelled(case: Case, kept: Kept, statistics: Statistics) -> list[Finding]:
    """The right gradient as plain arithmetic makes it: p − 1 at the target, or mere rounding."""
    plain = case.make()
    share = np.abs(kept.theirs - kept.exact) / (case.kind.epsilon * plain.size)
    within = short(float(np.nanmax(np.where(plain.size > 0, share, 0.0))))
    target = statistics.places.get("target entries")
    name = case.kind.name
    if target and 2 * target.off > statistics.off and kept.rows.target is not None:
        words = f"{name} cancellation: the target's entry is p − 1, which has lost its digits"
        evidence = (
            f"{target.off} of {statistics.off} entries that are off are the target's; all are "
            f"within {within} epsilon of the terms p and 1, as --like-peers allows"
        )
        return [Finding("cancellation", words, evidence)]
    words = f"no mistake is to be seen but the rounding of plain {name} arithmetic"
    evidence = f"all are within {within} epsilon of the terms, as --like-peers allows"
    return [Finding("rounding", words, evidence)]


def low_precision(case: Case, kept: Kept) -> list[Finding]:
    """Numbers of a lesser kind than they are stored in, and right to that kind's rounding."""
    names = [*HALVES, "float64"]
    for short_name in ("bf16", "f16", "f32"):
        kind = KINDS[short_name]
        if names.index(kind.name) >= names.index(case.kind.name):
            continue
        size = case.make().size + 2.0 ** (kind.smallest + kind.digits)
        close = np.abs(kept.theirs - kept.exact) <= ROUGH * kind.epsilon * size
        for factor, what in ((1.0, ""), (case.denominator, " times the batch")):
            if close.all() and _are(kept.theirs * factor, short_name, case.kind.epsilon):
                words = f"computed in half precision: in {kind.name}"
                if kind.name == "float32":
                    words = "computed in float32"
                evidence = f"every number{what} is one of {kind.name}"
                return [Finding(kind.name, words, evidence)]
    return []


def _are(values: Array, name: str, epsilon: float) -> bool:
    """Whether nearly all numbers are of a kind, to the rounding of another."""
    used = values[values != 0]
    rounded = widen(narrow(used, NAMES[name]), NAMES["f64"])
    fit = np.abs(used - rounded) <= 2 * epsilon * np.abs(used)
    return len(used) >= FEWEST and bool(fit.mean() >= ENOUGH)
