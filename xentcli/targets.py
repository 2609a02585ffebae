"""Targets, checked and brought to one form.

Class indices become int64, one per row, with `IGNORED` for rows that are left out. Probabilities
keep their dtype and their shape, that of the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.dtypes import BF16, NAMES, Array, as_array, as_logits, name_of, widen
from xentcli.errors import DtypeError, OptionError, ShapeError, TargetError, plural
from xentcli.layout import Layout, Shape
from xentcli.options import LossOptions

IGNORED = -1


def as_targets(values: Any) -> Array:
    """Targets as an array of integers or floats; everything else is an error."""
    array = as_array(values, "targets")
    if array.dtype.kind in "iuf" or array.dtype.name == "bfloat16" or array.dtype == BF16:
        return array if array.dtype.kind in "iu" else as_logits(array, "targets")
    raise DtypeError(
        "targets",
        f"dtype {name_of(array.dtype)} cannot be used",
        "class indices are integers, probabilities are floats of the logits' shape",
    )


def kind_of(targets: Array, layout: Layout, options: LossOptions) -> str:
    """`index` or `probs`: by the shape, unless the options say it."""
    same = targets.shape == layout.shape
    kind = options.target_kind
    if kind == "auto":
        kind = "probs" if same else "index"
    if kind == "probs" and not same:
        raise ShapeError(
            "targets",
            f"probabilities of shape {targets.shape} do not fit logits of shape {layout.shape}",
        )
    if kind == "probs" and options.ignore_index >= 0:
        raise OptionError(
            "ignore_index", f"{options.ignore_index} has no meaning for probability targets"
        )
    return kind


def as_indices(targets: Array, layout: Layout, ignore_index: int) -> Array:
    """Class indices as int64 of shape (N,), `IGNORED` where they equal `ignore_index`."""
    flat = _row_shaped(targets, layout)
    whole = flat if flat.dtype.kind in "iu" else _whole_numbers(widen(flat, NAMES["f64"]))
    usual = not 0 <= ignore_index < layout.classes and whole.size
    if usual and whole.min() >= 0 and whole.max() < layout.classes:  # two passes instead of six
        return whole.astype(np.int64, copy=False)
    ignored = whole == ignore_index
    wrong = ~ignored & ((whole < 0) | (whole >= layout.classes))
    if wrong.any():
        _complain(whole, wrong, layout)
    indices = np.where(ignored, 0, whole).astype(np.int64)  # unsigned types have no -1
    indices[ignored] = IGNORED
    return indices


def _row_shaped(targets: Array, layout: Layout) -> Array:
    shape = layout.row_shape
    allowed: tuple[Shape, ...] = (shape,)
    if len(shape) <= 1:
        allowed = (shape, (layout.rows, 1), (layout.rows,)) if shape else (shape, (1,))
    if targets.shape in allowed:
        return targets.reshape(-1)
    if targets.shape == layout.shape:
        raise ShapeError(
            "targets",
            f"shape {targets.shape} is that of the logits, which is for probabilities",
            f"class indices have shape {shape}",
        )
    last = layout.shape[:-1]
    first = layout.shape[:1] + layout.shape[2:]
    shapes = f"{last} or {first}" if len(layout.shape) > 2 else f"{shape}"
    raise ShapeError(
        "targets",
        f"shape {targets.shape} does not fit logits of shape {layout.shape}",
        f"class indices have shape {shapes}, probabilities {layout.shape}",
    )


def _whole_numbers(values: Array) -> Array:
    broken = ~(np.isfinite(values) & (values == np.floor(values)))
    if broken.any():
        row = int(np.argmax(broken))
        raise TargetError(
            "targets",
            f"{_count(broken)} not a whole number; first: row {row} is {values[row].item()!r}",
        )
    return values


def _complain(values: Array, wrong: Array, layout: Layout) -> None:
    row = int(np.argmax(wrong))
    value = values[row].item()
    value = int(value) if abs(value) < 2**64 else value  # 1e300, not its 300 digits
    hint = None
    if value < 0:
        hint = f"--ignore-index {value} leaves such rows out"
    elif value == layout.classes:
        hint = "classes are counted from 0"
    raise TargetError(
        "targets",
        f"{_count(wrong)} outside 0 to {layout.classes - 1}; first: row {row} is {value}",
        hint,
    )


def _count(wrong: Array) -> str:
    number = int(np.count_nonzero(wrong))
    verb = "is" if number == 1 else "are"
    return f"{number} of {plural(wrong.size, 'target')} {verb}"
