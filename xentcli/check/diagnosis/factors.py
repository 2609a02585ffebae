"""Constants that a gradient may be too large by, and their reasons."""

from __future__ import annotations

import math

from xentcli.check.diagnosis.hypothesis_case import Factor, HypothesisCase


def factors(case: HypothesisCase) -> list[Factor]:
    """The constants that have a known reason; 1 is the first."""
    words = "it is divided by the number of classes too"
    found = [Factor(1.0, "", ""), Factor(1 / case.classes, "by-classes", words)]
    found += _divisors(case)
    u, t = case.rows.upstream, case.options.temperature
    if len(u) and (u == u[0]).all() and u[0] != 0:
        found.append(Factor(1 / u[0], "no-upstream", "the upstream gradient is left out"))
        found.append(Factor(u[0], "twice-upstream", "the upstream gradient is applied twice"))
    v = case.rows.sample_weight
    if len(v) and (v == v[0]).all() and v[0] != 0:
        found.append(Factor(1 / v[0], "no-sample-weight", "the row weights are left out"))
    found.append(
        Factor(t, "no-temperature-factor", "the factor 1/T of the temperature is left out")
    )
    found.append(Factor(1 / t, "twice-temperature", "the factor 1/T is applied twice"))
    found += case.factors
    return [found[0], *(one for one in found if abs(one.value - 1) > 1e-9 and usable(one.value))]


def usable(value: float) -> bool:
    """Whether a gradient can be divided by a constant: extreme options make it 0 or infinite."""
    return value != 0 and math.isfinite(value)


def _divisors(case: HypothesisCase) -> list[Factor]:
    """Other denominators than the right one."""
    d, rows, present = case.denominator, case.layout.rows, case.present
    reduction = case.options.reduction
    if reduction != "mean":
        words = f"it is divided by the {present} rows, which the reduction {reduction} does not do"
        found = [Factor(1 / max(1, present), "divided", words)]
        if rows != present:
            words = f"it is divided by all {rows} rows, which the reduction {reduction} does not do"
            found.append(Factor(1 / max(1, rows), "divided", words))
        return found
    sums = "the sum of the weights" if d not in (rows, present) else "those not ignored"
    found = [Factor(d, "not-divided", "it is not divided by the batch")]
    if rows != present:
        words = f"it is divided by all {rows} rows instead of {sums}"
        found.append(Factor(d / rows, "by-all-rows", words))
    words = f"it is divided by the {present} rows instead of {sums}"
    found.append(Factor(d / max(1, present), "by-rows", words))
    found.append(
        Factor(d / (rows * case.classes), "by-entries", "it is divided by all entries, N·C")
    )
    found.append(
        Factor(1 / d if d else 1.0, "divided-twice", "it is divided by the batch size twice")
    )
    return found
