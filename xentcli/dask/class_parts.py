"""Softmax and cross-entropy of rows whose classes are in parts: the formulas, in NumPy.

    1. of each part: the largest logit, and the largest target mass; merged: of the whole row
    2. of each part: Σ e_c, Σ a_c, Σ a_c·(max z − z_c), in bins; merged: the sums of the whole row
    3. of each part: the gradient, or the probabilities

with e_c = exp(z_c − max z) and the target mass a_c = w_c·((1 − ε)·q_c + ε/C), C the number of all
classes. The loss is Σ a_c·(max z − z_c) + Σ a_c·log Σ e_c. What is computed of a class depends on
its own logit and on numbers of the whole row, and the sums in bins do not depend on how the row is
cut: so the bits do not, either. The formulas are those of `backends.reference`, with two words for
each number; sums over "the other classes" leave out the largest class and keep their digits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.binned_sums import BinnedSums
from xentcli.arrays.dtypes import Array
from xentcli.backends.reference import TOO_LARGE
from xentcli.backends.scalars import Scalars
from xentcli.backends.softmax_steps import (
    HALF_LIFT,
    LIFT,
    answerable,
    below_top,
    lowered,
    plus,
)
from xentcli.backends.two_words import (
    TwoWords,
    add,
    choose,
    divide,
    exp_minus,
    log1p,
    multiply,
    one_word,
)
from xentcli.records import dataclass

NO_CLASS = np.int64(-1)


class Part(NamedTuple):
    """Some classes of some rows, from `start` on: logits and masses, float64 (n, c)."""

    x: Array
    a: Array
    start: int
    scalars: Scalars

    def steps(self, tops: Tops) -> tuple[TwoWords, TwoWords, TwoWords | None]:
        """max z − z, max z and dz/dx, see `softmax_steps.below_top`.

        Where a difference overflows, both numbers are halved, in the reference for the whole row:
        here for each entry, since a part does not know of the others.
        """
        top = answerable(tops.top[:, None], self.scalars)
        with np.errstate(over="ignore", invalid="ignore"):
            overflows = np.isinf(top - self.x) & np.isfinite(self.x)
        if not overflows.any() or not np.isinf(self.scalars.softcap):
            return below_top(self.x, top, self.scalars)
        shape = self.x.shape
        every = np.broadcast_to(top, shape).reshape(-1, 1)
        gap, _, _ = below_top(self.x.reshape(-1, 1), every, self.scalars)
        top_z = below_top(top, top, self.scalars)[1]
        return TwoWords(*(word.reshape(shape) for word in gap)), top_z, None

    def places(self, classes: Array) -> Array:
        """Where in this part each row's class is; −1 where it is in another one."""
        place = classes - self.start
        inside = (place >= 0) & (place < self.x.shape[1]) & (classes != NO_CLASS)
        return np.where(inside, place, -1)


class Tops(NamedTuple):
    """Of each row: the largest logit and its class, the largest |a| with its sign and its class."""

    top: Array
    best: Array
    mass: Array
    most: Array

    @classmethod
    def none(cls, rows: int) -> Tops:
        """Those of no class."""
        top, mass = np.full(rows, -np.inf), np.zeros(rows)
        return cls(top, np.full(rows, NO_CLASS), mass, np.full(rows, NO_CLASS))

    @classmethod
    def of(cls, part: Part) -> Tops:
        """Of a part of the classes."""
        n, classes = part.x.shape
        if not classes:
            return cls.none(n)
        rows = np.arange(n)
        best, most = np.argmax(part.x, axis=1), np.argmax(np.abs(part.a), axis=1)
        return cls(part.x[rows, best], part.start + best, part.a[rows, most], part.start + most)

    def merged(self, later: Tops) -> Tops:
        """Of both; the part that begins with a later class is `later`."""
        above = _is_above(later.top, self.top) | (self.best == NO_CLASS)
        heavier = _is_above(np.abs(later.mass), np.abs(self.mass)) | (self.most == NO_CLASS)
        return Tops(
            np.where(above, later.top, self.top),
            np.where(above, later.best, self.best),
            np.where(heavier, later.mass, self.mass),
            np.where(heavier, later.most, self.most),
        )


def _is_above(values: Array, others: Array) -> Array:
    """Whether numbers are larger, or the first NaN."""
    return np.asarray((values > others) | (np.isnan(values) & ~np.isnan(others)))


def _without(values: TwoWords, place: Array) -> TwoWords:
    """Rows in which one entry is 0, where they have it."""
    rows = np.flatnonzero(place >= 0)
    if not len(rows):
        return values
    kept = TwoWords(*(word.copy() for word in values))
    for word in kept:
        word[rows, place[rows]] = 0.0
    return kept


@dataclass
class PartSums:
    """Sums over some classes of each row: of e but that of the largest logit, times 2^LIFT, of the
    masses but the largest, and of the masses times max z − z."""

    others: BinnedSums
    masses: BinnedSums
    costs: BinnedSums

    @classmethod
    def none(cls, rows: int) -> PartSums:
        """Those over no class."""
        return cls(BinnedSums(rows), BinnedSums(rows), BinnedSums(rows))

    @classmethod
    def of(cls, part: Part, tops: Tops) -> PartSums:
        """Of a part of the classes."""
        found, (gap, _, _) = cls.none(len(part.x)), part.steps(tops)
        best, most = part.places(tops.best), part.places(tops.most)
        found.others.add(*_without(exp_minus(gap, LIFT), best))
        present = part.a != 0
        if present.sum(axis=1).max(initial=0) > 1:
            found.masses.add(*_without(one_word(part.a), most))
            found.costs.add(*_costs(part.a, gap))
        elif present.any():  # a class index without smoothing: one column holds all
            only = np.argmax(present, axis=1)[:, None]
            a = np.take_along_axis(part.a, only, axis=1)
            lone = np.where((only[:, 0] == most) & (most >= 0), 0, -1)
            found.masses.add(*_without(one_word(a), lone))
            found.costs.add(*_costs(a, gap.at(only)))
        return found

    def merge(self, other: PartSums) -> None:
        """Take the sums over other classes."""
        for name, sums in vars(self).items():
            sums.merge(getattr(other, name))

    def put(self, rows: slice, other: PartSums) -> None:
        """Let some of the rows be those of other sums."""
        for name, sums in vars(self).items():
            sums.put(rows, getattr(other, name))


