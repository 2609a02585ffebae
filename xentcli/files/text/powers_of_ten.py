"""Powers of ten in twice the precision of float64, for parsing and printing numbers.

A product is the sum of two float64, the second the rounding error of the first, after Dekker
(1971). Its relative error is below `ERROR_BOUND`: where that could change how the product is
rounded, the caller falls back on Python, which is exact and slower.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product

SMALLEST, LARGEST = -280, 290  # exponents of ten at which no part of a product is subnormal
ERROR_BOUND = 2.0**-95  # relative; the error is some units of 2**-104


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
    """10 to the power of these integers, rounded to float64."""
    return powers()[0].take(exponents - SMALLEST)


def times_power(high: Array, low: Array, exponents: Array) -> tuple[Array, Array]:
    """(high + low) · 10**exponents as another such pair, `low` within half an ulp of `high`.

    >>> times_power(np.array([3.0]), np.array([0.0]), np.array([-1]))
    (array([0.3]), array([1.11022302e-17]))
    """
    index = exponents - SMALLEST
    first, second = powers()[0].take(index), powers()[1].take(index)
    product, rest = two_product(high, first)
    error = rest + (high * second + low * first)
    total = product + error
    return total, error - (total - product)
