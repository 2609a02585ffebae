"""Sums of rows that come in parts of their columns: one result, however the columns are cut.

    a bin is 30 bits of a number at a fixed place, from 2^(30·i) on, the same for all numbers

Each number is cut into whole multiples of the units of four bins, from that of the row's largest
number on. The multiples of each bin are added as integers, without rounding errors, so any order
and any tree gives the same. What is below the last bin, 2⁻⁸⁹ of the largest number, is rounded off
before it is added: where a bin lies depends on the largest number of all alone.

Source: Demmel, Nguyen, Parallel reproducible summation, IEEE Transactions on Computers 64 (2015);
Rump, Ogita, Oishi, Accurate floating-point summation, SIAM J. Sci. Comput. 31 (2008).
"""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_sum

WIDTH = 30  # bits of a bin
BINS = 4  # that are kept
LOWEST = -40  # below the bin of the smallest number
COLUMNS = 1 << 20  # at a time: 2²⁰ multiples of at most 2³⁰ are added exactly in float64


class BinnedSums:
    """The sums of n rows; all numbers of a row are of about one size, or those that matter are.

    Infinities and NaN give what adding them gives. At most 2³² numbers per row.

    >>> x = np.array([[1.0, 2.0**-70, 3.0, -4.0]])
    >>> whole, parts = BinnedSums(1), BinnedSums(1)
    >>> whole.add(x)
    >>> for columns in (slice(2, 4), slice(1, 2), slice(0, 1)):
    ...     part = BinnedSums(1)
    ...     part.add(x[:, columns])
    ...     parts.merge(part)
    >>> whole.high_low()[0].item() == parts.high_low()[0].item() == 2.0**-70
    True
    """

    def __init__(self, rows: int) -> None:
        self.top = np.full(rows, LOWEST, np.int16)  # the bin of the largest number
        self.multiples = np.zeros((BINS, rows), np.int64)
        self.nonfinite = np.zeros(rows)  # the sum of the numbers that are not finite

    def add(self, *words: Array) -> None:
        """Take more columns, float64 (n, c); several arrays are numbers in as many words."""
        for first in range(0, words[0].shape[1], COLUMNS):
            self.merge(_sums_of([word[:, first : first + COLUMNS] for word in words]))

    def merge(self, other: BinnedSums) -> None:
        """Take what other sums of the same rows have taken."""
        top = np.maximum(self.top, other.top)
        self.multiples = _moved(self, top) + _moved(other, top)
        self.nonfinite = self.nonfinite + other.nonfinite
        self.top = top

    def put(self, rows: slice, other: BinnedSums) -> None:
        """Let some of the rows be those of other sums."""
        self.top[rows], self.multiples[:, rows] = other.top, other.multiples
        self.nonfinite[rows] = other.nonfinite

    def high_low(self) -> tuple[Array, Array]:
        """The sums as float64, and what their rounding leaves out."""
        digits = _carried(self.multiples)
        high, low = np.zeros(len(self.top)), np.zeros(len(self.top))
        for place in reversed(range(BINS)):
            leading = digits[place].astype(np.float64)
            rest = (digits[place] - leading.astype(np.int64)).astype(np.float64)
            for word in (rest, leading):
                high, error = two_sum(high, np.ldexp(word, -WIDTH * place))
                low = low + error
        power = self.top.astype(np.int64) * WIDTH
        total, error = two_sum(high, low)
        bad = self.nonfinite != 0  # NaN is not 0 either
        high = np.where(bad, self.nonfinite, np.ldexp(total, power))
        return high, np.where(bad | ~np.isfinite(high), 0.0, np.ldexp(error, power))


def _sums_of(words: list[Array]) -> BinnedSums:
    """The sums of some columns that fit into float64."""
    found = BinnedSums(len(words[0]))
    largest = np.abs(words[0]).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        finite = np.isfinite(words[0])
        found.nonfinite = np.where(finite, 0.0, words[0]).sum(axis=1)
        words = [np.where(finite, word, 0.0) for word in words]
        largest = np.abs(words[0]).max(axis=1, initial=0.0)
    # Less than half a unit of the bin above, of which it is no multiple either when it is rounded.
    top = np.where(largest > 0, np.frexp(largest)[1] // WIDTH, LOWEST)
    found.top = top.astype(np.int16)
    for word in words:
        rest = np.ldexp(word, -WIDTH * top[:, None])
        for place in range(BINS):
            whole = np.rint(rest)
            found.multiples[place] += whole.sum(axis=1).astype(np.int64)
            rest = (rest - whole) * 2.0**WIDTH
    return found


def _moved(sums: BinnedSums, top: Array) -> Array:
    """The multiples of other bins, from `top` on down; those of lower bins are dropped."""
    by = top.astype(np.int64) - sums.top
    if not by.any():
        return sums.multiples
    place = np.arange(BINS)[:, None] - by
    taken = np.take_along_axis(sums.multiples, np.maximum(place, 0), axis=0)
    return np.where(place >= 0, taken, 0)


def _carried(multiples: Array) -> Array:
    """The same numbers with every bin but the first from −2²⁹ to 2²⁹: there is only one way."""
    digits = multiples.copy()
    for place in range(BINS - 1, 0, -1):
        carry = (digits[place] + (1 << (WIDTH - 1))) >> WIDTH
        digits[place] -= carry << WIDTH
        digits[place - 1] += carry
    return digits
