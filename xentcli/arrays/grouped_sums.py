"""Exact sums of numbers by group, such as by class, by bin or by document."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array

DIGIT = 26  # bits: a sum of 2³⁷ digits fits into int64
PER_CALL = 1 << 20  # numbers whose digits are added at a time


class GroupedSums:
    """The sum of float64 numbers in each of some groups.

    Each number is cut into digits of 26 bits, and the digits are added as integers. So the bits
    of a sum depend neither on how the numbers are cut into pieces nor on the order in which
    partial sums are merged. Infinities and NaN give what adding them gives. Memory: 8 bytes per
    group for each digit that occurs; of losses there are about six.

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

    def _add(self, index: Array, values: Array) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            if self._nonfinite is None:
                self._nonfinite = np.zeros(self.groups)
            with np.errstate(invalid="ignore"):
                np.add.at(self._nonfinite, index[~finite], values[~finite])
            index, values = index[finite], values[finite]
        largest = float(np.abs(values).max(initial=0.0))
        power = (np.frexp(largest)[1] + DIGIT - 1) // DIGIT - 1
        while largest:
            digits = np.rint(np.ldexp(values, -DIGIT * power))
            self._add_digits(int(power), index, digits)
            values = values - np.ldexp(digits, DIGIT * power)
            largest, power = float(np.abs(values).max()), power - 1

    def _add_digits(self, power: int, index: Array, digits: Array) -> None:
        if power not in self._digits:
            self._digits[power] = np.zeros(self.groups, np.int64)
        total = self._digits[power]
        if self.groups <= len(index):
            total += np.bincount(index, digits, self.groups).astype(np.int64)
        else:
            np.add.at(total, index, digits.astype(np.int64))

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
