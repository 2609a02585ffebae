"""Vectors as Numba values: arithmetic, comparison, conversion, reduction.

Numba leaves loops to LLVM's auto-vectoriser, which stops at the first maximum, exponential or
streaming store it does not know. Here a type of Numba carries an LLVM vector. LLVM splits it for
narrower CPUs, so nothing depends on AVX-512. All functions below take vectors or plain floats, so
that a formula is written once for both. They follow IEEE 754: nothing is contracted or
reassociated behind one's back, and NaN and infinity are kept.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

intrinsic: Any = extending.intrinsic  # typed by Numba at each call

LANES = 16  # of every vector: one 64-byte line of float32, two of float64

_ELEMENTS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.boolean: ir.IntType(1),
}
I32, I64 = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):
    """16 numbers, or the 16 truth values of a comparison."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Vector({element})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, llvm(kind))


F32, F64, MASK = Vector(types.float32), Vector(types.float64), Vector(types.boolean)


def _element(kind: Any) -> Any:
    return kind.element if isinstance(kind, Vector) else kind


def llvm(kind: Any) -> Any:
    """The LLVM type of a vector or a number."""
    if isinstance(kind, Vector):
        return ir.VectorType(_ELEMENTS[kind.element], LANES)
    return _ELEMENTS[kind]


def suffix(kind: Any) -> str:
    """What ends the names of LLVM's intrinsics on such values."""
    bits = _element(kind).bitwidth
    return f"v{LANES}f{bits}" if isinstance(kind, Vector) else f"f{bits}"


def call(builder: Any, name: str, result: Any, values: Any) -> Any:
    """A call of an LLVM intrinsic."""
    shape = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, shape, name), values)


def _is_number(kind: Any) -> bool:
    return _element(kind) in (types.float32, types.float64)


def splatted(builder: Any, kind: Any, value: Any) -> Any:
    """One number in every lane of a vector of Numba's or of LLVM's."""
    empty = ir.Constant(llvm(kind) if isinstance(kind, Vector) else kind, ir.Undefined)
    one = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(I32, LANES), None))


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """The number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return splatted(builder, Vector(number), values[0])

    return (Vector(number)(number), generate) if number in _ELEMENTS else None


def _named(name: str, arity: int) -> Any:
    """An LLVM intrinsic on numbers of one type."""

    def function(typing: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return call(builder, f"llvm.{name}.{suffix(kinds[0])}", llvm(kinds[0]), values)

        same = all(kind == kinds[0] for kind in kinds) and _is_number(kinds[0])
        return (kinds[0](*kinds), generate) if same else None

    shapes = {
        1: lambda typing, a: function(typing, a),
        2: lambda typing, a, b: function(typing, a, b),
        3: lambda typing, a, b, c: function(typing, a, b, c),
    }
    return intrinsic(shapes[arity])


floor = _named("floor", 1)
fma = _named("fma", 3)  # a·b + c, rounded once
absolute = _named("fabs", 1)
maximum = _named("maximum", 2)  # NaN if either is
smaller = _named("minnum", 2)  # the other one where one is NaN


def _operator(symbol: Any, name: str) -> None:
    """A binary operator of Python for two vectors, or for a vector and a float."""

    @intrinsic
    def both(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, name)(*values)

        return a(a, b), generate

    @overload(symbol)
    def apply(a, b):  # without types: Numba compares it with its lambdas
        vectors = isinstance(a, Vector), isinstance(b, Vector)
        if vectors == (True, True) and a == b:
            return lambda a, b: both(a, b)
        if vectors == (True, False) and a.element == b:
            return lambda a, b: both(a, splat(b))
        if vectors == (False, True) and b.element == a:
            return lambda a, b: both(splat(a), b)
        return None


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _name)


def _comparison(condition: str, *, of_nan: bool) -> Any:
    """A comparison, and what it says where a NaN takes part."""

    @intrinsic
    def compare(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            compared = builder.fcmp_unordered if of_nan else builder.fcmp_ordered
            return compared(condition, *values)

        truth = MASK if isinstance(a, Vector) else types.boolean
        return (truth(a, b), generate) if a == b and _is_number(a) else None

    return compare


less = _comparison("<", of_nan=False)
equal = _comparison("==", of_nan=False)
not_above = _comparison("<=", of_nan=True)


def _chosen(condition: str) -> Any:
    """The one of two numbers for which a comparison is true; b where one of both is NaN. One
    instruction where `maximum` is five."""

    @intrinsic
    def choose(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.select(builder.fcmp_ordered(condition, *values), *values)

        return (a(a, b), generate) if a == b else None

    return choose


larger, lesser = _chosen(">"), _chosen("<")


@intrinsic
def select(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` where the mask is true, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(*values)

    return (yes(mask, yes, no), generate) if yes == no else None


@intrinsic
def constant(typing: Any, like: Any, number: Any) -> Any:
    """A number as what `like` is: in every lane of a vector, or as it is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value = context.cast(builder, values[1], number, _element(like))
        return splatted(builder, like, value) if isinstance(like, Vector) else value

    return like(like, number), generate


