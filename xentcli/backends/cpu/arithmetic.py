"""Formulas of one number or of 16: sums and differences with their errors, log1p.

Each is written once, for a number and for a vector of them.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import njit

from xentcli.backends import elementary
from xentcli.backends.cpu.simd import (
    LANES,
    Vector,
    absolute,
    call,
    constant,
    equal,
    exponent,
    fma,
    intrinsic,
    larger,
    less,
    lesser,
    llvm,
    power_of_two,
    select,
    suffix,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, ROUND

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

add = compiled(elementary.add)
difference = compiled(elementary.difference)


def polynomial(coefficients: tuple[float, ...]) -> Any:
    """A polynomial for compiled code, at one number or at 16; the highest power comes first."""

    @intrinsic
    def value_at(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            first, *others = [
                ir.Constant(llvm(x), [one] * LANES if isinstance(x, Vector) else one)
                for one in coefficients
            ]
            value = first
            for coefficient in others:
                terms = [value, values[0], coefficient]
                value = call(builder, f"llvm.fma.{suffix(x)}", llvm(x), terms)
            return value

        return x(x), generate

    return value_at


log1p_series = polynomial(elementary.LOG1P)


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
    half = f * f * 0.5
    rest = s * fma(log1p_series(z), z, half) + (k * LN2_LOW + error * (2.0 + f) * inverse)
    return k * LN2_HIGH - ((half - rest) - f)
