"""Targets, checked and brought to one form.

Class indices become integers, one per row, with `IGNORED` for rows that are left out.
Probabilities keep their dtype and their shape, that of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, Array, as_array, as_logits, name_of, native, widen
from xentcli.arrays.layout import Layout, Shape
from xentcli.errors import DtypeError, OptionError, Setting, ShapeError, TargetError, Words, plural
from xentcli.options import LossOptions

IGNORED = -1
PIECE = 1 << 16  # targets at a time


class Values(Protocol):
    """An array that may not fit into memory: shape, dtype, and its numbers in pieces."""

    @property
    def shape(self) -> Shape:
        """That of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the whole array."""

    def chunks(self) -> Iterator[Array]:
        """All its numbers in C order, in flat pieces; once."""


class Whole(NamedTuple):
    """An array in memory."""

    array: Array

    @property
    def shape(self) -> Shape:
        """That of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the array."""
        return self.array.dtype

    def chunks(self) -> Iterator[Array]:
        """The array, flat, in pieces that stay in the cache."""
        flat = self.array.reshape(-1)
        if 0 < len(flat) <= PIECE:
            return iter((flat,))
        return (flat[start : start + PIECE] for start in range(0, len(flat), PIECE))


def as_targets(values: Any) -> Array:
    """Targets as an array of integers or floats; everything else is an error."""
    array = as_array(values, "targets")
    require_targets(array.dtype)
    return array if array.dtype.kind in "iu" else as_logits(array, "targets")


def require_targets(dtype: np.dtype[Any]) -> None:
    """An error for a dtype of neither class indices nor probabilities."""
    if dtype.kind in "iuf" or dtype.name == "bfloat16" or dtype == BF16:
        return
    raise DtypeError(
        "targets",
        f"dtype {name_of(dtype)} is not supported",
        "class indices are integers, probabilities are floats of the logits' shape",
    )


def target_kind_of(shape: Shape, layout: Layout, options: LossOptions) -> str:
    """`index` or `probs`: by the targets' shape, unless an option decides."""
    same = shape == layout.shape
    kind = options.target_kind
    if kind == "auto":
        kind = "probs" if same else "index"
    if kind == "probs" and not same:
        raise ShapeError(
            "targets",
            f"probabilities of shape {shape} do not fit logits of shape {layout.shape}",
        )
    if kind == "probs" and options.ignore_index != LossOptions.ignore_index:
        raise no_ignore_index(options.ignore_index)
    return kind


def no_ignore_index(value: int) -> OptionError:
    """The error for an ignore_index beside targets that are probabilities."""
    return OptionError("ignore_index", f"{value} applies to class indices, not to probabilities")


def as_indices(targets: Values, layout: Layout, ignore_index: int) -> Array:
    """Class indices of shape (N,), `IGNORED` where they equal `ignore_index`.

    In memory of their own, contiguous, those of several pieces in the narrowest integers that can
    hold them: what a kernel uses is what was checked, whoever writes into the targets meanwhile.
    """
    if targets.shape != layout.row_shape:
        require_row_shaped(targets.shape, layout)
    check = TargetCheck(layout, ignore_index)
    indices = None
    for chunk in targets.chunks():
        found = check.indices(chunk)
        if len(found) == layout.rows:
            indices = found
            continue
        if indices is None:  # as numbers come, and not to the size that the header of a file claims
            room = layout.rows if isinstance(targets, Whole) else 0
            indices = np.empty(room, np.min_scalar_type(-layout.classes))
        if check.rows > len(indices):
            indices.resize(min(layout.rows, 2 * check.rows), refcheck=False)
        indices[check.rows - len(found) : check.rows] = found
    check.raise_if_invalid()
    return np.empty(0, np.int64) if indices is None else indices


class _InvalidTargets:
    """Invalid targets of one sort: how many there are, and the first."""

    count, row = 0, 0
    value: Any = None

    def add(self, values: Array, wrong: Array, row: int) -> None:
        if not self.count and wrong.any():
            first = int(np.argmax(wrong))
            self.row, self.value = row + first, values[first].item()
        self.count += int(np.count_nonzero(wrong))

    def merge(self, other: _InvalidTargets) -> None:
        if other.count and (not self.count or other.row < self.row):
            self.row, self.value = other.row, other.value
        self.count += other.count

    def words(self, rows: int) -> str:
        verb = "is" if self.count == 1 else "are"
        return f"{self.count} of {plural(rows, 'target')} {verb}"


