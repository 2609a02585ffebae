"""Sums and products of two float64 with the rounding error that each of them makes.

Neither needs a fused multiply-add, which NumPy does not have. The compiled kernels have their
own versions of both.
"""

from __future__ import annotations

from xentcli.arrays.dtypes import Array

SPLITTER = 134217729.0  # 2²⁷ + 1


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum of two numbers and the error of that rounding (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded product of two numbers and the error of that rounding (Dekker, Veltkamp).

    >>> import numpy as np
    >>> high, low = two_product(np.array(1 + 2.0**-30), np.array(1 + 2.0**-30))
    >>> high.item() == 1 + 2.0**-29, low.item() == 2.0**-60
    (True, True)
    """
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    product = a * b
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(value: Array) -> tuple[Array, Array]:
    """Two numbers of at most 26 bits each, whose sum it is."""
    shifted = value * SPLITTER
    high = shifted - (shifted - value)
    return high, value - high
