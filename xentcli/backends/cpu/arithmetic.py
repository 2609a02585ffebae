"""Formulas of one number or of 16: sums and differences with their errors, log1p.

Each is written once, for a number and for a vector of them.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    equal,
    exponent,
    fma,
    larger,
    less,
    lesser,
    power_of_two,
    select,
)

# NumPy's rules for division by zero; never fastmath: NaN and infinity have a meaning here, and
# reassociation would undo the error terms. What is never called from Python needs no wrappers
# for that, which take a sixth of the time to compile.
RULES: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
compiled = njit(**RULES, forceinline=True)
called = njit(**RULES)

ROUND = 6755399441055744.0  # 1.5·2⁵²: a whole number added to it stands in the last bits
LN2_HIGH = 6.93147180369123816490e-01  # its last 21 bits are 0: exact times a whole number
LN2_LOW = 1.90821492927058770002e-10


@compiled
def add(high, low, value):
    """Add to a sum that carries its rounding error (Knuth)."""
    total = high + value
    shadow = total - high
    return total, low + ((high - (total - shadow)) + (value - shadow))


@compiled
def add_others(sums, e, one):
    """Add an exponential to the sum of those below 1, with its error, or to that of the ones.

    Apart because the largest is 1: beside it the sum of the others would be all rounding error,
    and that is added up plainly.
    """
    ones, high, low = sums
    is_one, nothing = equal(e, one), constant(e, 0.0)
    other = select(is_one, nothing, e)
    total = high + other
    # Nothing is negative: the larger one is known without Knuth's three further steps.
    low = low + (lesser(high, other) - (total - larger(high, other)))
    return ones + select(is_one, one, nothing), total, low


@compiled
def difference(a, b):
    """a − b as a rounded number and the error of that (Knuth)."""
    high = a - b
    shadow = high - a
    return high, (a - (high - shadow)) - (b + shadow)


@compiled
def below(peak, score, divisor):
    """(peak − score) / divisor as a rounded number and its error; no error where it is inf."""
    high, low = difference(peak, score)
    if divisor != 1.0:
        quotient = high / divisor
        low = (fma(quotient, constant(high, -divisor), high) + low) / divisor
        high = quotient
    finite = less(absolute(high), constant(high, math.inf))
    return high, select(finite, low, constant(low, 0.0))


@compiled
def log1p(x):
    """log(1 + x) for 0 ≤ x < 2⁵⁰⁰, within 1 ULP.

    1 + x = 2ᵏ·(1 + f), √½ < 1 + f < √2, and log(1 + f) = f − f²/2 + s·(f²/2 + R(s²)) with
    s = f / (2 + f); the rounding error of 1 + x enters to first order. The polynomial R is that
    of FreeBSD's e_log.c.
    """
    u, error = add(constant(x, 1.0), constant(x, 0.0), x)
    k = exponent(u)
    f = u * power_of_two(ROUND - k, 0) - 1.0
    inverse = 1.0 / ((2.0 + f) * u)  # one division for two quotients, of which both are small
    s = f * u * inverse
    z = s * s
    r = constant(x, 1.479819860511658591e-01)
    r = fma(r, z, constant(x, 1.531383769920937332e-01))
    r = fma(r, z, constant(x, 1.818357216161805012e-01))
    r = fma(r, z, constant(x, 2.222219843214978396e-01))
    r = fma(r, z, constant(x, 2.857142874366239149e-01))
    r = fma(r, z, constant(x, 3.999999999940941908e-01))
    r = fma(r, z, constant(x, 6.666666666666735130e-01))
    half = f * f * 0.5
    rest = s * fma(r, z, half) + (k * LN2_LOW + error * (2.0 + f) * inverse)
    return k * LN2_HIGH - ((half - rest) - f)
