"""Known mistakes in gradients of the cross-entropy, as data.

Each has a name, words, and a function that makes the gradient that it would lead to; None where
it would change nothing. Those of single options are in `option_mistakes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis.hypothesis_case import Hypothesis, HypothesisCase, softmax
from xentcli.errors import Setting

Make = Callable[[HypothesisCase], Hypothesis | None]


class Mistake(NamedTuple):
    """A mistake, the gradient it leads to, and the share of the entries that has to agree."""

    name: str
    words: str
    make: Make
    share: float = 1.0
    settings: tuple[Setting, ...] = ()  # the options that make the gradient right


class Mistakes(list[Mistake]):
    """A list that functions are added to by a decorator."""

    def named(self, name: str, words: str) -> Callable[[Make], Make]:
        """Add the decorated function to the list."""

        def add(make: Make) -> Make:
            self.append(Mistake(name, words, make))
            return make

        return add


MISTAKES = Mistakes()


@MISTAKES.named("right", "it is the right gradient")
def _right(case: HypothesisCase) -> Hypothesis | None:
    return case.make()


@MISTAKES.named("no-one-hot", "p without the one-hot: the target's 1 is not subtracted")
def _no_one_hot(case: HypothesisCase) -> Hypothesis | None:
    mass = case.a.sum(axis=1, keepdims=True)
    return case.make(a=np.zeros_like(case.a), mass=mass)


@MISTAKES.named("no-softmax", "the one-hot without p")
def _no_softmax(case: HypothesisCase) -> Hypothesis | None:
    return case.make(mass=np.zeros((len(case.a), 1)), z_loss=0.0)


@MISTAKES.named("of-probabilities", "the gradient with respect to p, −y/p, and not to the logits")
def _of_probabilities(case: HypothesisCase) -> Hypothesis | None:
    grad = -case.a / case.p * case.factor[:, None]
    return Hypothesis(grad, np.abs(grad))


@MISTAKES.named("softmax-twice", "the softmax is applied twice")
def _softmax_twice(case: HypothesisCase) -> Hypothesis | None:
    return case.make(p=softmax(case.p))


@MISTAKES.named("softmax-over-rows", "the softmax is taken over the rows, not over the classes")
def _softmax_over_rows(case: HypothesisCase) -> Hypothesis | None:
    if not case.whole or len(case.p) != case.layout.rows:
        return None
    return case.make(p=softmax(case.z, axis=0))


def _other_target(case: HypothesisCase, q: Array) -> Hypothesis:
    return case.make(a=case.rows.weight * case.smoothed(q))


@MISTAKES.named(
    "target-plus-one", "the targets are off by one: the class after the target is taken"
)
def _target_plus_one(case: HypothesisCase) -> Hypothesis | None:
    return _other_target(case, np.roll(case.rows.q, 1, axis=1))


@MISTAKES.named(
    "target-minus-one", "the targets are off by one: the class before the target is taken"
)
def _target_minus_one(case: HypothesisCase) -> Hypothesis | None:
    return _other_target(case, np.roll(case.rows.q, -1, axis=1))


@MISTAKES.named(
    "next-target", "the targets are shifted by a row: each row has the next row's target"
)
def _next_target(case: HypothesisCase) -> Hypothesis | None:
    return _other_target(case, case.shifted(case.rows.q, 1))


@MISTAKES.named(
    "last-target", "the targets are shifted by a row: each row has the previous row's target"
)
def _last_target(case: HypothesisCase) -> Hypothesis | None:
    return _other_target(case, case.shifted(case.rows.q, -1))


@MISTAKES.named("next-row", "the rows are shifted: each row holds the next row's gradient")
def _next_row(case: HypothesisCase) -> Hypothesis | None:
    return Hypothesis(*(case.shifted(part, 1) for part in case.make()))


@MISTAKES.named("last-row", "the rows are shifted: each row holds the previous row's gradient")
def _last_row(case: HypothesisCase) -> Hypothesis | None:
    return Hypothesis(*(case.shifted(part, -1) for part in case.make()))


@MISTAKES.named(
    "next-column", "the columns are shifted: each class holds the next class's gradient"
)
def _next_column(case: HypothesisCase) -> Hypothesis | None:
    if case.classes < 3:  # a wrong sign
        return None
    return Hypothesis(*(np.roll(part, -1, axis=1) for part in case.make()))


@MISTAKES.named(
    "last-column", "the columns are shifted: each class holds the previous class's gradient"
)
def _last_column(case: HypothesisCase) -> Hypothesis | None:
    if case.classes < 3:  # a wrong sign
        return None
    return Hypothesis(*(np.roll(part, 1, axis=1) for part in case.make()))


@MISTAKES.named(
    "memory-order", "the numbers are in another order: written class by class, not by row"
)
def _memory_order(case: HypothesisCase) -> Hypothesis | None:
    whole = case.whole and len(case.p) == case.layout.rows and len(case.layout.shape) == 2
    if not whole or case.layout.rows == case.classes:
        return None
    return Hypothesis(*(part.T.reshape(part.shape) for part in case.make()))


def transposed(case: HypothesisCase) -> Iterator[tuple[Array, Hypothesis]]:
    """A square gradient transposed, and what it should be."""
    if case.columns is not None:
        yield case.columns, case.make()
