"""Whether a gradient or a loss can be compared at all; if not, why, and what would fit."""

from __future__ import annotations

from itertools import permutations

from xentcli.arrays.layout import Layout, Shape
from xentcli.errors import Setting, ShapeError
from xentcli.options import LossOptions


def require_same(given: Shape, layout: Layout) -> None:
    """An error unless a gradient has the shape of the logits; another layout is recognised."""
    if given != layout.shape:
        what = f"shape {given}, but the logits have {layout.shape}"
        raise ShapeError("grad", *_other_layout(given, layout, what))


def _other_layout(given: Shape, layout: Layout, what: str) -> tuple[str, str | None]:
    shape = layout.shape
    axes = _axes(given, shape)
    if axes is not None and len(shape) == 2:
        return f"{what}: it is transposed", "in Python: numpy.save('grad.npy', grad.T)"
    if axes is not None:
        hint = f"in Python: numpy.save('grad.npy', grad.transpose{axes})"
        return f"{what}: its axes are in another order", hint
    if _size(given) == _size(shape):
        finfo = "it is flattened" if len(given) < len(shape) else "it has other axes"
        return f"{what}: {finfo}", f"in Python: numpy.save('grad.npy', grad.reshape{shape})"
    if given == layout.row_shape:
        return f"{what}: that is one number per row", "a gradient has one for each class too"
    return what, None


def _axes(given: Shape, shape: Shape) -> tuple[int, ...] | None:
    """The order of the given axes that makes the shape, where there is one."""
    if sorted(given) != sorted(shape) or len(shape) > 6:
        return None
    orders = permutations(range(len(shape)))
    return next((order for order in orders if tuple(given[i] for i in order) == shape), None)


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def require_loss(given: Shape, layout: Layout, options: LossOptions) -> None:
    """One number, or one per row where the reduction is none."""
    count, rows = _size(given), layout.rows
    if options.reduction == "none":
        if given not in (layout.row_shape, (rows,), (rows, 1), (1, rows)):
            what = f"shape {given}, but reduction none gives one loss per row: {layout.row_shape}"
            raise ShapeError("loss", what)
    elif count != 1:
        what = f"{count} numbers, but the reduction {options.reduction} gives one"
        hint = Setting("reduction", "none"), " judges one loss per row"
        raise ShapeError("loss", what, hint if count == rows else None)
