"""The factors of the gradients, u·v / D, rounded once for numbers of any size."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product
from xentcli.arrays.sums import rounded
from xentcli.backends.two_words import TwoWords, multiply

USUAL_SIZE = 300  # powers of two of numbers that may be multiplied as they are


class SharedScale(NamedTuple):
    """u / D as float64 (1,), rounded once, and how far off that is, relative to it."""

    factor: Array
    error: float

    @classmethod
    def of(cls, value: float, error: float = 0.0) -> SharedScale:
        """The scale of a factor, in memory that nobody writes to."""
        factor = np.array([value])
        factor.flags.writeable = False
        return cls(factor, error)


@lru_cache(maxsize=256)  # a training loop asks for the same one in every step
def shared_scale(upstream: float, denominator: Fraction) -> SharedScale:
    """The factor of the gradients where it is the same for all rows.

    >>> shared_scale(1.0, Fraction(4)), shared_scale(-1.0, Fraction(3)).factor.item()
    (SharedScale(factor=array([0.25]), error=0.0), -0.3333333333333333)
    """
    if upstream == 0:
        return SharedScale.of(0.0)
    exact = Fraction(upstream) / denominator
    value = rounded(exact)
    if value == 0 or not math.isfinite(value):
        return SharedScale.of(value)
    return SharedScale.of(value, float(exact / Fraction(value) - 1))


def over_power(value: Fraction, power: int) -> Fraction:
    """A fraction divided by a power of two."""
    return value / Fraction(2) ** power if power else value


def quotient(u: Array, v: Array | None, divisor: Fraction) -> Array:
    """u·v / divisor, rounded once, for numbers of any size."""
    number, power = _mantissas(u)
    numerator = TwoWords(number, np.zeros_like(number))
    if v is not None:
        factor, more = _mantissas(v)
        numerator, power = TwoWords(*two_product(number, factor)), power + more
    high, low, down = _two_words(1 / divisor)
    ratio = multiply(numerator, TwoWords(np.array(high), np.array(low))).high
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.ldexp(ratio, power + down))


def _mantissas(values: Array) -> tuple[Array, Array]:
    """Numbers whose products stay in the range, and powers of two; those of usual size alone."""
    sizes = np.abs(values)
    smallest = np.min(sizes, where=sizes > 0, initial=1.0)
    if smallest > 2.0**-USUAL_SIZE and np.max(sizes, initial=0.0) < 2.0**USUAL_SIZE:
        return values, np.zeros(1, np.int32)
    return np.frexp(values)


def _two_words(value: Fraction) -> tuple[float, float, int]:
    """A fraction as the sum of two numbers, the first from 1/2 to 1, times a power of two."""
    power = value.numerator.bit_length() - value.denominator.bit_length()
    scaled = value / Fraction(2) ** power  # from 1/2 to 2
    return float(scaled), float(scaled - Fraction(float(scaled))), power
