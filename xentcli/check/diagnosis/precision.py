"""Gradients that are right, but for the precision that they were computed in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow, widen
from xentcli.check.diagnosis.hypothesis_case import Case
from xentcli.check.diagnosis.sample import Kept
from xentcli.check.oracles.ulp import KINDS, Kind
from xentcli.check.report import Finding, short
from xentcli.check.statistics import Statistics

ENOUGH = 0.99  # of the numbers that have to be of a kind
FEWEST = 16  # numbers, so that it is no chance
LESSER = {"float64": ("bf16", "f16", "f32"), "float32": ("bf16", "f16")}


class Lesser(NamedTuple):
    """A kind of less precision that numbers are of, and what speaks for it."""

    kind: Kind
    finding: Finding


def cancelled(case: Case, kept: Kept, statistics: Statistics) -> list[Finding]:
    """The right gradient as plain arithmetic makes it: p − 1 at the target, or mere rounding."""
    target, name = statistics.places.get("target entries"), case.kind.name
    if not target or 2 * target.off <= statistics.off or kept.rows.target is None:
        return [rounded(case, kept)]
    words = f"{name} cancellation: the target's entry is p − 1, which has lost its digits"
    evidence = (
        f"{target.off} of the {statistics.off} entries that are off are the target's; those "
        f"looked at are within {_within(case, kept)} epsilon of p and 1; see --like-peers"
    )
    return [Finding("cancellation", words, evidence)]


def rounded(case: Case, kept: Kept) -> Finding:
    """The right gradient, less exact than it could be."""
    words = f"no mistake is to be seen but the rounding of plain {case.kind.name} arithmetic"
    within = _within(case, kept)
    evidence = f"those looked at are within {within} epsilon of the terms; see --like-peers"
    return Finding("rounding", words, evidence)


def _within(case: Case, kept: Kept) -> str:
    size = case.make().size
    share = np.abs(kept.theirs - kept.exact) / (case.kind.epsilon * size)
    return short(float(np.nanmax(np.where(size > 0, share, 0.0))))


def lesser(case: Case) -> Lesser | None:
    """The least kind that the numbers, or the numbers times the batch, are of."""
    for key in LESSER.get(case.kind.name, ()):
        kind = KINDS[key]
        for factor, what in ((1.0, ""), (case.denominator, " times the batch")):
            if _are(case.theirs * factor, key, case.kind.epsilon):
                half = "half precision: in " if kind.name != "float32" else ""
                words = f"computed in {half}{kind.name}"
                evidence = f"every number{what} is one of {kind.name}; --dtype {key} judges it so"
                return Lesser(kind, Finding(kind.name, words, evidence))
    return None


def _are(values: Array, name: str, epsilon: float) -> bool:
    """Whether nearly all numbers are of a kind, to the rounding of another."""
    used = values[values != 0]
    rounded = widen(narrow(used, NAMES[name]), NAMES["f64"])
    fit = np.abs(used - rounded) <= 2 * epsilon * np.abs(used)
    return len(used) >= FEWEST and bool(fit.mean() >= ENOUGH)