class TargetCheck:
    """Turns values into class indices, and remembers what is not one."""

    def __init__(self, layout: Layout, ignore_index: int) -> None:
        self.classes, self.ignore_index = layout.classes, ignore_index
        self.rows = 0
        self.broken, self.outside = _InvalidTargets(), _InvalidTargets()

    def indices(self, values: Array) -> Array:
        """The next values as int64; any number of a class where a value is wrong."""
        row, self.rows = self.rows, self.rows + len(values)
        if values.dtype.kind not in "iu":
            whole = widen(np.array(values, native(values.dtype)), NAMES["f64"])
            broken = ~(np.isfinite(whole) & (whole == np.floor(whole)))
            self.broken.add(whole, broken, row)
            return self._checked(np.where(broken, 0.0, whole) if broken.any() else whole, row)
        whole = values.astype(np.int64)  # a copy, which nobody else can change
        if whole.size and not 0 <= self.ignore_index < self.classes:  # one pass, not six
            unsigned = whole.view(np.uint64)  # those below 0 are the largest
            if unsigned.item(unsigned.argmax()) < self.classes:
                return whole
        return self._checked(whole.view(np.uint64) if values.dtype == np.uint64 else whole, row)

    def _checked(self, whole: Array, row: int) -> Array:
        """Whole numbers, from a row on, as class indices."""
        ignored = whole == self.ignore_index
        wrong = ~ignored & ((whole < 0) | (whole >= self.classes))
        self.outside.add(whole, wrong, row)
        indices = np.where(ignored | wrong, 0, whole).astype(np.int64)  # unsigned types have no -1
        indices[ignored] = IGNORED
        return indices

    @property
    def valid(self) -> bool:
        """Whether all values so far are right."""
        return not self.broken.count and not self.outside.count

    def renumber(self, place: Callable[[int], int]) -> None:
        """Let the first invalid rows have their numbers in a larger whole."""
        for found in (self.broken, self.outside):
            found.row = place(found.row) if found.count else 0

    def merge(self, other: TargetCheck) -> None:
        """Take what was found in other rows, which have their numbers in the whole."""
        self.broken.merge(other.broken)
        self.outside.merge(other.outside)
        self.rows += other.rows

    def raise_if_invalid(self) -> None:
        """An error for what was invalid."""
        if self.broken.count:
            what = f"{self.broken.words(self.rows)} not a whole number"
            first = f"row {self.broken.row} is {self.broken.value!r}"
            raise TargetError("targets", f"{what}; first: {first}")
        if self.outside.count:
            self._raise_outside(self.outside.value)

    def _raise_outside(self, value: Any) -> None:
        value = int(value) if abs(value) < 2**64 else value  # 1e300, not its 300 digits
        hint: Words | None = None
        if value < 0:
            hint = Setting("ignore_index", value), " leaves such rows out"
        elif value == self.classes:
            hint = "class indices start at 0"
        what = f"{self.outside.words(self.rows)} outside 0 to {self.classes - 1}"
        raise TargetError("targets", f"{what}; first: row {self.outside.row} is {value}", hint)


def require_row_shaped(given: Shape, layout: Layout) -> None:
    """An error for a shape that does not fit class indices of these logits."""
    shape = layout.row_shape
    allowed: tuple[Shape, ...] = (shape,)
    if len(shape) <= 1:
        n = layout.rows
        allowed = (shape, (n,), (n, 1), (1, n)) if shape else (shape, (1,))
    if given in allowed:
        return
    if given == layout.shape:
        raise ShapeError(
            "targets",
            f"shape {given} is that of the logits, which is for probabilities",
            f"class indices have shape {shape}",
        )
    last = layout.shape[:-1]
    first = layout.shape[:1] + layout.shape[2:]
    shapes = f"{last} or {first}" if len(layout.shape) > 2 else f"{shape}"
    if given in (last, first):  # which another class axis would need
        shapes = f"{shape} on class axis {layout.class_axis}"
    hint = f"class indices have shape {shapes}, probabilities {layout.shape}"
    if _are_swapped(layout.shape, given):
        hint = f"logits and targets seem to be swapped: the logits, of shape {given}, come first"
    raise ShapeError("targets", f"shape {given} does not fit logits of shape {layout.shape}", hint)


def _are_swapped(logits: Shape, targets: Shape) -> bool:
    """Whether the targets' shape is that of logits for which those of the logits are targets."""
    if len(targets) < 2:
        return False
    rows = targets[:-1], targets[:1] + targets[2:]
    columns = ((targets[0], 1), (1, targets[0])) if len(targets) == 2 else ()
    return logits in (*rows, *columns)
