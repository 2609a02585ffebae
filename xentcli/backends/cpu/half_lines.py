"""Lines of memory of 32 float16 or bfloat16, as two vectors of 16.

Of float16 they are the first and the last 16, of bfloat16 those at even and at odd places: each is
half of a 32-bit number already, and widened by one instruction where 16 in a row take two. Written
at once they take half as many too. And 64 bytes are what a processor writes past its caches
without reading them first: of 32 bytes at a time, rows of 1,000 classes took 8 ns for 16 classes
in place of 5.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xentcli.backends.cpu.half_types import nearest_bfloat16, rounded, widened
from xentcli.backends.cpu.simd import (
    F32,
    I32,
    LANES,
    call_intrinsic,
    int_constant,
    intrinsic,
    llvm_type,
)

LINE = 2 * LANES
_BITS = ir.VectorType(ir.IntType(16), LINE)
PAIR = types.UniTuple(F32, 2)


def _is_half(array: Any) -> bool:
    return array.dtype in (types.int16, types.uint16)


def _line_pointer(builder: Any, values: Any) -> Any:
    return builder.bitcast(builder.gep(values[0], [values[1]]), _BITS.as_pointer())


def _first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the first `count` of 32 lanes."""
    lane = ir.IntType(16)
    line, start = ir.VectorType(lane, LINE), ir.Constant(ir.VectorType(lane, LINE), ir.Undefined)
    one = builder.insert_element(start, builder.trunc(count, lane), I32(0))
    every = builder.shuffle_vector(one, start, ir.Constant(ir.VectorType(I32, LINE), None))
    return builder.icmp_signed("<", ir.Constant(line, list(range(LINE))), every)


def _half_of(builder: Any, line: Any, begin: int) -> Any:
    order = ir.Constant(ir.VectorType(I32, LANES), list(range(begin, begin + LANES)))
    return builder.shuffle_vector(line, line, order)


def _widened(context: Any, builder: Any, dtype: Any, line: Any) -> Any:
    if dtype == types.int16:
        wide = builder.bitcast(line, int_constant(F32, 0).type)
        bits = [
            builder.shl(wide, int_constant(F32, 16)),
            builder.and_(wide, int_constant(F32, 0xFFFF0000)),
        ]
        parts = [builder.bitcast(value, llvm_type(F32)) for value in bits]
    else:
        parts = [widened(builder, dtype, _half_of(builder, line, k)) for k in (0, LANES)]
    return context.make_tuple(builder, PAIR, parts)


def _narrowed(builder: Any, array: Any, in_turn: bool, parts: Any) -> Any:
    """The line that two vectors become, none NaN; −0.0, which rounding may give, becomes 0.0."""
    if in_turn and array.dtype == types.int16:
        wide = (builder.bitcast(part, int_constant(F32, 0).type) for part in parts)
        even, odd = (nearest_bfloat16(builder, part) for part in wide)
        even = builder.lshr(even, int_constant(F32, 16))
        odd = builder.and_(odd, int_constant(F32, 0xFFFF0000))
        line = builder.bitcast(builder.or_(even, odd), _BITS)
    else:
        parts = _in_order(builder, parts) if in_turn else parts
        first, second = (rounded(builder, array.dtype, part) for part in parts)
        order = ir.Constant(ir.VectorType(I32, LINE), list(range(LINE)))
        line = builder.shuffle_vector(first, second, order)
    minus_zero = ir.Constant(_BITS, [0x8000] * LINE)
    is_minus_zero = builder.icmp_unsigned("==", line, minus_zero)
    return builder.select(is_minus_zero, ir.Constant(_BITS, None), line)


def _in_order(builder: Any, parts: Any) -> list[Any]:
    """Vectors of the even and the odd places as the first 16 and the last 16."""
    orders = [[k // 2 + LANES * (k % 2) for k in range(LINE)][i : i + LANES] for i in (0, LANES)]
    return [
        builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(I32, LANES), order))
        for order in orders
    ]


def _parts(builder: Any, pair: Any) -> list[Any]:
    return [builder.extract_value(pair, k) for k in (0, 1)]


@intrinsic
def takes_turns(typing: Any, array: Any) -> Any:
    """Whether the two vectors of a line are its even and its odd places: a constant."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(1), array.dtype == types.int16)

    return types.boolean(array), generate


@intrinsic
def load_line(typing: Any, array: Any, index: Any) -> Any:
    """32 consecutive halves, from any address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = builder.load(_line_pointer(builder, values), align=2)
        return _widened(context, builder, array.dtype, line)

    return (PAIR(array, types.intp), generate) if _is_half(array) else None


@intrinsic
def load_line_below(typing: Any, array: Any, index: Any, count: Any) -> Any:
    """The first `count` of 32 consecutive halves, and −inf in the other lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        least = {types.int16: 0xFF80, types.uint16: 0xFC00}[array.dtype]
        arguments = [
            _line_pointer(builder, values),
            I32(2),
            _first_lanes(builder, values[2]),
            ir.Constant(_BITS, [least] * LINE),
        ]
        name = f"llvm.masked.load.v{LINE}i16.p0"
        line = call_intrinsic(builder, name, _BITS, arguments)
        return _widened(context, builder, array.dtype, line)

    return (PAIR(array, types.intp, types.int64), generate) if _is_half(array) else None


@intrinsic
def store_line(typing: Any, array: Any, index: Any, like: Any, pair: Any) -> Any:
    """Write 32 consecutive halves to any address; the vectors are those of lines of `like`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parts = _parts(builder, values[3])
        line = _narrowed(builder, array, like.dtype == types.int16, parts)
        builder.store(line, _line_pointer(builder, values), align=2)

    return (types.void(array, types.intp, like, PAIR), generate) if pair == PAIR else None


@intrinsic
def stream_line(typing: Any, array: Any, index: Any, like: Any, pair: Any) -> Any:
    """The same past the caches; the address must be a multiple of 64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parts = _parts(builder, values[3])
        line = _narrowed(builder, array, like.dtype == types.int16, parts)
        written = builder.store(line, _line_pointer(builder, values), align=64)
        written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))

    return (types.void(array, types.intp, like, PAIR), generate) if pair == PAIR else None


@intrinsic
def store_line_below(typing: Any, array: Any, index: Any, count: Any, like: Any, pair: Any) -> Any:
    """Write the first `count` of 32 consecutive halves."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parts = _parts(builder, values[4])
        arguments = [
            _narrowed(builder, array, like.dtype == types.int16, parts),
            _line_pointer(builder, values),
            I32(2),
            _first_lanes(builder, values[2]),
        ]
        name = f"llvm.masked.store.v{LINE}i16.p0"
        call_intrinsic(builder, name, ir.VoidType(), arguments)

    fits = pair == PAIR
    return (types.void(array, types.intp, types.int64, like, PAIR), generate) if fits else None


@intrinsic
def in_order(typing: Any, like: Any, pair: Any) -> Any:
    """The vectors of a line of `like` as its first 16 and its last 16."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parts = _parts(builder, values[1])
        if like.dtype == types.int16:
            parts = _in_order(builder, parts)
        return context.make_tuple(builder, PAIR, parts)

    return (PAIR(like, PAIR), generate) if pair == PAIR else None
