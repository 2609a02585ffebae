"""Numbers of two words, (high, low): a float64 and what rounding to it has lost.

With two words a row's factors, sums and exponentials have about 100 bits, or 68 where a polynomial
is in them, so that an entry is rounded when it is written and hardly before. Words that are not
finite have no meaning: whoever divides or multiplies what may be infinite looks at `high` alone.
"""

from __future__ import annotations

import math

from xentcli.backends import elementary
from xentcli.backends.cuda.primitives import (
    device,
    fma,
    fraction_and_power,
    polynomial,
    times,
    times_power,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, PER_LN2, ROUND

add = device(elementary.add)
difference = device(elementary.difference)

# eʳ = 1 + r + r²·(1/2 + r·(1/6 + r·(1/24 + r·(1/120 + r·S(r))))) for |r| ≤ ln 2 / 2: Taylor's, with
# two words for the coefficients whose rounding would count, and S to r¹⁸/18!, 2⁻⁷⁸ of the whole.
SERIES = tuple(1.0 / math.factorial(k) for k in range(18, 5, -1))
INVERSE_120 = 0.008333333333333333, 1.1564823173178714e-19
INVERSE_24 = 0.041666666666666664, 2.3129646346357427e-18
INVERSE_6 = 0.16666666666666666, 9.25185853854297e-18
HALF = 0.5, 0.0

MAX_POWER = 1000.0  # 2⁻¹⁰⁰⁰ and its inverse are normal numbers
TINY, LARGER = 2.0**-900, 2.0**120

series = polynomial(SERIES)


@device
def quick_sum(a, b):
    """a + b in two words, where |a| ≥ |b|."""
    high = a + b
    return high, b - (high - a)


@device
def product(a, b):
    """a·b in two words."""
    high = times(a, b)
    return high, fma(a, b, -high)


@device
def add_pairs(a, b):
    """The sum of two numbers of two words."""
    high, low = add(a[0], a[1] + b[1], b[0])
    return quick_sum(high, low)


@device
def multiply(a, b):
    """The product of two numbers of two words."""
    high, low = product(a[0], b[0])
    return quick_sum(high, fma(a[0], b[1], fma(a[1], b[0], low)))


@device
def divide(a, b):
    """The quotient of two numbers of two words."""
    quotient = a[0] / b[0]
    rest = fma(-quotient, b[1], fma(-quotient, b[0], a[0]) + a[1])
    return quick_sum(quotient, rest / b[0])


@device
def divide_by(high, low, denominator):
    """(high + low) / denominator, which is one word; the error of a quotient of inf is 0."""
    if denominator == 1.0:
        return high, low
    quotient = high / denominator
    error = (fma(quotient, -denominator, high) + low) / denominator
    if not abs(quotient) < math.inf:
        error = 0.0
    return quotient, error


@device
def normalised(high, low):
    """A number of two words as (high, low, n), times 2ⁿ: ½ ≤ |high| < 2²⁴, or 0, inf or NaN."""
    size, n = abs(high), 0.0
    if not (size > 0.0 and size < math.inf):
        return high, 0.0, 0.0
    if size < TINY:  # so that it is normal
        high, low, n = high * LARGER, low * LARGER, -120.0
    _, power = fraction_and_power(abs(high))
    if power > MAX_POWER:
        power = MAX_POWER
    factor = times_power(1.0, ROUND - power)
    return high * factor, low * factor, n + power


@device
def times_large_power(value, n):
    """A number times 2ⁿ, rounded once unless it is below the normal numbers; 0 or inf for |n| of
    3000 and more."""
    if abs(n) > 3000.0:
        n = math.copysign(3000.0, n)
    third = fma(n, 1.0 / 3.0, ROUND) - ROUND
    factor = times_power(1.0, ROUND + third)
    return value * factor * factor * times_power(1.0, ROUND + (n - third - third))


@device
def next_coefficient(r, value, coefficient):
    """coefficient + r·value, for a smaller r·value."""
    high, low = product(r[0], value[0])
    low = fma(r[0], value[1], fma(r[1], value[0], low))
    high, error = quick_sum(coefficient[0], high)
    return high, error + (low + coefficient[1])


@device
def exp_minus_one(x):
    """s and n of e^x = 2ⁿ·(1 + s), |s| < 0.42, for |x| < 2¹⁰; s in two words, n as a biased number.

    Within 2⁻⁶⁷ of s where n is 0, else of 1.
    """
    biased = fma(x[0], PER_LN2, ROUND)
    n = biased - ROUND
    high, low = product(n, LN2_LOW)
    r, error = difference(fma(n, -LN2_HIGH, x[0]), high)
    r = quick_sum(r, error + (x[1] - low))
    value = quick_sum(INVERSE_120[0], times(r[0], series(r[0])))
    value = value[0], value[1] + INVERSE_120[1]
    value = next_coefficient(r, value, INVERSE_24)
    value = next_coefficient(r, value, INVERSE_6)
    value = next_coefficient(r, value, HALF)
    square, lost = product(r[0], r[0])
    value = multiply((square, fma(r[0] + r[0], r[1], lost)), value)
    high, low = quick_sum(r[0], value[0])
    return quick_sum(high, low + (r[1] + value[1])), biased


@device
def exp_and_rest(x):
    """e^x and 1 − e^x in two words each, for −2⁹·1.25 < x ≤ 0."""
    s, biased = exp_minus_one(x)
    power = times_power(1.0, biased)
    e = quick_sum(1.0, s[0])
    e = e[0] * power, (e[1] + s[1]) * power
    high, low = difference(1.0, power)
    high, low = add(high, low - s[1] * power, -s[0] * power)
    return e, quick_sum(high, low)


@device
def improved_log1p(x, approximate):
    """log(1 + x) in two words for 0 ≤ x < 2⁶⁴, from an approximate one: a step of Newton's."""
    s, biased = exp_minus_one((approximate, 0.0))
    power = times_power(1.0, biased)
    high, low = difference(power, 1.0)
    high, low = add(high, fma(s[1], power, low), s[0] * power)
    rest = (x[0] - high) + (x[1] - low)
    return quick_sum(approximate, rest / (1.0 + x[0]))
