"""The class axis of logits, and how to go over them in rows of C classes.

Logits of any shape are viewed as (outer, C, inner). Rows are numbered in the C order of the
shape without its class axis, whatever the order in memory. A `Block` is some consecutive rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import numpy as np

from xentcli.arrays.dtypes import Array, bits, native
from xentcli.errors import OptionError, Setting, ShapeError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Rows start to stop, as a box of the (outer, C, inner) view."""

    start: int
    stop: int
    outer: slice
    inner: slice

    def of(self, boxed: Array) -> Array:
        """The block's part of a boxed array, a view."""
        return boxed[self.outer, :, self.inner]

    @cached_property
    def rows(self) -> slice:
        """The block's rows in an array that has one entry per row."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Layout:
    """The shape of the logits, and its class axis."""

    shape: Shape
    class_axis: int

    @cached_property
    def classes(self) -> int:
        """C, the number of classes."""
        return self.shape[self.class_axis]

    @cached_property
    def row_shape(self) -> Shape:
        """The shape without the class axis: that of class indices and of losses per row."""
        return self.shape[: self.class_axis] + self.shape[self.class_axis + 1 :]

    @cached_property
    def rows(self) -> int:
        """N, the number of rows."""
        return prod(self.row_shape)

    @cached_property
    def box(self) -> tuple[int, int, int]:
        """(outer, C, inner)."""
        axis = self.class_axis
        return prod(self.shape[:axis]), self.classes, prod(self.shape[axis + 1 :])

    @cached_property
    def whole(self) -> Block:
        """All rows."""
        outer, _, inner = self.box
        return Block(0, self.rows, slice(0, outer), slice(0, inner))

    def blocks(self, entries: int) -> Iterator[Block]:
        """All rows in order, in blocks of about `entries` logits, at least one row each."""
        outer, classes, inner = self.box
        if 0 < outer * classes * inner <= entries:  # as usual
            return iter((self.whole,))
        return self._parts(entries)

    def _parts(self, entries: int) -> Iterator[Block]:
        outer, classes, inner = self.box
        rows = max(1, entries // max(1, classes))
        step = max(1, rows // max(1, inner))
        for o in range(0, outer, step):
            last = min(outer, o + step)
            width = inner if step > 1 else min(rows, inner)
            for i in range(0, inner, max(1, width)):
                end = min(inner, i + width)
                start = o * inner + i
                stop = start + (last - o) * (end - i)
                yield Block(start, stop, slice(o, last), slice(i, end))

    def boxed(self, array: Array) -> Array:
        """The array as (outer, C, inner): a view where the memory allows it, else a copy."""
        return array.reshape(self.box)


def overlaps_itself(shape: Shape, strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether two elements of an array may share memory; `strides` are bytes.

    >>> overlaps_itself((2, 3), (0, 8), 8), overlaps_itself((2, 3), (-24, 8), 8)
    (True, False)
    """
    if 0 in shape:
        return False
    covered = 0
    steps = ((abs(stride), n) for stride, n in zip(strides, shape, strict=True) if n > 1)
    for stride, n in sorted(steps):
        if stride < covered + itemsize:
            return True
        covered += (n - 1) * stride
    return False


def is_dense(box: Array) -> bool:
    """Whether kernels can use a box: contiguous along an axis, in native byte order."""
    flags = box.flags
    if flags.c_contiguous and flags.aligned and box.dtype.kind == "f" and box.dtype.isnative:
        return True
    axis = 1 if box.shape[2] == 1 else 2
    side_by_side = box.strides[axis] == box.itemsize or box.shape[axis] <= 1
    whole = all(stride % box.itemsize == 0 for stride in box.strides)
    return side_by_side and whole and bits(box).flags.aligned and box.dtype == native(box.dtype)


def dense(box: Array) -> Array:
    """The box itself where kernels can read it, else a copy."""
    return box if is_dense(box) else np.ascontiguousarray(box, native(box.dtype))


@lru_cache(maxsize=256)  # a training loop asks for the same one in every step
def find(shape: Shape, targets: Shape | None, class_axis: int | None) -> Layout:
    """The layout of logits: the class axis asked for, else the one that fits the targets.

    PyTorch's (N, C, d1, …) and the (…, C) of most other libraries are both known; where both
    fit, the axis has to be given.

    >>> find((2, 5, 4), (2, 4), None).class_axis, find((2, 4, 5), (2, 4), None).class_axis
    (1, 2)
    """
    if not 1 <= len(shape) <= 32:
        raise ShapeError("logits", f"shape {shape} is not supported", "use 1 to 32 axes")
    axis = _asked(shape, class_axis) if class_axis is not None else _fitting(shape, targets)
    layout = Layout(shape, axis)
    if layout.classes == 0:
        raise ShapeError("logits", f"shape {shape} has no classes on axis {axis}")
    return layout


def _asked(shape: Shape, axis: int) -> int:
    if not -len(shape) <= axis < len(shape):
        raise OptionError("class_axis", f"{axis} is not an axis of logits of shape {shape}")
    return axis % len(shape)


def _fitting(shape: Shape, targets: Shape | None) -> int:
    last = len(shape) - 1
    if last <= 1:
        return last
    if targets is None:
        return last
    first_fits, last_fits = (
        targets in (shape, Layout(shape, axis).row_shape) for axis in (1, last)
    )
    if first_fits and last_fits:
        raise OptionError(
            "class_axis",
            f"both axis 1 and axis {last} of logits {shape} fit targets {targets}",
            ("use ", Setting("class_axis", 1), " or ", Setting("class_axis", last)),
        )
    return 1 if first_fits else last
