"""Sums without rounding errors, which do not depend on how the numbers arrive.

`RunningSum` adds a long sequence that comes in pieces; parts of it may be added elsewhere and
merged. `exact_sum` adds along the last axis in twice the working precision.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_sum

CHUNK = 1 << 17  # numbers at a time, which stay in the cache; sums of 2¹⁷·2⁴⁵ fit into int64
FEW = 128  # numbers that are added one by one: 0.05 µs each, and NumPy takes 9 µs for any
KEPT = 45  # bits, from the largest number's first on, that are summed at a time
UNIT = 1074  # every finite float64 is a whole number of 2⁻¹⁰⁷⁴
HUGE = 2.0**900  # larger numbers are scaled down, so that what is added to them is finite


def exact_sum(values: Array) -> Array:
    """Sum along the last axis, rounded once: neighbours are added in pairs, errors carried.

    >>> exact_sum(np.array([1e16, 1.0, -1e16])).item()
    1.0
    """
    high, low = values, np.zeros_like(values)
    with np.errstate(invalid="ignore", over="ignore"):
        while high.shape[-1] > 1:
            half, odd = divmod(high.shape[-1], 2)
            left, right, rest = slice(0, half), slice(half, 2 * half), slice(2 * half, None)
            total, error = two_sum(high[..., left], high[..., right])
            error += low[..., left] + low[..., right]
            high = np.concatenate([total, high[..., rest]], axis=-1) if odd else total
            low = np.concatenate([error, low[..., rest]], axis=-1) if odd else error
    if high.shape[-1] == 0:
        return np.zeros(values.shape[:-1])
    return np.where(np.isfinite(high[..., 0]), high[..., 0] + low[..., 0], high[..., 0])


class RunningSum:
    """The sum of float64 numbers that come in pieces, rounded once at the end.

    It is kept as a whole number of 2⁻¹⁰⁷⁴, so its bits depend neither on how the numbers are cut
    into pieces nor on the order in which partial sums are merged. Infinities and NaN give what
    adding them gives.

    >>> total, other = RunningSum(), RunningSum()
    >>> total.add(np.array([0.1, 1e16])), other.add(np.array([0.2, 0.3, -1e16]))
    (None, None)
    >>> total.merge(other)
    >>> total.value()
    0.6
    """

    def __init__(self) -> None:
        self._units = 0
        self._nonfinite = 0.0  # the sum of the numbers that are not finite
        self._waiting: list[Array] = []  # short pieces, which are added together
        self._count = 0  # of the numbers that wait

    def add(self, values: Array) -> None:
        """Take the next numbers, float64 (n,)."""
        if not len(values) or self.add_few(values):
            return
        self._waiting.append(values)
        self._count += len(values)
        if self._count >= CHUNK:
            self._add_waiting()
        else:
            self._waiting[-1] = values.copy()  # the caller may change it

    def add_few(self, values: Array) -> bool:
        """Take few numbers that are finite, and their sum too; else false, and none is taken.

        They are added as some numbers, each of which is what is left of the sum, rounded.
        """
        if len(values) > FEW:
            return False
        units, left = 0, values.tolist()
        try:
            while part := math.fsum(left):
                above, below = part.as_integer_ratio()
                units += above << (UNIT + 1 - below.bit_length())
                left.append(-part)
        except (OverflowError, ValueError):
            return False
        self._units += units
        return True

    def add_sums(self, highs: Array, lows: Array) -> None:
        """Take sums that were computed elsewhere, and the rounding error of each."""
        self.add(highs)
        self.add(lows[np.isfinite(highs)])

    def add_multiple(self, count: int, exponent: int) -> None:
        """Take a whole number of 2ᵉ, e from −1074 on."""
        self._units += count << (exponent + UNIT)

    def merge(self, other: RunningSum) -> None:
        """Take everything that another sum has taken."""
        other._add_waiting()
        self._units += other._units
        self._nonfinite += other._nonfinite

    def value(self) -> float:
        """The sum of everything so far."""
        return self.over(Fraction(1))

    def over(self, divisor: Fraction) -> float:
        """The sum divided by a number other than 0, rounded once.

        >>> total = RunningSum()
        >>> total.add(np.array([1e308, 1e308]))
        >>> total.over(Fraction(2))
        1e+308
        """
        self._add_waiting()
        if self._nonfinite != 0:
            return self._nonfinite if divisor > 0 else -self._nonfinite
        return _quotient(self._units * divisor.denominator, divisor.numerator << UNIT)

    def exact(self) -> Fraction:
        """The sum of the numbers that are finite."""
        self._add_waiting()
        return Fraction(self._units, 1 << UNIT)

    def high_low(self) -> tuple[float, float]:
        """The sum as a float64, and what its rounding leaves out, rounded too."""
        self._add_waiting()
        if self._nonfinite != 0:
            return self._nonfinite, 0.0
        high = self.value()
        if math.isinf(high):
            return high, 0.0
        return high, rounded(self.exact() - Fraction(high))

    def _add_waiting(self) -> None:
        waiting, self._waiting, self._count = self._waiting, [], 0
        if not waiting:
            return
        values = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        room = np.empty((2, min(len(values), CHUNK)))
        for begin in range(0, len(values), CHUNK):
            self._add_chunk(values[begin : begin + CHUNK], room)

    def _add_chunk(self, values: Array, room: Array) -> None:
        most, least = extremes(values)
        if not (math.isfinite(most) and math.isfinite(least)):
            finite = np.isfinite(values)
            with np.errstate(invalid="ignore"):
                self._nonfinite += float(values[~finite].sum())
            values = values[finite]
            most, least = extremes(values)
        self._units += _sum_in_units(values, max(most, -least), room)


def extremes(values: Array) -> tuple[float, float]:
    """The largest and the smallest of some numbers; both are NaN if one is. 0 of none.

    For a few numbers `argmax` takes a third of the time of `max`.
    """
    if not values.size:
        return 0.0, 0.0
    return values.item(values.argmax()), values.item(values.argmin())


def _sum_in_units(values: Array, largest: float, room: Array) -> int:
    """The exact sum of finite numbers, as a whole number of 2⁻¹⁰⁷⁴.

    Adding 1.5·2ᵏ to every number rounds them all to multiples of 2ᵏ⁻⁵², which the bits of the
    results, all between 2ᵏ and 2ᵏ⁺¹, count as integers do; the rest is done again. Losses of
    which the largest is 2⁴⁰ times the smallest need it twice. `room` is for as many numbers:
    with fresh memory for each chunk 4 million losses take twice the time.
    """
    if largest > HUGE:
        huge = np.abs(values) > HUGE
        scaled = _sum_in_units(values[huge] * 2.0**-200, largest * 2.0**-200, room)
        return (scaled << 200) + _sum_in_units(values[~huge], HUGE, room)
    upper, lower = room[:, : len(values)]
    exponent, units = math.frexp(largest)[1], 0
    while True:
        power = max(exponent + 52 - KEPT, 52 - UNIT)
        shift = math.ldexp(1.5, power)
        np.add(values, shift, out=upper)
        bits = (2 * (power + 1023) + 1) << 51  # of the shift
        counted = int(np.add.reduce(upper.view(np.int64))) - len(values) * bits
        counted = (counted + 2**63) % 2**64 - 2**63  # the sum of the bits overflows
        units += counted << (power - 52 + UNIT)
        upper -= shift
        np.subtract(values, upper, out=lower)
        if not lower.any():  # `count_nonzero` takes twice as long
            return units
        values, exponent = lower, power - 52


def rounded(value: Fraction) -> float:
    """A fraction as the nearest float64; infinity beyond its range, and never −0.0."""
    return _quotient(value.numerator, value.denominator)


def _quotient(above: int, below: int) -> float:
    """A quotient of integers, which Python rounds once; with no need to reduce it first."""
    try:
        return above / below + 0.0
    except OverflowError:
        return math.inf if (above > 0) == (below > 0) else -math.inf
