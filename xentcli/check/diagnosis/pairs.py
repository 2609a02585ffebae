"""Two mistakes at once: one is undone, or made, and every known one is tried on the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis import mistakes, option_mistakes, undeclared
from xentcli.check.diagnosis.hypothesis_case import HypothesisCase
from xentcli.check.diagnosis.mistakes import Mistake
from xentcli.errors import Setting

FIRST_ROWS = 64  # that a pair is tried on before all rows are
SEPARATE = tuple(m for m in (*mistakes.MISTAKES, *option_mistakes.MISTAKES) if m.share == 1)
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
    setting: Setting | None = None


def first_mistakes(case: HypothesisCase) -> Iterator[FirstMistake]:
    """The mistakes that another one can come on top of."""
    for mistake in SEPARATE:
        changed = _without(case, mistake.name)
        if changed:
            yield FirstMistake(mistake.name, mistake.words, changed)
    for found in undeclared.temperatures(case):
        assert found.setting is not None
        changed = undeclared.with_option(case, "temperature", found.setting.value)
        yield FirstMistake(found.name, found.words, changed, found.setting)


def second_mistakes(case: HypothesisCase) -> Iterator[Mistake]:
    """The mistakes that come on top."""
    yield from (mistake for mistake in SEPARATE if mistake.name != "right")
    yield from undeclared.forgotten(case)


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
