"""Vectors from and to memory: load, store, streaming store, masked or not, and prefetch.

Everything goes through pointers. Numba counts references to arrays, and in loops with branches
that took 20 times as long as the loop itself.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xentcli.backends.cpu.half_types import narrowed, vector_type, widened
from xentcli.backends.cpu.simd import (
    F64,
    I32,
    I64,
    LANES,
    MASK,
    build_splat,
    call_intrinsic,
    intrinsic,
    llvm_type,
)


@intrinsic
def pointer(typing: Any, array: Any, index: Any) -> Any:
    """A pointer to an element of an array."""
    ty = types.CPointer(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])

    return ty(array, types.intp), generate


@intrinsic
def pointer_at(typing: Any, ptr: Any, offset: Any, like: Any) -> Any:
    """The pointer `offset` bytes on, to elements of the type that `like` points to."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        begin = builder.add(builder.ptrtoint(values[0], I64), values[1])
        return builder.inttoptr(begin, context.get_value_type(like))

    return like(ptr, types.intp, like), generate


@intrinsic
def float64_at(typing: Any, ptr: Any, offset: Any) -> Any:
    """The pointer `offset` bytes on, to float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        begin = builder.add(builder.ptrtoint(values[0], I64), values[1])
        return builder.inttoptr(begin, ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(ptr, types.intp), generate


def _or_none(box: Any, ptr: Any, result: Any) -> Any:
    """A pointer some bytes on, or None where the box is None."""
    if isinstance(box, types.NoneType):
        return types.none(box, ptr, types.intp), lambda context, *_: context.get_dummy_value()

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        begin = builder.add(builder.ptrtoint(values[1], I64), values[2])
        return builder.inttoptr(begin, context.get_value_type(result))

    return result(box, ptr, types.intp), generate


@intrinsic
def float64_or_none(typing: Any, box: Any, ptr: Any, offset: Any) -> Any:
    """The same, or None where the box is None."""
    return _or_none(box, ptr, types.CPointer(types.float64))


@intrinsic
def pointer_or_none(typing: Any, box: Any, ptr: Any, offset: Any) -> Any:
    """The same to elements of the box's type."""
    return _or_none(box, ptr, getattr(box, "types", [None])[0])


@intrinsic
def advance(typing: Any, ptr: Any, by: Any) -> Any:
    """A pointer plus some elements."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.gep(values[0], [values[1]])

    return ptr(ptr, types.intp), generate


def memory_vector(array: Any) -> Any:
    """The LLVM type of 16 elements in memory."""
    bits = array.dtype.bitwidth
    integer: Any = ir.IntType(bits)
    element = {32: ir.FloatType(), 64: ir.DoubleType()}.get(bits, integer)
    return ir.VectorType(element, LANES)


def _masked_suffix(array: Any) -> str:
    bits = array.dtype.bitwidth
    return f"v{LANES}{'i' if bits == 16 else 'f'}{bits}.p0"


def vector_pointer(builder: Any, array: Any, values: Any) -> Any:
    return builder.bitcast(builder.gep(values[0], [values[1]]), memory_vector(array).as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """16 consecutive elements, from any address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.load(vector_pointer(builder, array, values), align=array.dtype.bitwidth // 8)
        return widened(builder, array.dtype, bits)

    return vector_type(array)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 consecutive elements to any address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[2])
        builder.store(bits, vector_pointer(builder, array, values), align=array.dtype.bitwidth // 8)

    return (types.void(array, types.intp, value), generate) if value == vector_type(array) else None


@intrinsic
def load_masked(typing: Any, array: Any, index: Any, mask: Any) -> Any:
    """Those of 16 consecutive elements that the mask selects, and 0 in the other lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = memory_vector(array)
        arguments = [
            vector_pointer(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            values[2],
            ir.Constant(line, None),
        ]
        bits = call_intrinsic(builder, f"llvm.masked.load.{_masked_suffix(array)}", line, arguments)
        return widened(builder, array.dtype, bits)

    return vector_type(array)(array, types.intp, MASK), generate


@intrinsic
def store_masked(typing: Any, array: Any, index: Any, mask: Any, value: Any) -> Any:
    """Write those of 16 consecutive elements that the mask selects."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[3])
        arguments = [
            bits,
            vector_pointer(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            values[2],
        ]
        call_intrinsic(
            builder, f"llvm.masked.store.{_masked_suffix(array)}", ir.VoidType(), arguments
        )

    return (
        (types.void(array, types.intp, MASK, value), generate)
        if value == vector_type(array)
        else None
    )


@intrinsic
def load_element(typing: Any, array: Any, index: Any) -> Any:
    """One element, in lane 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = memory_vector(array)
        ptr = builder.bitcast(builder.gep(values[0], [values[1]]), line.element.as_pointer())
        bits = builder.insert_element(ir.Constant(line, None), builder.load(ptr), I32(0))
        return widened(builder, array.dtype, bits)

    return vector_type(array)(array, types.intp), generate


@intrinsic
def store_element(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write lane 0. (LLVM turns a masked store of a single half type into a store of 4 bytes.)"""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[2])
        element = memory_vector(array).element.as_pointer()
        ptr = builder.bitcast(builder.gep(values[0], [values[1]]), element)
        builder.store(builder.extract_element(bits, I32(0)), ptr)

    return (types.void(array, types.intp, value), generate) if value == vector_type(array) else None


@intrinsic
def stream_store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 elements past the caches; the address must be a multiple of their size, or of 64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[2])
        align = min(64, LANES * array.dtype.bitwidth // 8)
        written = builder.store(bits, vector_pointer(builder, array, values), align=align)
        written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))

    return (types.void(array, types.intp, value), generate) if value == vector_type(array) else None


