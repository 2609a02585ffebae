"""Gradients that are right except for the precision that they were computed in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow, widen
from xentcli.check.diagnosis.hypothesis_case import HypothesisCase
from xentcli.check.diagnosis.sample import SampledRows
from xentcli.check.finding import Finding, short
from xentcli.check.oracles.ulp import FLOATS, FloatInfo, fits_float32
from xentcli.check.statistics import EntryGroup, ErrorStatistics
from xentcli.errors import Setting

ENOUGH = 0.99  # of the numbers have to fit into a dtype
FAR = 16  # times as many ULP
ROUNDED = 16  # epsilons of the terms, before the numbers were printed
HALF = 0.5 + 1e-6  # units
FEWEST = 16  # numbers, so that it is not by chance
LOWER = {"float64": ("bf16", "f16", "f32"), "float32": ("bf16", "f16")}


class LowerPrecision(NamedTuple):
    """A dtype of lower precision that the numbers fit into, and the evidence."""

    finfo: FloatInfo
    finding: Finding


def cancelled(
    case: HypothesisCase, sampled: SampledRows, statistics: ErrorStatistics
) -> list[Finding]:
    """The right gradient as naive arithmetic gives it: p − 1 at the target, or mere rounding."""
    target, name = statistics.places.get("target entries"), case.finfo.name
    if not target or not _are_the_worst(target, statistics) or sampled.rows.target is None:
        return [rounded(case, sampled)]
    words = f"{name} cancellation: the target's entry is p − 1, which has lost its digits"
    evidence = (
        f"{target.off:,} of the {statistics.off:,} entries that are off are the target's; those "
        f"examined are within {_within(case, sampled)} epsilon of p and 1"
    )
    return [Finding("cancellation", words, evidence)]


def _are_the_worst(target: EntryGroup, statistics: ErrorStatistics) -> bool:
    """Whether the target's entries are most of those that are off, or by far the worst."""
    other = statistics.places.get("other entries", EntryGroup())
    return 2 * target.off > statistics.off or target.max_ulp > FAR * other.max_ulp


def rounded(case: HypothesisCase, sampled: SampledRows) -> Finding:
    """The right gradient, less exact than it could be."""
    words = f"no mistake found beyond the rounding of naive {case.finfo.name} arithmetic"
    evidence = f"those examined are within {_within(case, sampled)} epsilon of the terms"
    return Finding("rounding", words, evidence)


def _within(case: HypothesisCase, sampled: SampledRows) -> str:
    size = case.make().size
    share = np.abs(sampled.candidate - sampled.exact) / (case.finfo.epsilon * size)
    return short(float(np.nanmax(np.where(size > 0, share, 0.0))))


def rounded_text(sampled: SampledRows, epsilon: float) -> Finding | None:
    """The right gradient, printed with so few decimals or digits that the rest is lost."""
    values, exact = sampled.candidate, sampled.exact
    missed = np.abs(values - exact) - ROUNDED * epsilon * sampled.size
    seen = range(1, int(-np.log10(4 * epsilon)) + 1)
    for decimals in (n for n in seen if 10.0**-n < np.abs(exact).max(initial=0.0) / 10):
        unit = 10.0**-decimals
        if not (missed > unit * HALF).any() and _printed(values, f".{decimals}f", epsilon):
            return _rounded_to(f"{decimals} decimals", Setting("atol", unit))
    for digits in seen:
        unit = 10.0 ** (1 - digits)
        close = not (missed > unit * HALF * np.abs(values)).any()
        if close and _printed(values, f".{digits - 1}e", epsilon):
            return _rounded_to(f"{digits} digits", Setting("rtol", unit))
    return None


def _rounded_to(digits: str, tolerance: Setting) -> Finding:
    words = f"it is the right gradient, rounded to {digits}"
    return Finding("rounded-text", words, ("nothing else is lost; ", tolerance, " accepts it"))


def _printed(values: Array, form: str, epsilon: float) -> bool:
    """Whether numbers survive printing in a form; some of them say that they do not."""
    flat = values.ravel()
    for part in np.split(flat, range(64, len(flat), 4096)):
        printed = np.array([float(f"{value:{form}}") for value in part.tolist()])
        if (np.abs(printed - part) > epsilon / 2 * np.abs(part)).any():
            return False
    return True


def lower_precision(case: HypothesisCase) -> LowerPrecision | None:
    """The smallest dtype that the numbers, or the numbers times the batch, fit into."""
    for key in LOWER.get(case.finfo.name, ()):
        finfo = FLOATS[key]
        for factor, what in ((1.0, ""), (case.denominator, " times the batch")):
            values = case.candidate * factor
            if _fit(values, key, case.finfo.epsilon) or (key == "f32" and _printed_single(values)):
                half = "half precision: in " if finfo.name != "float32" else ""
                words = f"computed in {half}{finfo.name}"
                evidence = (
                    f"every number{what} fits into {finfo.name}; ",
                    Setting("dtype", key),
                    " judges in its ULP",
                )
                return LowerPrecision(finfo, Finding(finfo.name, words, evidence))
    return None


def _printed_single(values: Array) -> bool:
    """Whether numbers were printed with the digits of float32."""
    return values.size >= FEWEST and fits_float32(values)


def _fit(values: Array, name: str, epsilon: float) -> bool:
    """Whether nearly all numbers fit into a dtype, to the rounding of another."""
    used = values[values != 0]
    rounded = widen(narrow(used, NAMES[name]), NAMES["f64"])
    fit = np.abs(used - rounded) <= 2 * epsilon * np.abs(used)
    return len(used) >= FEWEST and bool(fit.mean() >= ENOUGH)
