"""The classes that a teacher stores, as kernels get them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, as_logits, widen
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.arrays.sums import exact_sum
from xentcli.backends.teacher import Tail, TopK
from xentcli.backends.two_words import add, choose, exp_minus, one_word, total
from xentcli.engine.teacher.task import TeacherTask
from xentcli.errors import DataError, TargetError, plural

LEAST = -1000.0  # log-probabilities from here down mark empty slots
SMALL = 2.0**-20  # 1 − Σ q from which on its digits in float64 are enough for float32
LARGEST = 2**62  # indices beyond are far outside, and fit into int64


def columns_of(box: Array, where: str) -> Array:
    """A box (outer, K, inner) as float64 rows (outer·inner, K)."""
    rows = as_logits(box, where).transpose(0, 2, 1)
    return widen(rows.reshape(-1, box.shape[1]), NAMES["f64"])


def class_columns(box: Array) -> Array:
    """A box of class indices as int64 rows; an error for what is not a whole number."""
    rows = box.transpose(0, 2, 1).reshape(-1, box.shape[1])
    if rows.dtype.kind == "f":  # as text is read
        rows = rows.astype(np.float64)
        broken = ~(np.isfinite(rows) & (rows == np.floor(rows)))
        if broken.any():
            what = f"{rows[broken][0]:g} is not a whole number; expected class indices"
            raise TargetError("teacher_indices", what)
        rows = np.clip(rows, -LARGEST, LARGEST)
    elif rows.dtype.kind == "u" and rows.dtype.itemsize == 8:
        rows = np.minimum(rows, np.uint64(LARGEST))
    return rows.astype(np.int64)


class Slots(NamedTuple):
    """The slots of some rows, float64 and int64 (n, K): classes ascending, then −1 for empty ones.

    The values of empty slots are 0.
    """

    classes: Array
    values: Array

    @property
    def empty(self) -> Array:
        """Which slots are."""
        return np.asarray(self.classes < 0)


def slots_of(task: TeacherTask, values: Array, indices: Array, present: Array, start: int) -> Slots:
    """The slots of rows from `start` on, of those that are present; checked."""
    empty = (indices == -1) | (values == -np.inf) | ~present[:, None]
    if task.kind == "log-probs":
        empty |= values <= LEAST
    elif task.kind != "logits":
        empty |= values == 0
    classes = task.layout.classes
    _require_classes(indices, ~empty, classes, start)
    order = np.argsort(np.where(empty, classes, indices), axis=-1)
    empty, indices, values = (
        np.take_along_axis(array, order, axis=-1) for array in (empty, indices, values)
    )
    slots = Slots(np.where(empty, -1, indices), np.where(empty, 0.0, values))
    again = (slots.classes[:, 1:] == slots.classes[:, :-1]) & ~empty[:, 1:]
    if again.any():
        slots = _added(slots) if task.kind == "counts" else _refused(slots, again, start)
    _require_any(slots.empty.all(axis=-1) & present, start)
    return slots


def _require_classes(indices: Array, stored: Array, classes: int, start: int) -> None:
    wrong = stored & ((indices < 0) | (indices >= classes))
    if wrong.any():
        row, slot = np.argwhere(wrong)[0]
        what = f"{plural(int(np.count_nonzero(wrong)), 'class index')} outside 0 to {classes - 1}"
        first = f"row {start + row} has {indices[row, slot]}"
        raise TargetError("teacher_indices", f"{what}; first: {first}", "-1 marks empty slots")


def _refused(slots: Slots, again: Array, start: int) -> Slots:
    row, slot = np.argwhere(again)[0]
    what = f"row {start + row} has class {slots.classes[row, slot + 1]} twice"
    raise TargetError("teacher_indices", what, "only counts of the same class are added")


def _added(slots: Slots) -> Slots:
    """Counts of the same class in one slot."""
    new = np.ones(slots.classes.shape, bool)
    new[:, 1:] = slots.classes[:, 1:] != slots.classes[:, :-1]
    place = np.cumsum(new, axis=-1) - 1
    rows = np.broadcast_to(np.arange(len(place))[:, None], place.shape)
    classes, values = np.full_like(slots.classes, -1), np.zeros_like(slots.values)
    classes[rows, place] = slots.classes
    np.add.at(values, (rows, place), slots.values)
    return Slots(classes, values)


def _require_any(bare: Array, start: int) -> None:
    if bare.any():
        what = f"{plural(int(np.count_nonzero(bare)), 'row')} without any stored class"
        hint = "TARGETS with the ignored index in such rows leave them out"
        raise DataError("teacher", f"{what}; first: row {start + int(np.argmax(bare))}", hint)


class Mass(NamedTuple):
    """The teacher's probabilities of some rows, for kernels, and how much of 1 they capture."""

    top: TopK
    captured: Array
    smallest: Array  # probability of each row


@ignoring_float_errors
def mass_of(task: TeacherTask, slots: Slots, rest: Array | None, *, double: bool) -> Mass:
    """The probabilities of slots; `rest` is the mass of the others, where it is stored.

    `double` is whether the results have to be right to the digits of float64.
    """
    (log_q, q), tail = _probabilities(task, slots), task.scalars.tail
    captured, smallest = exact_sum(q), q.min(axis=-1, initial=np.inf)
    if tail in (Tail.SUBSET, Tail.TEACHER):
        log_q = log_q - np.log(captured)[:, None]
        q = np.exp(log_q)
        top = TopK(slots.classes, q, log_q, np.zeros(len(q)), np.zeros(len(q)))
        return Mass(top, captured, smallest)
    whole = task.kind in ("logits", "counts")  # what is stored is a distribution
    lack = 1.0 - captured
    small = np.flatnonzero(np.abs(lack) < (1.0 if double else SMALL))
    if len(small):
        lack[small] = _exact_lack(task, slots.values[small], log_q[small])
    r = np.zeros(len(q))
    if tail != Tail.DROP and not whole:
        r = np.maximum(lack, 0.0) if rest is None else rest
        has_others = np.count_nonzero(~slots.empty, axis=-1) < task.layout.classes
        r = np.where(has_others, r, 0.0)
    surplus = np.zeros(len(q)) if whole else r - lack
    return Mass(TopK(slots.classes, q, log_q, r, surplus), captured, smallest)


def _exact_lack(task: TeacherTask, values: Array, log_q: Array) -> Array:
    """1 − Σ q, which may be far below the rounding error of q = exp(ln q)."""
    q = one_word(values)
    if task.kind == "log-probs":
        exact = exp_minus(one_word(np.maximum(-log_q, 0.0)))
        q = choose(log_q > 0, one_word(np.exp(log_q)), exact)
    return np.asarray(add(one_word(1.0), -total(q)).high[:, 0])


def _probabilities(task: TeacherTask, slots: Slots) -> tuple[Array, Array]:
    """ln q and q of the slots."""
    if task.kind == "logits":
        z = np.where(slots.empty, -np.inf, slots.values / task.scalars.teacher_temperature)
        z = z - z.max(axis=-1, keepdims=True, initial=-np.inf)
        e = np.exp(z)
        e_sum = exact_sum(e)[:, None]
        return z - np.log(e_sum), e / e_sum
    if task.kind == "log-probs":
        log_q = np.where(slots.empty, -np.inf, slots.values)
        return log_q, np.exp(log_q)
    q = slots.values
    if task.kind == "counts":
        q = q / exact_sum(q)[:, None]
    return np.log(q), q
