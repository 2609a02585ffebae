"""What arrays hold, and the vectors that is computed on.

| element of an array | meaning  | in a vector |
|---------------------|----------|-------------|
| float64             | float64  | F64         |
| float32             | float32  | F32         |
| uint16              | float16  | F32         |
| int16               | bfloat16 | F32         |

Numba knows neither half type on the CPU, so their bits travel as whole numbers. They are widened
when they are loaded, which is exact, and rounded once when they are stored, ties to even.
"""

from __future__ import annotations

import platform
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types

from xentcli.backends.cpu.simd import F32, F64, LANES, Vector, intrinsic, llvm, splatted, whole

_config: Any = numba.config  # its names are made at import, unknown to type checkers


def _converts_halves() -> bool:
    """Whether LLVM knows instructions for float16 here. Where it has none it calls a function
    that is not there, and the process ends."""
    if _config.CPU_NAME is not None or _config.CPU_FEATURES is not None:
        return False
    arm = platform.machine() in ("arm64", "aarch64")
    return arm or bool(binding.get_host_cpu_features().get("f16c"))


IN_HARDWARE = _converts_halves()
_LINE = ir.VectorType(ir.IntType(16), LANES)


def held(array: Any) -> Vector:
    """The vector that 16 elements of an array become."""
    return F64 if array.dtype == types.float64 else F32


def widened(builder: Any, dtype: Any, value: Any) -> Any:
    """What was loaded as a vector to compute on."""
    if dtype in (types.float32, types.float64):
        return value
    if dtype == types.uint16 and IN_HARDWARE:
        half = ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(builder.bitcast(value, half), llvm(F32))
    bits = builder.zext(value, whole(F32, 0).type)
    if dtype == types.int16:
        return builder.bitcast(builder.shl(bits, whole(F32, 16)), llvm(F32))
    return _from_float16(builder, bits)


def narrowed(builder: Any, dtype: Any, value: Any) -> Any:
    """A vector as it is stored."""
    if dtype in (types.float32, types.float64):
        return value
    if dtype == types.uint16 and IN_HARDWARE:
        half = builder.fptrunc(value, ir.VectorType(ir.HalfType(), LANES))
        return builder.bitcast(half, _LINE)
    bits = builder.bitcast(value, whole(F32, 0).type)
    convert = _to_bfloat16 if dtype == types.int16 else _to_float16
    return builder.trunc(convert(builder, bits), _LINE)


def _from_float16(builder: Any, bits: Any) -> Any:
    """The exponent's bias changes by 112: a multiplication, which subnormals survive."""
    size = builder.and_(bits, whole(F32, 0x7FFF))
    moved = builder.shl(size, whole(F32, 13))
    scaled = builder.fmul(
        builder.bitcast(moved, llvm(F32)), ir.Constant(llvm(F32), [2.0**112] * LANES)
    )
    special = builder.icmp_unsigned(">", size, whole(F32, 0x7BFF))
    number = builder.select(
        special,
        builder.or_(moved, whole(F32, 0x7F800000)),
        builder.bitcast(scaled, bits.type),
    )
    sign = builder.shl(builder.and_(bits, whole(F32, 0x8000)), whole(F32, 16))
    return builder.bitcast(builder.or_(number, sign), llvm(F32))


def _to_bfloat16(builder: Any, bits: Any) -> Any:
    high = builder.lshr(bits, whole(F32, 16))
    odd = builder.and_(high, whole(F32, 1))
    up = builder.add(builder.add(bits, whole(F32, 0x7FFF)), odd)
    size = builder.and_(bits, whole(F32, 0x7FFFFFFF))
    is_nan = builder.icmp_unsigned(">", size, whole(F32, 0x7F800000))
    quiet = builder.or_(high, whole(F32, 0x40))
    return builder.select(is_nan, quiet, builder.lshr(up, whole(F32, 16)))


def _to_float16(builder: Any, bits: Any) -> Any:
    size = builder.and_(bits, whole(F32, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(size, whole(F32, 13)), whole(F32, 1))
    rebiased = builder.sub(size, whole(F32, (112 << 23) - 0xFFF))
    normal = builder.lshr(builder.add(rebiased, odd), whole(F32, 13))
    # Adding 1/2 leaves a subnormal's bits, rounded, at the end of the sum.
    half = ir.Constant(llvm(F32), [0.5] * LANES)
    sum_ = builder.bitcast(builder.fadd(builder.bitcast(size, llvm(F32)), half), size.type)
    small = builder.sub(sum_, whole(F32, 0x3F000000))
    finite = builder.select(builder.icmp_unsigned("<", size, whole(F32, 113 << 23)), small, normal)
    is_nan = builder.icmp_unsigned(">", size, whole(F32, 0x7F800000))
    special = builder.select(is_nan, whole(F32, 0x7E00), whole(F32, 0x7C00))
    is_finite = builder.icmp_unsigned("<", size, whole(F32, (127 + 16) << 23))
    sign = builder.and_(builder.lshr(bits, whole(F32, 16)), whole(F32, 0x8000))
    return builder.or_(builder.select(is_finite, finite, special), sign)


@intrinsic
def doubles(typing: Any, array: Any) -> Any:
    """Whether an array holds float64; LLVM knows it when it compiles."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(1), held(array) == F64)

    return types.boolean(array), generate


@intrinsic
def size_of(typing: Any, array: Any) -> Any:
    """Bytes of each element; LLVM knows it when it compiles."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(64), array.dtype.bitwidth // 8)

    return types.int64(array), generate


@intrinsic
def filled(typing: Any, array: Any, number: Any) -> Any:
    """A vector as the array's elements become one, with one number in every lane."""
    kind = held(array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return splatted(builder, kind, context.cast(builder, values[1], number, kind.element))

    return kind(array, number), generate


@intrinsic
def wide(typing: Any, value: Any) -> Any:
    """As float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return values[0] if value == F64 else builder.fpext(values[0], llvm(F64))

    return (F64(value), generate) if value in (F32, F64) else None


@intrinsic
def as_stored(typing: Any, array: Any, value: Any) -> Any:
    """A vector rounded to what the array's elements are computed on."""
    kind = held(array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if kind == value:
            return values[1]
        return (builder.fptrunc if kind == F32 else builder.fpext)(values[1], llvm(kind))

    return kind(array, value), generate
