"""Vectors from and to memory: load, store, stream, with a mask or without, and prefetch.

Everything goes through pointers. Numba counts references to arrays, and in loops with branches
that cost 20 times what the loop itself did.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xentcli.kernels.simd import I32, I64, MASK, Vector, call, intrinsic, llvm, suffix


@intrinsic
def pointer(typing: Any, array: Any, index: Any) -> Any:
    """Where a place of a contiguous array is in memory."""
    kind = types.CPointer(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])

    return kind(array, types.intp), generate


def _place(builder: Any, kind: Any, values: Any) -> Any:
    return builder.bitcast(builder.gep(values[0], [values[1]]), llvm(kind).as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """16 neighbours, from any address."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_place(builder, kind, values), align=array.dtype.bitwidth // 8)

    return kind(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 neighbours to any address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _place(builder, value, values), align=array.dtype.bitwidth // 8)

    return types.void(array, types.intp, value), generate


@intrinsic
def load_some(typing: Any, array: Any, index: Any, mask: Any, other: Any) -> Any:
    """The neighbours that the mask selects; what `other` holds in the lanes left out."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(builder, kind, values)
        align = I32(array.dtype.bitwidth // 8)
        name = f"llvm.masked.load.{suffix(kind)}.p0"
        return call(builder, name, llvm(kind), [place, align, *values[2:]])

    return (kind(array, types.intp, MASK, kind), generate) if other == kind else None


@intrinsic
def store_some(typing: Any, array: Any, index: Any, mask: Any, value: Any) -> Any:
    """Write the neighbours that the mask selects."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(builder, value, values)
        align = I32(array.dtype.bitwidth // 8)
        name = f"llvm.masked.store.{suffix(value)}.p0"
        call(builder, name, ir.VoidType(), [values[3], place, align, values[2]])

    return types.void(array, types.intp, MASK, value), generate


@intrinsic
def stream(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 neighbours past the caches; the address is a multiple of 64 bytes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        written = builder.store(values[2], _place(builder, value, values), align=64)
        written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))

    return types.void(array, types.intp, value), generate


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


@intrinsic
def size_of(typing: Any, array: Any) -> Any:
    """Bytes of each number; LLVM knows it when it compiles."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return I64(array.dtype.bitwidth // 8)

    return types.int64(array), generate
