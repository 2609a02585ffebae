"""Two mistakes at once: one is undone, or made, and every known one is tried on the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis import mistakes, option_mistakes, undeclared
from xentcli.check.diagnosis.hypothesis_case import HypothesisCase
from xentcli.check.diagnosis.matching import rounding
from xentcli.check.diagnosis.mistakes import Mistake
from xentcli.errors import Setting

FIRST_ROWS = 64  # that a pair is tried on before all rows are
SEPARATE = tuple(m for m in (*mistakes.MISTAKES, *option_mistakes.MISTAKES) if m.share == 1)
TEMPERATURES = (0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0)  # in use
TARGETS = ("target-plus-one", "target-minus-one", "next-target", "last-target")
LEFT_OUT = {
    "no-temperature": ("temperature", 1.0),
    "no-softcap": ("softcap", None),
    "no-smoothing": ("label_smoothing", 0.0),
    "no-z-loss": ("z_loss", 0.0),
}


class FirstMistake(NamedTuple):
    """One mistake, and the case in which it is no mistake."""

    name: str
    words: str
    case: HypothesisCase
    settings: tuple[Setting, ...] = ()
    guessed: bool = False


def plausible(case: HypothesisCase) -> bool:
    """Whether each row adds up to 0 or, without a one-hot, to the same.

    Where it does not, the search for two mistakes is hopeless.
    """
    sums, sizes = case.candidate.sum(axis=1), np.abs(case.candidate).sum(axis=1)
    least = 2 * rounding(case) * case.finfo.epsilon * sizes.max(initial=0.0)
    return bool((np.abs(sums) <= least).all() or (np.abs(sums - sums.mean()) <= least).all())


def first_mistakes(case: HypothesisCase) -> Iterator[FirstMistake]:
    """The mistakes that another one can come on top of."""
    for mistake in SEPARATE:
        changed = _without(case, mistake.name)
        if changed:
            yield FirstMistake(mistake.name, mistake.words, changed)
    yield from (_other_temperature(case, found) for found in undeclared.temperatures(case))
    for value in TEMPERATURES:
        found = undeclared.with_value(case, "temperature", value)
        yield _other_temperature(case, found)._replace(guessed=True)


def _other_temperature(case: HypothesisCase, found: Mistake) -> FirstMistake:
    changed = undeclared.with_option(case, "temperature", found.settings[0].value)
    return FirstMistake(found.name, found.words, changed, found.settings)


def second_mistakes(first: FirstMistake) -> Iterator[Mistake]:
    """The mistakes that come on top; of a temperature that is only a guess, two options."""
    if first.guessed:
        yield from undeclared.smoothing_and_z_loss(first.case)
        return
    yield from (mistake for mistake in SEPARATE if mistake.name != "right")
    yield from undeclared.forgotten(first.case)


def _without(case: HypothesisCase, name: str) -> HypothesisCase | None:
    """The case in which a mistake is none; None where it cannot be taken apart."""
    if name in TARGETS:
        step = 1 if name in ("target-plus-one", "next-target") else -1
        if name.startswith("target"):
            return _with_targets(case, np.roll(case.rows.q, step, axis=1))
        return _with_targets(case, case.shifted(case.rows.q, step))
    if name in LEFT_OUT:
        option, value = LEFT_OUT[name]
        changes = getattr(case.options, option) != value
        return undeclared.with_option(case, option, value) if changes else None
    if name == "no-weight" and (case.rows.weight != 1).any():
        return replace(case, rows=replace(case.rows, weight=np.ones_like(case.rows.weight)))
    if name in ("next-column", "last-column"):
        step = 1 if name == "next-column" else -1
        return replace(case, candidate=np.roll(case.candidate, step, axis=1))
    if name in ("next-row", "last-row"):
        step = 1 if name == "last-row" else -1
        return replace(case, candidate=case.shifted(case.candidate, step))
    return None


def _with_targets(case: HypothesisCase, q: Array) -> HypothesisCase:
    return replace(case, rows=replace(case.rows, q=q))
