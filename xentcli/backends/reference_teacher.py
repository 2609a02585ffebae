"""The reference of `TeacherBackend`: NumPy in two words, from the formulas of `teacher`.

The gradient of a class by s is p_c/p_i·h_i, i being its term, less p_c·Σ h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.reference import by_row, put_rows, scaled
from xentcli.backends.reference_terms import (
    Terms,
    evaluate,
    exclude,
    exp_lifted,
    joined,
    log_of_lifted,
    log_p_and_p,
    log_q_and_q,
    value,
    where,
)
from xentcli.backends.softmax_steps import HALF_LIFT, LIFT, SoftmaxSteps, softmax
from xentcli.backends.teacher import Divergence, Tail, TeacherScalars, TopK
from xentcli.backends.two_words import TwoWords, add, divide, log, multiply, one_word, total

KL_SIGNS: dict[int, float] = {Divergence.FORWARD_KL: 1.0, Divergence.REVERSE_KL: -1.0}


class RowsOf(NamedTuple):
    """Some rows of a student, and how they are compared with a teacher's."""

    x: Array
    s: SoftmaxSteps
    scalars: TeacherScalars
    weight: Array
    weight_is_given: bool

    @property
    def classes(self) -> int:
        """C."""
        return int(self.x.shape[1])


class Found(NamedTuple):
    """The values of some rows, and their gradients by s, which are 2^LIFT times as large."""

    value: Array
    gradient: TwoWords


def every_class(rows: RowsOf, log_q: TwoWords, q: TwoWords, surplus: Array | None = None) -> Found:
    """Each class is a term."""
    log_p, p = log_p_and_p(rows.s)
    terms = Terms(log_p, log_q, p, q)
    each, h = evaluate(terms, rows.scalars, rows.weight)
    return Found(
        value(each, excess_of(terms, rows, surplus)),
        add(h, -multiply(p, total(h).times(2.0**-LIFT))),
    )


def with_shared_rest(rows: RowsOf, top: TopK) -> Found:
    """Each class is a term; those that are not stored share the rest evenly."""
    is_stored = stored(top, rows.classes)
    others = np.maximum(np.count_nonzero(~is_stored, axis=-1), 1.0)[:, None]
    share = divide(one_word(_rest(rows, top)), one_word(others))
    log_share = log(share)
    q = scattered(where(~is_stored, share.times(2.0**LIFT)), top, exp_lifted(top.log_q))
    log_q = scattered(exclude(is_stored, log_share), top, one_word(top.log_q))
    return every_class(rows, log_q, q, top.surplus)


def _rest(rows: RowsOf, top: TopK) -> Array:
    rest: Array = top.rest[:, None] * (rows.scalars.tail == Tail.UNIFORM)
    return rest


def stored_alone(rows: RowsOf, top: TopK) -> Found:
    """The stored classes are the terms, and the softmax is theirs."""
    x, empty = np.take_along_axis(rows.x, np.maximum(top.classes, 0), axis=-1), top.classes < 0
    how = rows.scalars.of_student
    log_p, p = log_p_and_p(softmax(np.where(empty, -np.inf, x), how, empty))
    terms = _terms(log_p, p, top)
    each, h = evaluate(terms, rows.scalars, _weights(rows, top))
    g = add(h, -multiply(p, total(h).times(2.0**-LIFT)))
    return Found(
        value(each, excess_of(terms, rows, top.surplus)),
        scattered(one_word(np.zeros_like(rows.x)), top, g),
    )


def stored_and_rest(rows: RowsOf, top: TopK) -> Found:
    """The stored classes are terms, and with BUCKET the others are one."""
    log_p, p = log_p_and_p(rows.s)
    at = np.maximum(top.classes, 0)
    terms, weight = _terms(log_p.at(at), p.at(at), top), _weights(rows, top)
    others = ~stored(top, rows.classes)
    mass = total(where(others, p))
    if rows.scalars.tail == Tail.BUCKET:
        terms = terms.beside(_bucket(mass, top.rest, np.any(others, axis=-1)))
        weight = joined(weight, np.ones_like(mass.high))
    each, h = evaluate(terms, rows.scalars, weight)
    k = top.classes.shape[1]
    own, of_bucket = (TwoWords(*(word[:, cut] for word in h)) for cut in (slice(k), slice(k, None)))
    pulls = one_word(np.zeros_like(rows.x))
    if rows.scalars.tail == Tail.BUCKET:
        share = where(mass.high > 0, divide(p, mass))
        pulls = where(others, multiply(share, of_bucket))
    g = add(scattered(pulls, top, own), -multiply(p, total(h).times(2.0**-LIFT)))
    return Found(value(each, excess_of(terms, rows, top.surplus)), g)


