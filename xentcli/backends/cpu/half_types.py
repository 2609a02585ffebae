"""float16 and bfloat16: the dtypes of arrays, and the vectors they are computed in.

| dtype of the array | meaning  | vector |
|--------------------|----------|--------|
| float64            | float64  | F64    |
| float32            | float32  | F32    |
| uint16             | float16  | F32    |
| int16              | bfloat16 | F32    |

Numba supports neither half type on the CPU, so arrays of them are passed as arrays of their bits.
They are widened when loaded, which is exact, and rounded once when stored, ties to even.
"""

from __future__ import annotations

import platform
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types

from xentcli.backends.cpu.simd import (
    F32,
    F64,
    LANES,
    Vector,
    build_splat,
    int_constant,
    intrinsic,
    llvm_type,
)

_config: Any = numba.config  # its names are made at import, unknown to type checkers


def _converts_halves() -> bool:
    """Whether this CPU has instructions for float16. Without them LLVM calls a function that does
    not exist, and the process crashes."""
    if _config.CPU_NAME is not None or _config.CPU_FEATURES is not None:
        return False
    arm = platform.machine() in ("arm64", "aarch64")
    return arm or bool(binding.get_host_cpu_features().get("f16c"))


IN_HARDWARE = _converts_halves()
_HALF_BITS = ir.VectorType(ir.IntType(16), LANES)


def vector_type(array: Any) -> Vector:
    """The type of a vector of 16 elements of an array."""
    return F64 if array.dtype == types.float64 else F32


def widened(builder: Any, dtype: Any, value: Any) -> Any:
    """Elements as they lie in memory, as a vector to compute with."""
    if dtype in (types.float32, types.float64):
        return value
    if dtype == types.uint16 and IN_HARDWARE:
        half = ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(builder.bitcast(value, half), llvm_type(F32))
    bits = builder.zext(value, int_constant(F32, 0).type)
    if dtype == types.int16:
        return builder.bitcast(builder.shl(bits, int_constant(F32, 16)), llvm_type(F32))
    return _from_float16(builder, bits)


def narrowed(builder: Any, dtype: Any, value: Any) -> Any:
    """A vector as its elements lie in memory; −0.0, which rounding may give, becomes 0.0."""
    if dtype in (types.float32, types.float64):
        return value
    bits = rounded(builder, dtype, value)
    minus_zero = ir.Constant(_HALF_BITS, [0x8000] * LANES)
    is_minus_zero = builder.icmp_unsigned("==", bits, minus_zero)
    return builder.select(is_minus_zero, ir.Constant(_HALF_BITS, None), bits)


def rounded(builder: Any, dtype: Any, value: Any) -> Any:
    """The bits of the nearest half types."""
    if dtype == types.uint16 and IN_HARDWARE:
        half = builder.fptrunc(value, ir.VectorType(ir.HalfType(), LANES))
        return builder.bitcast(half, _HALF_BITS)
    wide = builder.bitcast(value, int_constant(F32, 0).type)
    if dtype == types.uint16:
        return builder.trunc(_to_float16(builder, wide), _HALF_BITS)
    high = builder.lshr(wide, int_constant(F32, 16))
    size = builder.and_(wide, int_constant(F32, 0x7FFFFFFF))
    is_nan = builder.icmp_unsigned(">", size, int_constant(F32, 0x7F800000))
    quiet = builder.or_(high, int_constant(F32, 0x40))
    near = builder.lshr(nearest_bfloat16(builder, wide), int_constant(F32, 16))
    return builder.trunc(builder.select(is_nan, quiet, near), _HALF_BITS)


def _from_float16(builder: Any, bits: Any) -> Any:
    """The exponent's bias grows by 112: a multiplication, which is right for subnormals too."""
    size = builder.and_(bits, int_constant(F32, 0x7FFF))
    moved = builder.shl(size, int_constant(F32, 13))
    scaled = builder.fmul(
        builder.bitcast(moved, llvm_type(F32)), ir.Constant(llvm_type(F32), [2.0**112] * LANES)
    )
    special = builder.icmp_unsigned(">", size, int_constant(F32, 0x7BFF))
    number = builder.select(
        special,
        builder.or_(moved, int_constant(F32, 0x7F800000)),
        builder.bitcast(scaled, bits.type),
    )
    sign = builder.shl(builder.and_(bits, int_constant(F32, 0x8000)), int_constant(F32, 16))
    return builder.bitcast(builder.or_(number, sign), llvm_type(F32))


def nearest_bfloat16(builder: Any, bits: Any) -> Any:
    """The bits of float32, none NaN, of which the first 16 are the nearest bfloat16."""
    high = builder.lshr(bits, int_constant(F32, 16))
    odd = builder.and_(high, int_constant(F32, 1))
    return builder.add(builder.add(bits, int_constant(F32, 0x7FFF)), odd)


def _to_float16(builder: Any, bits: Any) -> Any:
    size = builder.and_(bits, int_constant(F32, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(size, int_constant(F32, 13)), int_constant(F32, 1))
    rebiased = builder.sub(size, int_constant(F32, (112 << 23) - 0xFFF))
    normal = builder.lshr(builder.add(rebiased, odd), int_constant(F32, 13))
    # Adding 1/2 rounds a subnormal, and leaves its bits at the end of the sum.
    half = ir.Constant(llvm_type(F32), [0.5] * LANES)
    sum_ = builder.bitcast(builder.fadd(builder.bitcast(size, llvm_type(F32)), half), size.type)
    small = builder.sub(sum_, int_constant(F32, 0x3F000000))
    finite = builder.select(
        builder.icmp_unsigned("<", size, int_constant(F32, 113 << 23)), small, normal
    )
    is_nan = builder.icmp_unsigned(">", size, int_constant(F32, 0x7F800000))
    special = builder.select(is_nan, int_constant(F32, 0x7E00), int_constant(F32, 0x7C00))
    is_finite = builder.icmp_unsigned("<", size, int_constant(F32, (127 + 16) << 23))
    sign = builder.and_(builder.lshr(bits, int_constant(F32, 16)), int_constant(F32, 0x8000))
    return builder.or_(builder.select(is_finite, finite, special), sign)


@intrinsic
def is_float64(typing: Any, array: Any) -> Any:
    """Whether an array holds float64: a constant at compile time."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(1), vector_type(array) == F64)

    return types.boolean(array), generate


@intrinsic
def itemsize(typing: Any, array: Any) -> Any:
    """Bytes per element: a constant at compile time."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(64), array.dtype.bitwidth // 8)

    return types.int64(array), generate


@intrinsic
def constant_for(typing: Any, array: Any, number: Any) -> Any:
    """A vector of the type that the array's elements are loaded as, with a number in every lane."""
    ty = vector_type(array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return build_splat(builder, ty, context.cast(builder, values[1], number, ty.element))

    return ty(array, number), generate


@intrinsic
def as_float64(typing: Any, value: Any) -> Any:
    """A vector converted to float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return values[0] if value == F64 else builder.fpext(values[0], llvm_type(F64))

    return (F64(value), generate) if value in (F32, F64) else None


@intrinsic
def cast_for(typing: Any, array: Any, value: Any) -> Any:
    """A vector converted to the type that the array's elements are loaded as."""
    ty = vector_type(array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if ty == value:
            return values[1]
        return (builder.fptrunc if ty == F32 else builder.fpext)(values[1], llvm_type(ty))

    return ty(array, value), generate
