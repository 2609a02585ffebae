"""Examples at the ends of what float64 can hold."""

from __future__ import annotations

import numpy as np

from xentcli.display.document import Column, Formula, Step
from xentcli.examples.model import SOURCES, Claim, Example, Worked
from xentcli.options import LossOptions

GAPS = (1.0, 5.0, 10.0, 20.0, 40.0, 100.0, 400.0, 745.0, 746.0)


def _word(value: float) -> str:
    """0 is 0, and nothing else is."""
    return "0" if value == 0 else repr(float(value))


def _finite(w: Worked) -> list[str]:
    values = [w.result.loss, *w.gradient.reshape(-1)]
    return ["finite" if np.isfinite(values).all() else "not finite"]


def _by_hand(w: Worked) -> list[str]:
    with np.errstate(over="ignore"):
        largest = np.exp(w.example.logits).max()
    return ["overflow" if np.isinf(largest) else repr(largest)]


def _shrinking(w: Worked) -> tuple[Step, ...]:
    """Loss and gradient of the target for every gap."""
    rows = [w.derivation(row) for row in range(len(GAPS))]
    columns = (
        Column(Formula("loss", r"\text{loss}"), tuple(d.row_loss for d in rows)),
        Column(
            Formula("p - y of the target", "p_y - 1"), tuple(d.difference[0].item() for d in rows)
        ),
    )
    words = "Both shrink like exp(-gap). They are 0 when exp(-gap) is below the smallest float64."
    labels = tuple(f"{gap:g}" for gap in GAPS)
    return (
        Step(
            "The gap between the target and the other logit",
            label="gap",
            labels=labels,
            columns=columns,
            remarks=(words,),
        ),
    )


PERFECT = Example(
    name="perfect",
    source=SOURCES["bahumi"],
    shows="a target of probability 1: loss 0 and gradient 0, reached at a gap of 746",
    logits=np.array([[gap, 0.0] for gap in GAPS]),
    targets=np.zeros(len(GAPS), np.int64),
    options=LossOptions(reduction="none"),
    claims=(
        Claim(
            "loss at p = 1", ("0",), lambda w: [_word(w.result.loss[-1])], how="Compared exactly."
        ),
        Claim("gradient at p = 1", ("0", "0"), lambda w: [_word(g) for g in w.gradient[-1]]),
    ),
    rows=(len(GAPS) - 1,),
    more=_shrinking,
    command="xent loss {folder}/logits.csv {folder}/targets.csv --reduction none",
)

OVERFLOW = Example(
    name="overflow",
    source=SOURCES["sorix"],
    shows="a logit of 1000, whose exponential is no float64",
    logits=np.array([[1000.0, 0.0]]),
    targets=np.array([0]),
    claims=(
        Claim("exp(1000)", ("overflow",), _by_hand),
        Claim("loss and gradient", ("finite",), _finite),
    ),
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

EXAMPLES = {example.name: example for example in (PERFECT, OVERFLOW)}
