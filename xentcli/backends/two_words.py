"""Numbers of two float64 for the reference: high + low, about 2⁻⁷⁰ exact.

exp and log1p share one table, 2^(−j/256). A reduced argument is below ln 2 / 512, so that of the
series only the first term needs its second word. The check has a double-double arithmetic of its
own, with other algorithms and all 106 bits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product, two_sum

STEPS = 256  # of the table, per factor of 2
BITS = 256  # of the numbers that the table is made from
LN2 = 0xB17217F7D1CF79ABC9E3B39803F2F6AF40F343267298B62D8A0D175B8BAAFA2B  # ln 2 · 2²⁵⁶
LAST_POWER = 1022  # 2⁻¹⁰²² is the smallest normal number
ROUND = 1.5 * 2.0**52  # ROUND + n has the last bits of the integer n
COUNTED = (1 << 30) - STEPS  # those of n that count factors of 2
SMALL = 2.0**-7  # below it tanh is a series


class TwoWords(NamedTuple):
    """An unevaluated sum; `high` is the number rounded to float64.

    Where `high` is not finite, `low` has to be 0 for `high` to survive the operations.
    """

    high: Array
    low: Array

    def __neg__(self) -> TwoWords:
        return TwoWords(-self.high, -self.low)

    def times(self, factor: Array | float) -> TwoWords:
        """The number times a power of two."""
        return TwoWords(self.high * factor, self.low * factor)

    def at(self, index: Array) -> TwoWords:
        """One entry of each row, as a column."""
        return TwoWords(*(np.take_along_axis(word, index, axis=-1) for word in self))


def one_word(value: Array | float) -> TwoWords:
    """A float64 with a second word of 0."""
    high = np.asarray(value, np.float64)
    return TwoWords(high, np.zeros_like(high))


def choose(where: Array, a: TwoWords, b: TwoWords) -> TwoWords:
    """a where the mask is true, else b."""
    return TwoWords(np.where(where, a.high, b.high), np.where(where, a.low, b.low))


def _normalized(high: Array, low: Array) -> TwoWords:
    """The same sum with the rounded number in front; |high| ≥ |low| (Dekker)."""
    total = high + low
    return TwoWords(total, low - (total - high))


def add(a: TwoWords, b: TwoWords) -> TwoWords:
    """a + b."""
    high, low = two_sum(a.high, b.high)
    return _normalized(high, low + (a.low + b.low))


def multiply(a: TwoWords, b: TwoWords) -> TwoWords:
    """a·b."""
    high, low = two_product(a.high, b.high)
    return _normalized(high, low + (a.high * b.low + a.low * b.high))


def divide(a: TwoWords, b: TwoWords) -> TwoWords:
    """a / b."""
    high = a.high / b.high
    product, excess = two_product(high, b.high)
    rest = ((a.high - product) - excess + a.low) - high * b.low
    return _normalized(high, rest / b.high)


def total(a: TwoWords) -> TwoWords:
    """The sum of each row, as a column: neighbours are added in pairs."""
    high, low = a
    while high.shape[-1] > 1:
        half, odd = divmod(high.shape[-1], 2)
        left, right, rest = slice(0, half), slice(half, 2 * half), slice(2 * half, None)
        added, error = two_sum(high[..., left], high[..., right])
        error += low[..., left] + low[..., right]
        high = np.concatenate([added, high[..., rest]], axis=-1) if odd else added
        low = np.concatenate([error, low[..., rest]], axis=-1) if odd else error
    return _normalized(high, low)


@cache
def _table() -> tuple[Array, Array]:
    """2^(−j/256) for j below 256: the first 26 bits, and the rest."""
    step = 1 << (BITS - 1)  # 1/2, of which the root is taken until it is 2^(−1/256)
    for _ in range(STEPS.bit_length() - 1):
        step = math.isqrt(step << BITS)
    value, high, low = 1 << BITS, np.empty(STEPS), np.empty(STEPS)
    for j in range(STEPS):
        high[j], low[j] = _cut(value, 26)
        value = value * step >> BITS
    return high, low


def _cut(value: int, bits: int) -> tuple[float, float]:
    """The first bits of a number of 256 bits, and the rest."""
    rest = value & ((1 << (BITS - bits)) - 1)
    return float(value - rest) / 2.0**BITS, float(rest) / 2.0**BITS


@cache
def _step() -> tuple[float, float, float]:
    """ln 2 / 256 in two words, the first of 30 bits, and 256 / ln 2."""
    first, second = _cut(LN2, 30)
    return first / STEPS, second / STEPS, STEPS * 2.0**BITS / LN2


def exp_minus(a: TwoWords, lift: int = 0) -> TwoWords:
    """exp(−a)·2^lift for a ≥ 0; 0 where that is below the normal range.

    exp(−a) = 2^(−n/256)·exp(−t), with a = n·ln 2 / 256 + t.
    """
    first, second, per_step = _step()
    limit = (lift + LAST_POWER - 1) * math.log(2)
    most, beyond = np.minimum(a.high, limit), a.high > limit
    shifted = most * per_step + ROUND  # the last bits are n
    n = shifted - ROUND
    r, rest = most - n * first, np.where(beyond, 0.0, a.low) - n * second  # r is exact
    t = r + rest
    tail = t * t * (0.5 - t * (1 / 6 - t * (1 / 24 - t * (1 / 120 - t / 720)))) - rest
    count = shifted.view(np.int64)
    high, low = (word[count & (STEPS - 1)] for word in _table())
    head = r.astype(np.float32).astype(np.float64)  # of 24 bits: its product with 26 is exact
    low = low * (1.0 + (tail - r)) + high * (tail - (r - head))
    high, error = _normalized(high, -high * head)
    power = ((lift + 1023) << 52) - ((count & COUNTED) << 44)  # the bits of 2^(lift − n/256)
    factor = np.where(beyond, 0.0, power.view(np.float64))
    return TwoWords(*_normalized(high, error + low)).times(factor)


def log1p(a: TwoWords) -> TwoWords:
    """log(1 + a) for a ≥ 0: log(2^(n/256)·(1 + r)) = n·ln 2 / 256 + log(1 + r)."""
    first, second, _ = _step()
    n = np.rint(np.log2(1.0 + a.high) * STEPS)
    n = np.where(np.isfinite(n), n, 0.0)
    count = n.astype(np.int64)
    table = TwoWords(*(word[count & (STEPS - 1)] for word in _table()))
    scaled = multiply(add(one_word(1.0), a), table.times(np.ldexp(1.0, -(count >> 8))))
    r = add(scaled, one_word(-1.0))
    near = count == 0  # then r is a, however small
    r = TwoWords(np.where(near, a.high, r.high), np.where(near, a.low, r.low))
    t = r.high
    tail = r.low - t * t * (0.5 - t * (1 / 3 - t * (0.25 - t * (0.2 - t * (1 / 6 - t / 7)))))
    return add(TwoWords(n * first, n * second), _normalized(t, tail))


def log(a: TwoWords) -> TwoWords:
    """log(a) for a ≥ 0: of a = m·2ᵉ with m from 1 to 2 it is log(1 + (m − 1)) + e·ln 2."""
    first, second, _ = _step()
    e = np.frexp(a.high)[1] - 1
    m = TwoWords(np.ldexp(a.high, -e), np.ldexp(a.low, -e))
    e_steps = e.astype(np.float64) * STEPS
    found = add(TwoWords(e_steps * first, e_steps * second), log1p(add(m, one_word(-1.0))))
    return choose((a.high > 0) & (a.high < np.inf), found, one_word(np.log(a.high)))


def tanh(a: TwoWords) -> TwoWords:
    """tanh(a) for a ≥ 0: a series where a is small, else (1 − e) / (1 + e), e = exp(−2a)."""
    e = exp_minus(a.times(2.0))
    large = divide(add(one_word(1.0), -e), add(one_word(1.0), e))
    square = a.high * a.high
    series = square * (-1 / 3 + square * (2 / 15 - square * (17 / 315 - square * (62 / 2835))))
    high, low = _normalized(a.high, a.low + a.high * series)
    small = a.high < SMALL
    return TwoWords(np.where(small, high, large.high), np.where(small, low, large.low))
