"""Vectors from and to memory: load, store, stream, with a mask or without, and prefetch.

Everything goes through pointers. Numba counts references to arrays, and in loops with branches
that cost 20 times what the loop itself did.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.imputils import impl_ret_borrowed

from xentcli.backends.cpu.half_types import held, narrowed, widened
from xentcli.backends.cpu.simd import F64, I32, I64, LANES, MASK, call, intrinsic, llvm, splatted


@intrinsic
def pointer(typing: Any, array: Any, index: Any) -> Any:
    """Where an array's data are, and `index` elements on."""
    kind = types.CPointer(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])

    return kind(array, types.intp), generate


@intrinsic
def keep(typing: Any, array: Any) -> Any:
    """The last use of an array. Without it Numba frees the memory where the name of the array
    was last read, although pointers into it are still in use."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), generate


@intrinsic
def typed_like(typing: Any, array: Any, other: Any) -> Any:
    """The array with the type of another one, which may be read-only and less regular: so that
    a kernel is compiled for one type and not for two."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return impl_ret_borrowed(context, builder, signature.return_type, values[0])

    return other(array, other), generate


@intrinsic
def moved(typing: Any, place: Any, by: Any) -> Any:
    """A pointer some elements on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.gep(values[0], [values[1]])

    return place(place, types.intp), generate


def line_of(array: Any) -> Any:
    """The LLVM type of 16 elements as they lie in memory."""
    bits = array.dtype.bitwidth
    wholes: Any = ir.IntType(bits)
    element = {32: ir.FloatType(), 64: ir.DoubleType()}.get(bits, wholes)
    return ir.VectorType(element, LANES)


def _masked(array: Any) -> str:
    bits = array.dtype.bitwidth
    return f"v{LANES}{'i' if bits == 16 else 'f'}{bits}.p0"


def place_of(builder: Any, array: Any, values: Any) -> Any:
    return builder.bitcast(builder.gep(values[0], [values[1]]), line_of(array).as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """16 neighbours, from any address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.load(place_of(builder, array, values), align=array.dtype.bitwidth // 8)
        return widened(builder, array.dtype, bits)

    return held(array)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 neighbours to any address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[2])
        builder.store(bits, place_of(builder, array, values), align=array.dtype.bitwidth // 8)

    return (types.void(array, types.intp, value), generate) if value == held(array) else None


@intrinsic
def load_some(typing: Any, array: Any, index: Any, mask: Any) -> Any:
    """The neighbours that the mask selects, and 0 in the other lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = line_of(array)
        arguments = [
            place_of(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            values[2],
            ir.Constant(line, None),
        ]
        bits = call(builder, f"llvm.masked.load.{_masked(array)}", line, arguments)
        return widened(builder, array.dtype, bits)

    return held(array)(array, types.intp, MASK), generate


@intrinsic
def store_some(typing: Any, array: Any, index: Any, mask: Any, value: Any) -> Any:
    """Write the neighbours that the mask selects."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[3])
        arguments = [
            bits,
            place_of(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            values[2],
        ]
        call(builder, f"llvm.masked.store.{_masked(array)}", ir.VoidType(), arguments)

    return (types.void(array, types.intp, MASK, value), generate) if value == held(array) else None


@intrinsic
def load_one(typing: Any, array: Any, index: Any) -> Any:
    """One element, in lane 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = line_of(array)
        place = builder.bitcast(builder.gep(values[0], [values[1]]), line.element.as_pointer())
        bits = builder.insert_element(ir.Constant(line, None), builder.load(place), I32(0))
        return widened(builder, array.dtype, bits)

    return held(array)(array, types.intp), generate


@intrinsic
def store_one(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write lane 0. (LLVM makes a store of 4 bytes of a masked one of a single half.)"""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[2])
        element = line_of(array).element.as_pointer()
        place = builder.bitcast(builder.gep(values[0], [values[1]]), element)
        builder.store(builder.extract_element(bits, I32(0)), place)

    return (types.void(array, types.intp, value), generate) if value == held(array) else None


@intrinsic
def stream(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 neighbours past the caches; the address is a multiple of their size, or of 64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = narrowed(builder, array.dtype, values[2])
        align = min(64, LANES * array.dtype.bitwidth // 8)
        written = builder.store(bits, place_of(builder, array, values), align=align)
        written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))

    return (types.void(array, types.intp, value), generate) if value == held(array) else None


def _places(builder: Any, array: Any, values: Any) -> Any:
    """16 pointers, to the elements whose numbers are given as float64."""
    lanes = ir.VectorType(I64, LANES)
    numbers = builder.fptosi(values[1], lanes)
    size = ir.Constant(lanes, [array.dtype.bitwidth // 8] * LANES)
    begin = splatted(builder, lanes, builder.ptrtoint(values[0], I64))
    addresses = builder.add(builder.mul(numbers, size), begin)
    return builder.inttoptr(addresses, ir.VectorType(line_of(array).element.as_pointer(), LANES))


@intrinsic
def gather(typing: Any, array: Any, places: Any) -> Any:
    """16 elements from anywhere; their numbers are whole float64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = line_of(array)
        every = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [1] * LANES)
        arguments = [
            _places(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            every,
            ir.Constant(line, None),
        ]
        name = f"llvm.masked.gather.{_masked(array).replace('.p0', f'.v{LANES}p0')}"
        return widened(builder, array.dtype, call(builder, name, line, arguments))

    return (held(array)(array, places), generate) if places == F64 else None


@intrinsic
def scatter(typing: Any, array: Any, places: Any, mask: Any, value: Any) -> Any:
    """Write the lanes that the mask selects to anywhere."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arguments = [
            narrowed(builder, array.dtype, values[3]),
            _places(builder, array, values),
            I32(array.dtype.bitwidth // 8),
            values[2],
        ]
        name = f"llvm.masked.scatter.{_masked(array).replace('.p0', f'.v{LANES}p0')}"
        call(builder, name, ir.VoidType(), arguments)

    fits = places == F64 and value == held(array)
    return (types.void(array, places, mask, value), generate) if fits else None


@intrinsic
def load_whole(typing: Any, array: Any, index: Any, mask: Any) -> Any:
    """Whole numbers, int64 in memory, as float64; 0 where the mask does not select."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line = ir.VectorType(I64, LANES)
        place = builder.bitcast(builder.gep(values[0], [values[1]]), line.as_pointer())
        arguments = [place, I32(8), values[2], ir.Constant(line, None)]
        numbers = call(builder, f"llvm.masked.load.v{LANES}i64.p0", line, arguments)
        return builder.sitofp(numbers, llvm(F64))

    return F64(array, types.intp, MASK), generate


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for a line of memory; any address will do."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.bitcast(builder.gep(*values[:1], [values[1]]), ir.IntType(8).as_pointer())
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, I32(0), I32(3), I32(1)])

    return types.void(array, types.intp), generate


@intrinsic
def address(typing: Any, place: Any) -> Any:
    """A pointer as a number."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(values[0], I64)

    return types.int64(place), generate
