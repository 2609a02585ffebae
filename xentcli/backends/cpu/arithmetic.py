"""Arithmetic on numbers and on vectors of 16: sums and differences with their errors, log1p.

Each formula is written once, for both.
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
    call_intrinsic,
    constant,
    equal,
    exponent,
    fma,
    intrinsic,
    less,
    llvm_type,
    power_of_two,
    select,
    select_max,
    select_min,
    type_suffix,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, ROUND

# Division by zero as in NumPy. Never fastmath: NaN and infinity have a meaning here, and
# reassociation would undo the error terms. Functions that are never called from Python need no
# wrappers, which take a sixth of the compile time.
JIT_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
inline_jit = njit(**JIT_OPTIONS, forceinline=True)
jit = njit(**JIT_OPTIONS)

add = inline_jit(elementary.add)
difference = inline_jit(elementary.difference)


def polynomial(coefficients: tuple[float, ...]) -> Any:
    """A compiled function that evaluates a polynomial by Horner's rule, highest power first."""

    @intrinsic
    def value_at(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            first, *others = [
                ir.Constant(llvm_type(x), [one] * LANES if isinstance(x, Vector) else one)
                for one in coefficients
            ]
            value = first
            for coefficient in others:
                terms = [value, values[0], coefficient]
                value = call_intrinsic(builder, f"llvm.fma.{type_suffix(x)}", llvm_type(x), terms)
            return value

        return x(x), generate

    return value_at


log1p_series = polynomial(elementary.LOG1P)


@inline_jit
def add_exponential(sums, e, one):
    """Add an exponential to the sum of those below 1, with its error, or to the sum of the ones.

    The largest exponential is 1. In one sum with it the others would be nothing but rounding
    error, which is accumulated without an error term of its own.
    """
    ones, high, low = sums
    is_one, zero = equal(e, one), constant(e, 0.0)
    other = select(is_one, zero, e)
    total = high + other
    # No term is negative, so a maximum replaces three steps of Knuth's sum.
    low = low + (select_min(high, other) - (total - select_max(high, other)))
    return ones + select(is_one, one, zero), total, low


@inline_jit
def scaled_gap(peak, z, divisor):
    """(peak − z) / divisor as a rounded number and its error; the error of inf is 0."""
    high, low = difference(peak, z)
    if divisor != 1.0:
        quotient = high / divisor
        low = (fma(quotient, constant(high, -divisor), high) + low) / divisor
        high = quotient
    finite = less(absolute(high), constant(high, math.inf))
    return high, select(finite, low, constant(low, 0.0))


@inline_jit
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
    r = log1p_series(z)
    half = f * f * 0.5
    rest = s * fma(r, z, half) + (k * LN2_LOW + error * (2.0 + f) * inverse)
    return k * LN2_HIGH - ((half - rest) - f)
