"""Vectors as Numba values: arithmetic, comparison, conversion, reduction.

Numba leaves loops to LLVM's auto-vectoriser, which gives up at the first maximum, exponential or
streaming store it does not know. Here a Numba type carries an LLVM vector. LLVM splits it for
narrower CPUs, so nothing depends on AVX-512. All functions below take vectors or plain floats, so
that a formula is written once for both. They follow IEEE 754: nothing is contracted or
reassociated, and NaN and infinity are kept.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

intrinsic: Any = extending.intrinsic  # Numba infers the types at each call

LANES = 16  # numbers in every vector: one 64-byte cache line of float32, two of float64

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
    def __init__(self, manager: Any, ty: Vector) -> None:
        super().__init__(manager, ty, llvm_type(ty))


F32, F64, MASK = Vector(types.float32), Vector(types.float64), Vector(types.boolean)


def _element(ty: Any) -> Any:
    return ty.element if isinstance(ty, Vector) else ty


def llvm_type(ty: Any) -> Any:
    """The LLVM type of a vector or a number."""
    if isinstance(ty, Vector):
        return ir.VectorType(_ELEMENTS[ty.element], LANES)
    return _ELEMENTS[ty]


def type_suffix(ty: Any) -> str:
    """The suffix of LLVM's intrinsics for values of this type."""
    bits = _element(ty).bitwidth
    return f"v{LANES}f{bits}" if isinstance(ty, Vector) else f"f{bits}"


def call_intrinsic(builder: Any, name: str, result: Any, values: Any) -> Any:
    """A call of an LLVM intrinsic."""
    shape = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, shape, name), values)


def _is_float(ty: Any) -> bool:
    return _element(ty) in (types.float32, types.float64)


def build_splat(builder: Any, ty: Any, value: Any) -> Any:
    """One number in every lane; `ty` is a vector type of Numba or of LLVM."""
    empty = ir.Constant(llvm_type(ty) if isinstance(ty, Vector) else ty, ir.Undefined)
    one = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(I32, LANES), None))


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """The number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return build_splat(builder, Vector(number), values[0])

    return (Vector(number)(number), generate) if number in _ELEMENTS else None


def _llvm_function(name: str, arity: int) -> Any:
    """An LLVM intrinsic whose arguments all have one type."""

    def function(typing: Any, *operands: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return call_intrinsic(
                builder, f"llvm.{name}.{type_suffix(operands[0])}", llvm_type(operands[0]), values
            )

        same = all(ty == operands[0] for ty in operands) and _is_float(operands[0])
        return (operands[0](*operands), generate) if same else None

    shapes = {
        1: lambda typing, a: function(typing, a),
        2: lambda typing, a, b: function(typing, a, b),
        3: lambda typing, a, b, c: function(typing, a, b, c),
    }
    return intrinsic(shapes[arity])


floor, absolute = _llvm_function("floor", 1), _llvm_function("fabs", 1)
fma = _llvm_function("fma", 3)  # a·b + c, rounded once
copysign = _llvm_function("copysign", 2)
maximum = _llvm_function("maximum", 2)  # NaN if either is
fmin = _llvm_function("minnum", 2)  # the other argument if one is NaN


def _operator(symbol: Any, name: str) -> None:
    """Define a binary operator for two vectors, or for a vector and a float."""

    @intrinsic
    def both(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, name)(*values)

        return a(a, b), generate

    @overload(symbol)
    def apply(a, b):  # no annotations: Numba compares its signature with the lambdas'
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
    """A comparison; `of_nan` is its result where an operand is NaN."""

    @intrinsic
    def compare(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            compared = builder.fcmp_unordered if of_nan else builder.fcmp_ordered
            return compared(condition, *values)

        truth = MASK if isinstance(a, Vector) else types.boolean
        return (truth(a, b), generate) if a == b and _is_float(a) else None

    return compare


less = _comparison("<", of_nan=False)
equal = _comparison("==", of_nan=False)
less_or_nan = _comparison("<", of_nan=True)
less_equal_or_nan = _comparison("<=", of_nan=True)


def _selection(condition: str) -> Any:
    """The larger or smaller of two numbers; b where either is NaN. One instruction, where
    `maximum` takes five."""

    @intrinsic
    def choose(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.select(builder.fcmp_ordered(condition, *values), *values)

        return (a(a, b), generate) if a == b else None

    return choose


select_max, select_min = _selection(">"), _selection("<")


@intrinsic
def select(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` where the mask is true, otherwise `no`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(*values)

    return (yes(mask, yes, no), generate) if yes == no else None


@intrinsic
def constant(typing: Any, like: Any, number: Any) -> Any:
    """A number of the type of `like`: in every lane of a vector, or as a scalar."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value = context.cast(builder, values[1], number, _element(like))
        return build_splat(builder, like, value) if isinstance(like, Vector) else value

    return like(like, number), generate