def _element_pointers(builder: Any, array: Any, values: Any) -> Any:
    """16 pointers, to the elements whose indices are given as float64."""
    lanes = ir.VectorType(I64, LANES)
    numbers = builder.fptosi(values[1], lanes)
    size = ir.Constant(lanes, [array.dtype.bitwidth // 8] * LANES)
    begin = build_splat(builder, lanes, builder.ptrtoint(values[0], I64))
    addresses = builder.add(builder.mul(numbers, size), begin)
    return builder.inttoptr(
        addresses, ir.VectorType(memory_vector(array).element.as_pointer(), LANES)
    )


@intrinsic
def gather(typing: Any, array: Any, indices: Any) -> Any:
    """16 elements from anywhere; the indices are integers as float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = memory_vector(array)
        every = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [1] * LANES)
        arguments = [
            _element_pointers(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            every,
            ir.Constant(line, None),
        ]
        name = f"llvm.masked.gather.{_masked_suffix(array).replace('.p0', f'.v{LANES}p0')}"
        return widened(builder, array.dtype, call_intrinsic(builder, name, line, arguments))

    return (vector_type(array)(array, indices), generate) if indices == F64 else None


@intrinsic
def scatter(typing: Any, array: Any, indices: Any, mask: Any, value: Any) -> Any:
    """Write the lanes that the mask selects to anywhere; the indices are integers as float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arguments = [
            narrowed(builder, array.dtype, values[3]),
            _element_pointers(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            values[2],
        ]
        name = f"llvm.masked.scatter.{_masked_suffix(array).replace('.p0', f'.v{LANES}p0')}"
        call_intrinsic(builder, name, ir.VoidType(), arguments)

    fits = indices == F64 and value == vector_type(array)
    return (types.void(array, indices, mask, value), generate) if fits else None


@intrinsic
def load_int64(typing: Any, array: Any, index: Any, mask: Any) -> Any:
    """int64 from memory as float64; 0 in the lanes that the mask does not select."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = ir.VectorType(I64, LANES)
        ptr = builder.bitcast(builder.gep(values[0], [values[1]]), line.as_pointer())
        arguments = [ptr, I32(8), values[2], ir.Constant(line, None)]
        numbers = call_intrinsic(builder, f"llvm.masked.load.v{LANES}i64.p0", line, arguments)
        return builder.sitofp(numbers, llvm_type(F64))

    return F64(array, types.intp, MASK), generate


def _prefetch(how: Any) -> Any:
    @intrinsic
    def prefetch_line(typing: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            ptr = builder.bitcast(builder.gep(*values[:1], [values[1]]), ir.IntType(8).as_pointer())
            call_intrinsic(builder, "llvm.prefetch.p0", ir.VoidType(), [ptr, how, I32(3), I32(1)])

        return types.void(array, types.intp), generate

    return prefetch_line


# A cache line; any address is allowed.
prefetch, prefetch_to_write = _prefetch(I32(0)), _prefetch(I32(1))


@intrinsic
def address(typing: Any, ptr: Any) -> Any:
    """A pointer as an integer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(values[0], I64)

    return types.int64(ptr), generate
