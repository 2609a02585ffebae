"""Arrays of the logits' shape on a device, and what is required of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from xentcli.arrays.device_view import HINT, DeviceArray
from xentcli.arrays.dtypes import NAMES, SUPPORTED_FLOATS, name_of
from xentcli.arrays.layout import Layout
from xentcli.errors import DataError, DtypeError, ShapeError

if TYPE_CHECKING:
    from xentcli.backends.cuda.box import Box
    from xentcli.backends.cuda.stream import Queue


@dataclass(frozen=True)
class AxisGrouping:
    """How the axes of arrays of the logits' shape are grouped into those of a box.

    Rows have the same numbers in all of them.
    """

    layout: Layout
    groups: tuple[Sequence[int], Sequence[int], Sequence[int]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(outer, C, inner)."""
        outer, classes, inner = (prod(self.layout.shape[i] for i in g) for g in self.groups)
        return outer, classes, inner

    @property
    def order(self) -> list[int]:
        """The axes, outermost first."""
        return [axis for group in self.groups for axis in group]

    def steps(self, array: DeviceArray) -> tuple[int, ...] | None:
        """The strides of the box; None where kernels cannot follow them."""
        steps, (_, classes, inner) = array.folded(self.groups), self.shape
        fits = steps and (steps[2] == 1 if inner > 1 else steps[1] == 1 or classes == 1)
        return steps if fits else None

    def box(self, array: DeviceArray) -> Box:
        """The array as the kernels see it."""
        from xentcli.backends.cuda.stream import placed_box

        steps = self.steps(array)
        assert steps is not None
        return placed_box(array, self.shape, steps)

    def new(self, dtype: Any, queue: Queue) -> tuple[Any, Box]:
        """Memory for an array with the layout of the others, and its box."""
        from xentcli.backends.cuda.box import boxed
        from xentcli.backends.cuda.stream import viewed

        shape, order = self.layout.shape, self.order
        memory = queue.room((prod(shape),), dtype)
        strides = [0] * len(shape)
        for place, axis in enumerate(order):
            strides[axis] = prod(shape[i] for i in order[place + 1 :]) * memory.dtype.itemsize
        return viewed(memory, shape, tuple(strides)), boxed(memory, self.shape)


def grouping_of(layout: Layout, arrays: list[DeviceArray]) -> AxisGrouping:
    """The grouping that fits all arrays; an error where there is none.

    Tried in this order: contiguous rows, as after PyTorch's transpose(1, 2); the shape as given;
    contiguous classes, as in Fortran order.
    """
    class_axis, axes = layout.class_axis, range(len(layout.shape))
    others = [axis for axis in axes if axis != class_axis]
    groupings = [
        AxisGrouping(layout, (others, (class_axis,), ())),
        AxisGrouping(layout, (axes[:class_axis], (class_axis,), axes[class_axis + 1 :])),
        AxisGrouping(layout, ((), (class_axis,), others)),
    ]
    for array in arrays:
        require_floats(array)
        left = [grouping for grouping in groupings if grouping.steps(array)]
        if not left:
            what = f"strides of {array.strides} bytes with the classes on axis {class_axis}"
            why = "" if array is arrays[0] else f" together with those of {arrays[0].where}"
            raise ShapeError(array.where, f"{what} are not supported{why}", HINT)
        groupings = left
    return groupings[0]


def require_floats(array: DeviceArray) -> None:
    """An error for a dtype that no kernel takes: on a device nothing is converted."""
    if array.dtype not in NAMES.values():
        what = f"dtype {name_of(array.dtype)} is not supported on a device"
        raise DtypeError(array.where, what, SUPPORTED_FLOATS)


def require_writable(out: Any, layout: Layout, x: DeviceArray, others: Iterable[Any]) -> None:
    """An error for an `out` that cannot take the results, or that would overwrite an input."""
    if out is None:
        return
    if not isinstance(out, DeviceArray):
        what = f"expected an array on the device of the logits, not a {type(out).__name__}"
        raise DtypeError("out", what)
    if out.shape != layout.shape:
        raise ShapeError("out", f"shape {out.shape} does not fit logits of shape {layout.shape}")
    if out.read_only:
        raise DataError("out", "the array is read-only")
    require_floats(out)
    if out.overlaps_itself:
        raise DataError("out", "some of its elements share memory", HINT)
    if not out.is_same(x) and out.shares_memory(x):
        raise DataError("out", "it overlaps the logits without being the same array")
    for array in others:
        if isinstance(array, DeviceArray) and out.shares_memory(array):
            raise DataError("out", f"it shares memory with {array.where}")


def require_one_device(x: DeviceArray, others: Iterable[Any]) -> list[DeviceArray]:
    """The arrays on a device; an error unless it is that of the logits."""
    arrays = [array for array in others if isinstance(array, DeviceArray)]
    for array in arrays:
        if None not in (array.device, x.device) and array.device != x.device:
            what = f"it is on device {array.device}, but the logits are on device {x.device}"
            raise DataError(array.where, what, "move all arrays to one device")
    return [x, *arrays]
