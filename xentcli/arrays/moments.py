"""Exact sums of numbers and of their squares at the same time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array

PER_CALL = 1 << 13  # numbers, which stay in the cache with what is made of them
DIGIT = 20  # bits and a sign: a sum of 2¹³ products of two digits is exact in float64
MOST = 6  # digits of a number
EXPONENTS = 300  # of 2, up and down, between which nothing overflows or underflows


class Moments(NamedTuple):
    """Σ x in units of 2ᵉ, and Σ x² in units of 2²ᵉ."""

    total: int
    squares: int
    exponent: int


def moments(values: Array, room: Array) -> Moments | None:
    """The sums over at most 2¹³ float64, exact; None where the numbers are too far apart for it.

        x = Σ_k d_k,   Σ x = Σ_k Σ d_k,   Σ x² = Σ_k Σ_l Σ d_k·d_l

    The digits d_k are whole numbers of 2ᵉ of 20 bits, with another e for each k, so that scalar
    products of them are exact. `room` (7, 2¹³) is for the digits.

    >>> moments(np.array([1.5, -0.5]), np.empty((MOST + 1, PER_CALL)))
    Moments(total=262144, squares=171798691840, exponent=-18)
    """
    largest = max(float(values.max()), -float(values.min()))
    if not 2.0**-EXPONENTS < largest < 2.0**EXPONENTS:
        return Moments(0, 0, 0) if largest == 0 else None
    digits: list[Array] = []
    unit = int(math.frexp(largest)[1]) - DIGIT + 1
    rest = room[MOST][: len(values)]
    while len(digits) < MOST:
        digit, shift = room[len(digits)][: len(values)], math.ldexp(1.5, unit + 52)
        np.add(values, shift, out=digit)
        digit -= shift
        digits.append(digit)
        values = np.subtract(values, digit, out=rest)
        if not values.any():
            return _added(digits, unit)
        unit -= DIGIT
    return None


def _added(digits: list[Array], unit: int) -> Moments:
    """The sums of digits, the last of which are whole numbers of 2ᵘⁿⁱᵗ."""
    total = squares = 0
    count = len(digits)
    for k, digit in enumerate(digits):
        lower = DIGIT * (count - 1 - k)  # bits that follow
        total += int(math.ldexp(float(digit.sum()), -unit - lower)) << lower
        for other in range(k, count):
            below = lower + DIGIT * (count - 1 - other)
            product = math.ldexp(float(digit @ digits[other]), -2 * unit - below)
            squares += int(product) << (below + (other > k))
    return Moments(total, squares, unit)