def whole(kind: Any, number: int, bits: int = 0) -> Any:
    """A whole number in every lane of a vector, or as one; its bits are the floats'."""
    width: Any = ir.IntType(bits or _element(kind).bitwidth)
    if isinstance(kind, Vector):
        return ir.Constant(ir.VectorType(width, LANES), [number] * LANES)
    return ir.Constant(width, number)


def _format(kind: Any) -> tuple[int, int]:
    """Bits of the mantissa, bias of the exponent."""
    return (52, 1023) if _element(kind).bitwidth == 64 else (23, 127)


@intrinsic(prefer_literal=True)
def power_of_two(typing: Any, biased: Any, more: Any) -> Any:
    """2ⁿ⁺ᵐᵒʳᵉ from n + 1.5·2⁵² (float64) or n + 1.5·2²³ (float32), whose last bits are n."""
    mantissa, bias = _format(biased)
    shift, add = whole(biased, mantissa), whole(biased, (bias + more.literal_value) << mantissa)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.shl(builder.bitcast(values[0], shift.type), shift)
        return builder.bitcast(builder.add(bits, add), llvm(biased))

    return biased(biased, more), generate


@intrinsic
def exponent(typing: Any, value: Any) -> Any:
    """k of a normal number 2ᵏ·f with √½ ≤ f < √2."""
    mantissa, bias = _format(value)
    shift = whole(value, mantissa)
    add = whole(value, (bias << 52) - 0x3FE6A09E667F3BCD)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.add(builder.bitcast(values[0], shift.type), add)
        k = builder.sub(builder.ashr(bits, shift), whole(value, bias))
        return builder.sitofp(k, llvm(value))

    return (value(value), generate) if value in (types.float64, F64) else None


@intrinsic
def lanes_below(typing: Any, count: Any) -> Any:
    """A mask of the first `count` lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.VectorType(I64, LANES)
        empty = ir.Constant(kind, ir.Undefined)
        one = builder.insert_element(empty, values[0], I32(0))
        zeros = ir.Constant(ir.VectorType(I32, LANES), None)
        every = builder.shuffle_vector(one, empty, zeros)
        return builder.icmp_signed("<", ir.Constant(kind, list(range(LANES))), every)

    return MASK(types.int64), generate


@intrinsic
def lane_numbers(typing: Any, like: Any) -> Any:
    """0 to 15."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(llvm(like), [float(lane) for lane in range(LANES)])

    return like(like), generate


@intrinsic(prefer_literal=True)
def rotated(typing: Any, value: Any, by: Any) -> Any:
    """The lanes moved by a literal number, round the end: for reductions in halves."""
    steps = by.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        order = [(lane + steps) % LANES for lane in range(LANES)]
        mask = ir.Constant(ir.VectorType(I32, LANES), order)
        return builder.shuffle_vector(values[0], values[0], mask)

    return value(value, by), generate


@intrinsic
def first(typing: Any, value: Any) -> Any:
    """Lane 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.extract_element(values[0], I32(0))

    return value.element(value), generate
