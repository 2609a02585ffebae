"""Powers of ten with twice the digits of float64, for numbers on their way from and to text.

A product is the sum of two float64, the second the rounding error of the first, after Dekker
(1971). It is wrong by less than `DOUBT` of itself, so whoever rounds it can tell when that
decides nothing, and asks Python, which is always exact and slower.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from xentcli.arrays.dtypes import Array

SMALLEST, LARGEST = -280, 290  # exponents of ten at which no part of a product is subnormal
DOUBT = 2.0**-95  # a bound of the error: some units of 2**-104
_SPLIT = 2.0**27 + 1


@cache
def powers() -> tuple[Array, Array]:
    """10**SMALLEST to 10**LARGEST as pairs: the nearest float64, and the nearest to the rest."""
    pairs = [_power(exponent) for exponent in range(SMALLEST, LARGEST + 1)]
    return np.array([p for p, _ in pairs]), np.array([q for _, q in pairs])


def _power(exponent: int) -> tuple[float, float]:
    whole: int = 10 ** abs(exponent)
    if exponent >= 0:
        return float(whole), float(whole - int(float(whole)))
    top, bottom = (1 / whole).as_integer_ratio()
    return top / bottom, (bottom - top * whole) / (bottom * whole)


def power(exponents: Array) -> Array:
    """10 to these whole numbers, rounded to float64."""
    return powers()[0].take(exponents - SMALLEST)


def times_power(high: Array, low: Array, exponents: Array) -> tuple[Array, Array]:
    """(high + low) · 10**exponents as another such pair, `low` within half an ulp of `high`.

    >>> times_power(np.array([3.0]), np.array([0.0]), np.array([-1]))
    (array([0.3]), array([1.11022302e-17]))
    """
    index = exponents - SMALLEST
    first, second = powers()[0].take(index), powers()[1].take(index)
    product = high * first
    error = _rounding(high, first, product) + (high * second + low * first)
    total = product + error
    return total, error - (total - product)


def _rounding(a: Array, b: Array, product: Array) -> Array:
    """What the rounded product of a and b lacks, exactly."""
    a1, a2 = _halves(a)
    b1, b2 = _halves(b)
    rest: Array = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
    return rest


def _halves(a: Array) -> tuple[Array, Array]:
    large = _SPLIT * a
    high = large - (large - a)
    return high, a - high
