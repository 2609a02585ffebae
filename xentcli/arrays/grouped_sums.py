"""Exact sums of numbers by group, such as by class, by bin or by document."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from xentcli.arrays.dtypes import Array

DIGIT = 26  # bits: a sum of 2³⁶ digits fits into int64
MASK = (1 << DIGIT) - 1
PER_CALL = 1 << 15  # numbers that are added at a time, which stay in the cache
KEPT = 38  # bits, from the largest number's first on, that are added at a time: 2¹⁵·2³⁸ is exact
HUGE = 2.0**900  # larger numbers are scaled down, so that what is added to them is finite
SCALE = 208  # by so many bits


class GroupedSums:
    """The sum of float64 numbers in each of some groups.

    The leading bits of all numbers are added as float64, which is exact for so few bits, then the
    next ones; the sums are kept as integers, in digits of 26 bits. So the bits of a sum depend
    neither on how the numbers are cut into pieces nor on the order in which partial sums are
    merged. Infinities and NaN give what adding them gives. Memory: 8 bytes per group for each
    digit that occurs; of losses there are about six.

    >>> sums, others = GroupedSums(2), GroupedSums(2)
    >>> sums.add(np.array([0, 1, 0]), np.array([0.1, 1e16, 0.2]))
    >>> others.add(np.array([1, 1, 0]), np.array([1.0, -1e16, 0.3]))
    >>> sums.merge(others)
    >>> sums.values().tolist()
    [0.6, 1.0]
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._digits: dict[int, Array] = {}  # by the exponent of their unit, 2^(26·k)
        self._nonfinite: Array | None = None

    def add(self, index: Array, values: Array) -> None:
        """Take the next numbers, float64 (n,), each of the group `index`, integers (n,)."""
        for first in range(0, len(values), PER_CALL):
            part = slice(first, first + PER_CALL)
            self._add(index[part], values[part])

    def add_runs(self, groups: Array, starts: Array, values: Array) -> None:
        """Take the next numbers, of which those from each start to the next are of one group."""
        lengths = np.diff(starts, append=len(values))
        if len(values) > PER_CALL or not _are_usual(values):
            self.add(np.repeat(groups, lengths), values)
            return
        for unit, part in _parts(values):
            self._add_sums(unit, groups, np.add.reduceat(part, starts))

    def _add(self, index: Array, values: Array) -> None:
        if not _are_usual(values):
            index, values = self._without_unusual(index, values)
        for unit, part in _parts(values):
            if self.groups <= len(index):
                self._add_sums(unit, None, np.bincount(index, part, self.groups))
            else:
                self._add_sums(unit, index, part)

    def _without_unusual(self, index: Array, values: Array) -> tuple[Array, Array]:
        """Add what is not finite, or huge, and return the rest."""
        finite = np.isfinite(values)
        if not finite.all():
            if self._nonfinite is None:
                self._nonfinite = np.zeros(self.groups)
            with np.errstate(invalid="ignore"):
                np.add.at(self._nonfinite, index[~finite], values[~finite])
        huge = finite & (np.abs(values) > HUGE)
        for unit, part in _parts(values[huge] * 2.0**-SCALE):
            self._add_sums(unit, index[huge], part, SCALE)
        usual = finite & ~huge
        return index[usual], values[usual]

    def _add_sums(self, unit: int, index: Array | None, sums: Array, scale: int = 0) -> None:
        """Add multiples of 2ᵘⁿⁱᵗ, less than 2⁵³ of them, to all groups or to those of an index."""
        counted = np.ldexp(sums, -unit).astype(np.int64)
        power, shift = divmod(unit + scale, DIGIT)
        low, high = (counted & MASK) << shift, (counted >> DIGIT) << shift
        digits = low & MASK, (low >> DIGIT) + (high & MASK), high >> DIGIT
        for place, digit in enumerate(digits, power):
            if not digit.any():
                continue
            if place not in self._digits:
                self._digits[place] = np.zeros(self.groups, np.int64)
            if index is None:
                self._digits[place] += digit
            else:
                np.add.at(self._digits[place], index, digit)

    def merge(self, other: GroupedSums) -> None:
        """Take everything that other sums, of as many groups, have taken."""
        for power, digits in other._digits.items():
            mine = self._digits.get(power)
            self._digits[power] = digits.copy() if mine is None else mine + digits
        if other._nonfinite is not None:
            mine = np.zeros(self.groups) if self._nonfinite is None else self._nonfinite
            self._nonfinite = mine + other._nonfinite

    def values(self) -> Array:
        """The sums so far, float64 (groups,), correct to the last bit or the one before."""
        total = np.zeros(self.groups)
        for power, digits in reversed(self._carried()):
            total += np.ldexp(digits.astype(np.float64), DIGIT * power)
        return total if self._nonfinite is None else total + self._nonfinite

    def _carried(self) -> list[tuple[int, Array]]:
        """The digits from the lowest, each between −2²⁵ and 2²⁵ but the highest: one way to write
        a sum, whatever it was added up from."""
        if not self._digits:
            return []
        found, carry = [], np.zeros(self.groups, np.int64)
        half = 1 << (DIGIT - 1)
        for power in range(min(self._digits), max(self._digits) + 3):  # the carry has up to 37 bits
            total = carry + self._digits.get(power, 0)
            digits = ((total + half) & ((1 << DIGIT) - 1)) - half
            found.append((power, digits))
            carry = (total - digits) >> DIGIT
        return found


def _are_usual(values: Array) -> bool:
    """Whether all numbers are finite, and none is huge."""
    return bool(values.min(initial=0.0) >= -HUGE) and bool(values.max(initial=0.0) <= HUGE)


def _parts(values: Array) -> Iterator[tuple[int, Array]]:
    """Numbers whose sum the values are, each a whole number of 2ᵘⁿⁱᵗ of at most 38 bits.

    Adding 1.5·2ᵏ to every value rounds them all to multiples of 2ᵏ⁻⁵²; the rest is done again.
    """
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    exponent = math.frexp(largest)[1]
    while largest:
        unit = max(exponent - KEPT, -1074)
        shift = math.ldexp(1.5, unit + 52)
        part = values + shift
        part -= shift
        yield unit, part
        values = values - part
        if not values.any():
            return
        exponent = unit - 1
