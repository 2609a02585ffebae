"""Arrays of the logits' shape on a device, and what is required of them."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

from xentcli.dtypes import NAMES, default_output, name_of
from xentcli.errors import DataError, DtypeError, ShapeError
from xentcli.layout import Layout
from xentcli.placed import HINT, Placed

if TYPE_CHECKING:
    from xentcli.kernels.cuda.box import Box
    from xentcli.kernels.cuda.queue import Queue


def box(array: Placed, layout: Layout) -> Box:
    """An array of the logits' shape as the kernels see it."""
    from xentcli.kernels.cuda.queue import placed_box

    require_floats(array)
    steps = array.folded(layout.class_axis)
    _, classes, inner = layout.box
    if steps and (steps[2] == 1 if inner > 1 else steps[1] == 1 or classes == 1):
        return placed_box(array, layout.box, steps)
    what = f"strides of {array.strides} bytes with the classes on axis {layout.class_axis}"
    raise ShapeError(array.where, f"{what} cannot be used", HINT)


def require_floats(array: Placed) -> None:
    """An error for numbers that no kernel takes: on a device nothing is converted."""
    if array.dtype not in NAMES.values():
        what = f"dtype {name_of(array.dtype)} cannot be used on a device"
        raise DtypeError(array.where, what, "float16, bfloat16, float32 and float64 can be")


class Result:
    """Where the kernels write numbers like the logits: the caller's array, or a new one."""

    def __init__(self, out: Placed | None, x: Placed, layout: Layout, queue: Queue) -> None:
        from xentcli.kernels.cuda.box import boxed

        self.box: Box | None = None
        dtype = default_output(x.dtype)
        if not layout.rows:
            self.array = queue.room(layout.shape, dtype) if out is None else out.owner
        elif out is not None:
            self.array, self.box = out.owner, box(out, layout)
        else:
            memory = queue.room((prod(layout.shape),), dtype)
            self.array = memory.reshape(layout.shape)
            self.box = boxed(memory, layout.box)


def require_writable(out: Any, layout: Layout, x: Placed, others: Iterable[Any]) -> None:
    """An error for an `out` that cannot take the results, or would spoil what is read."""
    if out is None:
        return
    if not isinstance(out, Placed):
        what = f"a {type(out).__name__} cannot be written to from a device"
        raise DtypeError("out", what, "an array on the device of the logits can")
    if out.shape != layout.shape:
        raise ShapeError("out", f"shape {out.shape} does not fit logits of shape {layout.shape}")
    if out.read_only:
        raise DataError("out", "the array is read-only")
    require_floats(out)
    if out.is_folded:
        raise DataError("out", "some of its entries are the same memory", HINT)
    if not out.is_same(x) and out.shares_memory(x):
        raise DataError("out", "it shares memory with the logits, and is not the logits themselves")
    for array in others:
        if isinstance(array, Placed) and out.shares_memory(array):
            raise DataError("out", f"it shares memory with {array.where}")


def require_one_device(x: Placed, others: Iterable[Any]) -> list[Placed]:
    """The arrays on a device; an error unless it is that of the logits."""
    arrays = [array for array in others if isinstance(array, Placed)]
    for array in arrays:
        if None not in (array.device, x.device) and array.device != x.device:
            what = f"it is on device {array.device}, and the logits are on device {x.device}"
            raise DataError(array.where, what, "all arrays have to be on one device")
    return [x, *arrays]