def excess_of(terms: Terms, rows: RowsOf, surplus: Array | None) -> TwoWords:
    """What the rounding of q adds to a divergence, which is 0 to first order without it.

    ln q is a float64. With errors e of it Σ q·(ln q − ln p) is off by Σ q·e, and so is Σ q from
    what it is declared to be, 1 + surplus. Σ p·(ln p − ln q) is off by −Σ p·e, which is as much
    times Σ p / Σ q where p and q are near each other, and is not seen where they are not.
    """
    if surplus is None or rows.weight_is_given or rows.scalars.divergence not in KL_SIGNS:
        return one_word(np.zeros((len(rows.x), 1)))
    mass = total(terms.q).times(2.0**-LIFT)
    excess = add(add(mass, one_word(-1.0)), one_word(-surplus[:, None]))
    if rows.scalars.divergence == Divergence.REVERSE_KL:
        ratio = divide(total(terms.p).times(2.0**-LIFT), mass)
        excess = where(mass.high > 0, multiply(excess, ratio))
    return excess.times(KL_SIGNS[rows.scalars.divergence])


def _terms(log_p: TwoWords, p: TwoWords, top: TopK) -> Terms:
    """The stored classes as terms, from ln p and p in their slots."""
    empty = top.classes < 0
    log_q = one_word(top.log_q)
    return Terms(exclude(empty, log_p), log_q, where(~empty, p), exp_lifted(top.log_q))


def _bucket(mass: TwoWords, rest: Array, there: Any) -> Terms:
    """The others as a term, in the rows that have any."""
    r, none = one_word(rest[:, None]), ~there[:, None]
    log_p, log_q = (exclude(none, words) for words in (log_of_lifted(mass), log(r)))
    return Terms(log_p, log_q, mass, where(~none, r.times(2.0**LIFT)))


def _weights(rows: RowsOf, top: TopK) -> Array:
    """The class weights of the slots."""
    return np.asarray(rows.weight[np.maximum(top.classes, 0)])


def stored(top: TopK, classes: int) -> Array:
    """Which classes of each row are stored."""
    marks = np.zeros((len(top.classes), classes + 1), bool)
    np.put_along_axis(marks, top.classes, np.array(True), axis=-1)  # −1 is the last column
    return marks[:, :-1]


def scattered(rows: TwoWords, top: TopK, values: TwoWords) -> TwoWords:
    """The rows with values in the places of the stored classes."""
    words = []
    for word, new in zip(rows, values, strict=True):
        room = np.concatenate([word, np.zeros((len(word), 1))], axis=-1)
        np.put_along_axis(room, top.classes, new, axis=-1)
        words.append(room[:, :-1])
    return TwoWords(*words)


TOP: dict[int, Callable[[RowsOf, TopK], Found]] = {
    Tail.UNIFORM: with_shared_rest,
    Tail.TEACHER: with_shared_rest,
    Tail.SUBSET: stored_alone,
    Tail.BUCKET: stored_and_rest,
    Tail.DROP: stored_and_rest,
}


@dataclass(frozen=True)
class NumpyTeacher:
    """The reference as a backend; it takes class weights too, which multiply each class's term."""

    weight: Array | None = None
    name = "numpy"
    block = 1 << 15
    slabs = 1

    def teacher_dense(
        self,
        logits: Array,
        teacher: Array,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Values, log-sum-exps and gradients against a teacher of all classes."""

        def compare(rows: RowsOf, present: Array) -> Found:
            return every_class(rows, *log_q_and_q(by_row(teacher)[present], scalars))

        self._compute(compare, logits, targets, scalars, scale, results, grad)

    def teacher_top(
        self,
        logits: Array,
        top: TopK,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Values, log-sum-exps and gradients against the classes that are stored."""

        def compare(rows: RowsOf, present: Array) -> Found:
            return TOP[scalars.tail](rows, TopK(*(array[present] for array in top)))

        self._compute(compare, logits, targets, scalars, scale, results, grad)

    def _compute(
        self,
        compare: Callable[[RowsOf, Array], Found],
        logits: Array,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        present, x = targets >= 0, by_row(logits)
        weight = np.ones(x.shape[1]) if self.weight is None else self.weight
        results[0], results[1] = 0.0, np.nan
        g = None if grad is None else np.zeros_like(x)
        with np.errstate(all="ignore"):
            s = softmax(x[present], scalars.of_student)
            found = compare(
                RowsOf(x[present], s, scalars, weight, self.weight is not None), present
            )
            broken = np.isnan(s.top[:, 0]) | np.isnan(found.value)
            results[0, present], results[1, present] = np.where(broken, np.nan, found.value), s.lse
            if g is not None:
                if scalars.divergence == Divergence.REVERSE_KL:
                    broken |= np.isinf(found.value)
                rows = gradient(s, found.gradient, scalars.temperature, _of(scale, present))
                g[present] = np.where(broken[:, None], np.nan, rows)
        put_rows(grad, g)


def _of(scale: Array, present: Array) -> Array:
    """The scales of the rows that are not ignored."""
    return np.asarray(np.broadcast_to(scale, len(present))[present])


def gradient(s: SoftmaxSteps, by_s: TwoWords, temperature: float, scale: Array) -> Array:
    """The gradient of each row by its logits, from that by s, times its scale."""
    g = by_s if s.slope is None else multiply(by_s.times(2.0**-HALF_LIFT), s.slope)
    return scaled((g, np.zeros((len(scale), 1), np.int64)), temperature, scale)