def int_constant(ty: Any, number: int, bits: int = 0) -> Any:
    """An integer as wide as the floats of a type: in every lane of a vector, or as a scalar."""
    width: Any = ir.IntType(bits or _element(ty).bitwidth)
    if isinstance(ty, Vector):
        return ir.Constant(ir.VectorType(width, LANES), [number] * LANES)
    return ir.Constant(width, number)


def _format(ty: Any) -> tuple[int, int]:
    """Bits of the mantissa, bias of the exponent."""
    return (52, 1023) if _element(ty).bitwidth == 64 else (23, 127)


@intrinsic(prefer_literal=True)
def power_of_two(typing: Any, biased: Any, more: Any) -> Any:
    """2ⁿ⁺ᵐᵒʳᵉ, given n + 1.5·2⁵² (float64) or n + 1.5·2²³ (float32), whose last bits are n."""
    mantissa, bias = _format(biased)
    shift, add = (
        int_constant(biased, mantissa),
        int_constant(biased, (bias + more.literal_value) << mantissa),
    )

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.shl(builder.bitcast(values[0], shift.type), shift)
        return builder.bitcast(builder.add(bits, add), llvm_type(biased))

    return biased(biased, more), generate


@intrinsic
def exponent(typing: Any, value: Any) -> Any:
    """k of a normal number 2ᵏ·f with √½ ≤ f < √2."""
    mantissa, bias = _format(value)
    shift = int_constant(value, mantissa)
    root = {52: 0x3FE6A09E667F3BCD, 23: 0x3F3504F3}[mantissa]  # the bits of √½
    add = int_constant(value, (bias << mantissa) - root)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.add(builder.bitcast(values[0], shift.type), add)
        k = builder.sub(builder.ashr(bits, shift), int_constant(value, bias))
        return builder.sitofp(k, llvm_type(value))

    return (value(value), generate) if _is_float(value) else None


@intrinsic
def lanes_below(typing: Any, count: Any) -> Any:
    """A mask of the first `count` lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        ty = ir.VectorType(I64, LANES)
        empty = ir.Constant(ty, ir.Undefined)
        one = builder.insert_element(empty, values[0], I32(0))
        zeros = ir.Constant(ir.VectorType(I32, LANES), None)
        every = builder.shuffle_vector(one, empty, zeros)
        return builder.icmp_signed("<", ir.Constant(ty, list(range(LANES))), every)

    return MASK(types.int64), generate


@intrinsic
def lane_indices(typing: Any, like: Any) -> Any:
    """A vector of 0 to 15."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(llvm_type(like), [float(lane) for lane in range(LANES)])

    return like(like), generate


@intrinsic(prefer_literal=True)
def rotate(typing: Any, value: Any, by: Any) -> Any:
    """The lanes rotated by a literal number, for reductions in halves."""
    steps = by.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        order = [(lane + steps) % LANES for lane in range(LANES)]
        mask = ir.Constant(ir.VectorType(I32, LANES), order)
        return builder.shuffle_vector(values[0], values[0], mask)

    return value(value, by), generate


@intrinsic
def first_lane(typing: Any, value: Any) -> Any:
    """Lane 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.extract_element(values[0], I32(0))

    return value.element(value), generate