def _costs(a: Array, gap: TwoWords) -> TwoWords:
    """a·(max z − z); 0 for a class without mass, even at z = −inf."""
    far = ~(gap.high <= TOO_LARGE)
    product = choose(far, one_word(a * gap.high), multiply(one_word(a), gap))
    return choose(a == 0, one_word(0.0), product)


class RowFacts(NamedTuple):
    """What all classes of a row share once the sums of all parts are merged; see `PartSums`."""

    tops: Tops
    total: TwoWords  # Σ e
    others: TwoWords
    log_total: TwoWords
    mass: TwoWords  # Σ a
    other_mass: TwoWords
    lse: Array
    losses: Array

    @classmethod
    def of(cls, tops: Tops, sums: PartSums, scalars: Scalars) -> RowFacts:
        """From the sums over all classes."""
        others, other_mass, costs = (
            TwoWords(*each.high_low()) for each in (sums.others, sums.masses, sums.costs)
        )
        log_total = log1p(others.times(2.0**-LIFT))
        top = answerable(tops.top[:, None], scalars)
        top_z = TwoWords(*(word[:, 0] for word in below_top(top, top, scalars)[1]))
        lse = plain_nan(add(top_z, log_total).high)
        mass = add(other_mass, one_word(tops.mass))
        loss = plus(costs, multiply(mass, log_total)).high
        if scalars.z_loss:
            loss = loss + scalars.z_loss * lse**2
        losses = plain_nan(np.where(np.isnan(top[:, 0]), np.nan, loss + 0.0))
        total = add(one_word(1.0), others.times(2.0**-LIFT))
        return cls(tops, total, others, log_total, mass, other_mass, lse, losses)


def plain_nan(values: Array) -> Array:
    """The same numbers; the sign of a NaN would tell how the row was cut."""
    return np.where(np.isnan(values), np.nan, values)


def rows_of(values: Any, rows: Any) -> Any:
    """Some rows, or another index, of every array of a tuple of tuples."""
    if isinstance(values, np.ndarray):
        return values[rows]
    return type(values)(*(rows_of(value, rows) for value in values))


def probabilities(part: Part, facts: RowFacts, *, log: bool) -> Array:
    """p_c, or its logarithm."""
    gap, _, _ = part.steps(facts.tops)
    if log:
        log_total = rows_of(facts.log_total, (slice(None), None))
        return plain_nan(0.0 - plus(gap, log_total).high)
    inverse = divide(one_word(1.0), rows_of(facts.total, (slice(None), None)))
    return plain_nan(lowered(multiply(exp_minus(gap, LIFT), inverse)))


def gradient(part: Part, facts: RowFacts) -> tuple[TwoWords, Array]:
    """The gradient of each row's loss, in the units of `reference.gradient`."""
    gap, _, slope = part.steps(facts.tops)
    e, columns = exp_minus(gap, LIFT), rows_of(facts, (slice(None), None))
    pull = 2 * part.scalars.z_loss * columns.lse
    power = np.maximum(np.frexp(pull)[1], 0)
    unit = np.ldexp(1.0, -power)
    a, mass = part.a * unit, columns.mass.times(unit)
    g = add(multiply(e, divide(mass, columns.total)), one_word(a * -(2.0**LIFT)))
    for classes in (facts.tops.best, facts.tops.most):
        place = part.places(classes)
        rows = np.flatnonzero(place >= 0)
        if len(rows):
            own = a[rows, place[rows]], rows_of(e, (rows, place[rows]))
            better = _own_entry(own, rows_of(facts, rows), unit[rows, 0], classes[rows])
            for word, value in zip(g, better, strict=True):
                word[rows, place[rows]] = value
    if part.scalars.z_loss:
        p = multiply(e, divide(one_word(1.0), columns.total))
        g = add(g, multiply(p, one_word(pull * unit)))
    return (g if slope is None else multiply(g.times(2.0**-HALF_LIFT), slope)), power


def _own_entry(
    own: tuple[Array, TwoWords], facts: RowFacts, unit: Array, classes: Array
) -> TwoWords:
    """p_c·Σ_{j≠c} a_j − a_c·Σ_{j≠c} p_j, for the class of the largest logit or mass of each row.

    The masses of `facts` are to be multiplied by `unit`, as a_c in `own` is already.
    """
    a, e = own
    inverse = divide(one_word(1.0), facts.total)
    rest = add(one_word(2.0**LIFT), -multiply(e, inverse))
    rest = choose(classes == facts.tops.best, multiply(facts.others, inverse), rest)
    other_mass, mass = facts.other_mass.times(unit), facts.mass.times(unit)
    others = choose(classes == facts.tops.most, other_mass, add(mass, -one_word(a)))
    plus_ = multiply(multiply(e, others), inverse)
    return add(plus_, -multiply(one_word(a), rest))
