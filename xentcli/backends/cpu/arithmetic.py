"""Arithmetic on numbers and on vectors of 16, with the rounding errors; log1p.

Each formula is written once, for both. A number in two words is a number and what is to be added
to it: its rounding error.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types

from xentcli.backends import elementary
from xentcli.backends.cpu.part_compiler import PartCompiler
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
EXPORT_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
JIT_OPTIONS = {**EXPORT_OPTIONS, "pipeline_class": PartCompiler}
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


def split_polynomial(coefficients: tuple[float, ...]) -> Any:
    """The same as a polynomial in x² plus x times another: no more steps, and half as many wait for
    each other."""
    even, odd = polynomial(coefficients[1::2]), polynomial(coefficients[::2])
    if len(coefficients) % 2:
        even, odd = odd, even

    @inline_jit
    def value_at(x, square):
        return fma(odd(square), x, even(square))

    return value_at


log1p_series = polynomial(elementary.LOG1P)
log1p_series_f32 = polynomial(elementary.LOG1P_SINGLE)


@intrinsic
def any_lane(typing: Any, mask: Any) -> Any:
    """Whether a comparison is true in any lane of a vector, or is true itself."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if mask == types.boolean:
            return values[0]
        bits = builder.bitcast(values[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(mask), generate


@intrinsic(prefer_literal=True)
def flag(typing: Any, value: Any) -> Any:
    """True or False as a constant for LLVM only: for Numba a literal argument is a type of its own,
    and each function that it is passed to is compiled again."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(value.literal_value))

    return types.boolean(value), generate


@intrinsic
def every_lane(typing: Any, mask: Any) -> Any:
    """Whether a comparison of vectors is true in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.bitcast(values[0], ir.IntType(LANES))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(LANES), -1))

    return types.boolean(mask), generate


@intrinsic
def seldom(typing: Any, truth: Any) -> Any:
    """The same truth, of which the compiler may expect that it is false."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        no = ir.Constant(ir.IntType(1), 0)
        return call_intrinsic(builder, "llvm.expect.i1", ir.IntType(1), [values[0], no])

    return types.boolean(types.boolean), generate


@intrinsic
def negative(typing: Any, value: Any) -> Any:
    """The number with the other sign, which LLVM makes part of an `fma`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fneg(values[0])

    return value(value), generate


@inline_jit
def fast_add(high, low):
    """The sum of two numbers and its error, where the first is not the smaller one."""
    total = high + low
    return total, low - (total - high)


@inline_jit
def difference_below(a, b):
    """a − b of a ≤ b as a rounded number and the error of that, one step less than `difference`.

    Of a and −b the smaller has the larger size.
    """
    high, minus = a - b, constant(b, 0.0) - b
    return high, select_max(a, minus) - (high - select_min(a, minus))


@inline_jit
def product(a, b):
    """a·b and its rounding error."""
    high = a * b
    return high, fma(a, b, 0.0 - high)


@inline_jit
def quotient(a, a_low, b, b_low):
    """(a + a_low) / (b + b_low) in two words."""
    inverse = 1.0 / b
    high = a * inverse
    return high, (fma(high, 0.0 - b, a) + (a_low - high * b_low)) * inverse


@inline_jit
def normalized(x):
    """m and k of x = m·2ᵏ, |m| < 4; ½ < |m| unless x is subnormal."""
    k = select_min(exponent(absolute(x)), constant(x, 1022.0))  # 2⁻¹⁰²³ is no normal number
    return x * power_of_two(ROUND - k, 0), k


@inline_jit
def add_positive(high, low, value):
    """Add to a sum that carries its rounding error. No term is negative, so a maximum replaces
    three steps of Knuth's sum."""
    total = high + value
    return total, low + (select_min(high, value) - (total - select_max(high, value)))


@inline_jit
def add_exponential(sums, e, one):
    """Add an exponential to the sum of those below `one`, with its error, or to the sum of these.

    `one` is the largest exponential. In one sum with it the others would be nothing but rounding
    error, which is accumulated without an error term of its own.
    """
    ones, high, low = sums
    is_one, zero = equal(e, one), constant(e, 0.0)
    other = select(is_one, zero, e)
    high, low = add_positive(high, low, other)
    return ones + select(is_one, one, zero), high, low


@inline_jit
def add_wide_exponential(sums, e, one, exact):
    """The same for float64; unless `exact`, sums in float64 need no error terms."""
    if exact:
        return add_exponential(sums, e, one)
    is_one, zero = equal(e, one), constant(e, 0.0)
    return select(is_one, sums[0] + one, sums[0]), sums[1] + select(is_one, zero, e), sums[2]


@inline_jit
def add_wide(high, low, value, exact):
    """Add to a sum in float64, which carries its rounding error if `exact`."""
    if exact:
        return add(high, low, value)
    return high + value, low


@inline_jit
def log1p(x, x_low):
    """log(1 + x + x_low) for 0 ≤ x < 2⁵⁰⁰ in two words, of which the error is 0.3 ULP of the first.

    1 + x = 2ᵏ·(1 + f), √½ < 1 + f < √2, and log(1 + f) = f − f²/2 + s·(f²/2 + R(s²)) with
    s = f / (2 + f); the rounding error of 1 + x enters to first order. The polynomial R is that
    of FreeBSD's e_log.c.
    """
    u, error = add(constant(x, 1.0), x_low, x)
    k = exponent(u)
    f = u * power_of_two(ROUND - k, 0) - 1.0
    inverse = 1.0 / ((2.0 + f) * u)  # one division for two quotients, of which both are small
    s = f * u * inverse
    z = s * s
    r = log1p_series(z)
    half = f * f * 0.5
    rest = s * fma(r, z, half) + (k * LN2_LOW + error * (2.0 + f) * inverse)
    high, low = fast_add(f, rest - half)
    return add(k * LN2_HIGH, low, high)
