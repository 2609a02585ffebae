"""The array that results are written into, the caller's or a new one, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.arrays.dtypes import (
    SUPPORTED_FLOATS,
    Array,
    as_array,
    as_logits,
    default_output,
    name_of,
    native,
)
from xentcli.arrays.layout import Block, Layout, is_dense, overlaps_itself
from xentcli.errors import DataError, DtypeError, ShapeError


class Destination:
    """A buffer of the logits' shape, in any float dtype and any memory order.

    Kernels write straight into it where its memory is dense; else into a block of their own,
    which `put` then copies.
    """

    def __init__(self, layout: Layout, logits: Array, out: Any = None) -> None:
        self.layout = layout
        self._logits = logits
        self._is_new = out is None
        if out is None:
            out = np.empty(layout.shape, default_output(logits.dtype))
        self.given: Array = out
        self.array = out if self._is_new else _checked(out, layout)
        self.dtype = self.array.dtype
        boxed = layout.boxed(self.array)
        is_view = self._is_new or self.array.size == 0
        self._is_view = is_view or np.shares_memory(boxed, self.array)
        self._boxed = boxed if self._is_view else np.empty(layout.box, self.dtype)

    def unshared(self, source: Array) -> Array:
        """The source, or a copy of it if writing here would change it before it is read.

        The logits may be overwritten in place: a row is read before it is written.
        """
        if self._is_new:
            return source
        in_place = source is self._logits and _same_memory(source, self.array)
        if in_place or not np.may_share_memory(source, self.array):
            return source
        return source.copy()

    def buffer(self, block: Block) -> Array:
        """Where a kernel writes the block's rows, a box."""
        part = block.of(self._boxed)
        return part if is_dense(part) else np.empty(part.shape, native(self.dtype))

    def put(self, block: Block, rows: Array) -> None:
        """Take what the kernel wrote into `buffer`."""
        if not (rows.base is self.array or np.may_share_memory(rows, self._boxed)):
            block.of(self._boxed)[...] = rows

    def finish(self) -> Array:
        """The filled array: the caller's own where one was given."""
        if not self._is_view:
            self.array[...] = self._boxed.reshape(self.layout.shape)
        return self.given


def _checked(out: Any, layout: Layout) -> Array:
    if not issubclass(type(out), np.ndarray):  # isinstance would ask a caller's object too
        raise DtypeError("out", f"expected a NumPy array, not {type(out).__name__}")
    array = as_array(out, "out")
    if array.shape != layout.shape:
        raise ShapeError("out", f"shape {array.shape} does not fit logits of shape {layout.shape}")
    if array.dtype.kind in "iu":
        raise DtypeError(
            "out", f"dtype {name_of(array.dtype)} cannot hold fractions", SUPPORTED_FLOATS
        )
    if not array.flags.writeable:
        raise DataError("out", "the array is read-only")
    if overlaps_itself(array.shape, array.strides, array.itemsize):
        raise DataError("out", "some of its elements share memory", "pass a copy of it")
    try:
        return as_logits(array, "out")
    except DtypeError as error:
        raise DtypeError("out", error.what, SUPPORTED_FLOATS) from error


def _same_memory(a: Array, b: Array) -> bool:
    return (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.strides == b.strides
        and a.dtype == b.dtype
    )
