"""A number of the report with its error, and how it follows from means over rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from xentcli.records import dataclass
from xentcli.report.means import MeanValue
from xentcli.report.options import finite_or_none

Z95 = 1.96  # standard errors on either side of a 95 % interval


@dataclass(frozen=True)
class Statistic:
    """One number over rows.

    `se` is its standard error and `interval` the 95 % interval, None where they are not defined;
    `n` is the number of rows; `definition` says how it is computed; `quantiles` are those of the
    rows' own numbers.
    """

    value: float
    se: float | None
    interval: tuple[float, float] | None
    n: int
    definition: str
    quantiles: Mapping[str, float] | None = None

    def facts(self) -> dict[str, Any]:
        """For JSON, without what is not defined."""
        given = vars(self)
        return {name: value for name, value in given.items() if value is not None}

    def with_quantiles(self, quantiles: Mapping[str, float]) -> Statistic:
        """The same with the quantiles of the rows."""
        return replace(self, quantiles=quantiles)


def mean_statistic(mean: MeanValue, n: int, definition: str) -> Statistic:
    """A mean with its interval, x̄ ± 1.96·se."""
    return symmetric(mean.value, mean.se, n, definition)


def symmetric(value: float, se: float | None, n: int, definition: str) -> Statistic:
    """A number with an interval of the same length to both sides."""
    se = finite_or_none(se)
    interval = None if se is None else (value - Z95 * se, value + Z95 * se)
    return Statistic(value, se, interval, n, definition)


def scaled(mean: MeanValue, factor: float, n: int, definition: str) -> Statistic:
    """A multiple of a mean."""
    se = None if mean.se is None else mean.se * abs(factor)
    return symmetric(mean.value * factor, se, n, definition)


def exponential(mean: MeanValue, factor: float, n: int, definition: str) -> Statistic:
    """exp(factor·x̄) with the error of the delta method and the interval exp(factor·(x̄ ± 1.96·se)).

    >>> exponential(MeanValue(0.0, 0.5), 1.0, 10, "").interval
    (0.37531109885139957, 2.664456241929417)
    """
    value, se = exp(mean.value * factor), finite_or_none(mean.se)
    if se is None:
        return Statistic(value, None, None, n, definition)
    half = Z95 * se
    low, high = (exp(factor * (mean.value + sign * half)) for sign in (-1, 1))
    return Statistic(value, finite_or_none(value * abs(factor) * se), (low, high), n, definition)


def exp(value: float) -> float:
    """eˣ, infinite where it is too large."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def share_statistic(mean: MeanValue, effective: float, n: int, definition: str) -> Statistic:
    """A share of rows with its Wilson interval; `effective` is the number of independent rows."""
    se = finite_or_none(mean.se)
    return Statistic(mean.value, se, wilson(mean.value, effective), n, definition)


def wilson(share: float, n: float) -> tuple[float, float] | None:
    """The 95 % interval of a share of n independent rows (Wilson 1927).

    >>> [round(end, 4) for end in wilson(0.9, 100)]
    [0.8256, 0.9448]
    >>> wilson(0.0, 10)[0], wilson(1.0, 10)[1]
    (0.0, 1.0)
    """
    if not (n > 0 and math.isfinite(share)):
        return None
    square = Z95 * Z95
    share = min(1.0, max(0.0, share))
    middle = share + square / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    low, high = (middle - half) / (1 + square / n), (middle + half) / (1 + square / n)
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))
