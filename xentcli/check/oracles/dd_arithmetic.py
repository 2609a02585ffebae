"""Double-double arithmetic: a number as the sum of two float64, about 106 bits.

The high part is the number rounded to float64, the low part what that left out. The algorithms
are Dekker's (1971) and Knuth's. Numbers whose square would overflow are not allowed: callers
keep powers of two separately.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product, two_sum

HALVINGS = 8  # of the argument of exp, which is then below 2⁻⁹
LN2 = Fraction("0.69314718055994530941723212145817656807550013436025525412068000949339362196969")
LOWEST = -4000.0  # exp of less is 0 in any scale that float64 has
TINY = 2.0**-60


class Pair(NamedTuple):
    """An unevaluated sum: high + low."""

    high: Array
    low: Array

    def at(self, *where: Any) -> Pair:
        """Some of the numbers."""
        return Pair(self.high[where], self.low[where])

    def __neg__(self) -> Pair:
        return Pair(-self.high, -self.low)


def pair(value: Array | float) -> Pair:
    """A float64 as a pair, with a low part of 0."""
    high = np.asarray(value, np.float64)
    return Pair(high, np.zeros_like(high))


def constant(value: Fraction) -> Pair:
    """A fraction to 106 bits."""
    high = float(value)
    return Pair(np.array(high), np.array(float(value - Fraction(high))))


def _fast(high: Array, low: Array) -> Pair:
    """The same sum with a high part that is its rounding; |high| ≥ |low|."""
    total = high + low
    return Pair(total, low - (total - high))


def product(a: Array, b: Array) -> Pair:
    """a·b of two float64, exactly."""
    return Pair(*two_product(a, b))


def add(a: Pair, b: Pair) -> Pair:
    """a + b."""
    high, low = two_sum(a.high, b.high)
    small, rest = two_sum(a.low, b.low)
    high, low = _fast(high, low + small)
    return _fast(high, low + rest)


def subtract(a: Pair, b: Pair) -> Pair:
    """a − b."""
    return add(a, -b)


def multiply(a: Pair, b: Pair) -> Pair:
    """a·b."""
    high, low = product(a.high, b.high)
    return _fast(high, low + (a.high * b.low + a.low * b.high))


def divide(a: Pair, b: Pair) -> Pair:
    """a / b."""
    first = a.high / b.high
    rest = subtract(a, multiply(pair(first), b))
    second = rest.high / b.high
    rest = subtract(rest, multiply(pair(second), b))
    high, low = _fast(first, second)
    return _fast(high, low + rest.high / b.high)


def scaled(a: Pair, power: Array) -> Pair:
    """a·2^power."""
    power = np.clip(power, -9999, 9999).astype(np.int32)
    return Pair(np.ldexp(a.high, power), np.ldexp(a.low, power))


def normal(a: Pair) -> tuple[Pair, Array]:
    """a as a number from 1/2 to 1 times 2^power."""
    power = np.frexp(a.high)[1]
    return scaled(a, -power), power


def quotient(a: Pair, divisor: float) -> Pair:
    """a / divisor for numbers of any size."""
    top, up = normal(a)
    bottom, down = normal(pair(divisor))
    return scaled(divide(top, bottom), up - down)


def total(a: Pair) -> Pair:
    """The sum along the last axis; neighbours are added in pairs."""
    if a.high.shape[-1] == 0:
        return pair(np.zeros(a.high.shape[:-1]))
    while a.high.shape[-1] > 1:
        half, odd = divmod(a.high.shape[-1], 2)
        left, right = a.at(..., slice(half)), a.at(..., slice(half, 2 * half))
        summed = add(left, right)
        if odd:
            both = zip(summed, a.at(..., slice(-1, None)), strict=True)
            summed = Pair(*(np.concatenate(parts, axis=-1) for parts in both))
        a = summed
    return a.at(..., 0)


def choose(where: Array, a: Pair, b: Pair) -> Pair:
    """a where the mask is true, else b."""
    return Pair(np.where(where, a.high, b.high), np.where(where, a.low, b.low))


def _factorial(n: int) -> int:
    return 1 if n < 2 else n * _factorial(n - 1)


_TERMS = [constant(Fraction(1, _factorial(n))) for n in range(12)]


def _cut(value: Fraction, bits: int) -> tuple[float, Fraction]:
    """The first bits of a fraction below 1, and the rest."""
    part = Fraction(int(value * 2**bits), 2**bits)
    return float(part), value - part


_LN2_HIGH, _rest = _cut(LN2, 39)  # so that its product with a power of 14 bits is exact
_LN2_MIDDLE, _rest = _cut(_rest, 78)
_LN2_LOW = float(_rest)


def _expm1_small(r: Pair) -> Pair:
    """exp(r) − 1 for |r| < 2⁻⁹: its series, of which the far terms need no second word."""
    tail = _TERMS[11].high
    for n in (10, 9, 8, 7, 6):
        tail = tail * r.high + _TERMS[n].high
    value = pair(tail)
    for n in (5, 4, 3, 2, 1):
        value = add(multiply(value, r), _TERMS[n])
    return multiply(value, r)


def _reduced(d: Pair) -> tuple[Pair, Array]:
    """exp(r) − 1 and k, for d = k·ln 2 + r."""
    k = np.rint(d.high / float(LN2))
    r = add(d, Pair(-k * _LN2_HIGH, -k * _LN2_MIDDLE))
    r = add(r, pair(-k * _LN2_LOW))
    value = _expm1_small(scaled(r, np.array(-HALVINGS)))
    for _ in range(HALVINGS):  # e^{2r} − 1 = (e^r − 1)·(2 + (e^r − 1))
        value = multiply(value, add(value, pair(2.0)))
    return value, k.astype(np.int32)


def exp(d: Pair) -> tuple[Pair, Array]:
    """exp(d) as a number near 1 and a power of two, which may be beyond float64; 0 below LOWEST.

    >>> mantissa, power = exp(pair(np.array(-3000.0)))
    >>> round(mantissa.high.item(), 6), power.item()
    (0.942704, -4328)
    """
    gone = d.high < LOWEST
    value, k = _reduced(choose(gone, pair(0.0), d))
    value = add(value, pair(1.0))
    return choose(gone, pair(0.0), value), np.where(gone, 0, k)


def expm1(d: Pair) -> Pair:
    """exp(d) − 1 for d ≤ 700, without cancellation at small d."""
    value, k = _reduced(choose(d.high < -200.0, pair(-200.0), d))
    power = k.astype(np.float64)
    whole = add(pair(np.exp2(power)), pair(-1.0))
    return choose(k == 0, value, add(scaled(value, k), whole))


def log1p(t: Pair) -> Pair:
    """log(1 + t) for t ≥ 0: one step of Newton's from float64's."""
    first = np.log1p(t.high)
    back = expm1(pair(first))
    step = divide(subtract(t, back), add(pair(1.0), t))
    small = subtract(t, multiply(t, scaled(t, np.array(-1))))  # t − t²/2
    return choose(t.high < TINY, small, add(pair(first), step))


def log(a: Pair) -> Pair:
    """ln a for a ≥ 0: one step of Newton's from float64's; −∞ for 0."""
    number, power = normal(a)
    first = np.log(number.high)
    step = add(multiply(number, scaled(*exp(pair(-first)))), pair(-1.0))
    step = subtract(step, multiply(step, scaled(step, np.array(-1))))  # ln(1 + t) is t − t²/2
    value = add(add(pair(first), step), multiply(constant(LN2), pair(power.astype(np.float64))))
    return choose(a.high == 0, pair(-np.inf), value)
