"""Examples at the limits of float64."""

from __future__ import annotations

import numpy as np

from xentcli.display.document import Column, Formula, Step
from xentcli.examples.example import SOURCES, ComputedExample, Example, Published
from xentcli.options import LossOptions

GAPS = (1.0, 5.0, 10.0, 20.0, 40.0, 100.0, 400.0, 745.0, 746.0)


def _exact_text(value: float) -> str:
    """The number in full, so that only an exact 0 is 0."""
    return "0" if value == 0 else repr(float(value))


def _finite(computed: ComputedExample) -> list[str]:
    values = [computed.result.loss, *computed.gradient.reshape(-1)]
    return ["finite" if np.isfinite(values).all() else "not finite"]


def _unshifted_exp(computed: ComputedExample) -> list[str]:
    with np.errstate(over="ignore"):
        largest = np.exp(computed.example.logits).max()
    return ["overflow" if np.isinf(largest) else repr(largest)]


def _gap_steps(computed: ComputedExample) -> tuple[Step, ...]:
    """Loss and gradient of the target for each gap."""
    rows = [computed.derivation(row) for row in range(len(GAPS))]
    columns = (
        Column(Formula.in_words("loss"), tuple(d.row_loss for d in rows)),
        Column(
            Formula("p - y of the target", "p_y - 1"), tuple(d.difference[0].item() for d in rows)
        ),
    )
    words = "Both decrease like exp(-gap), and are 0 once exp(-gap) underflows float64."
    labels = tuple(f"{gap:g}" for gap in GAPS)
    return (
        Step(
            "The gap between the target and the other logit",
            heading="gap",
            labels=labels,
            columns=columns,
            remarks=(words,),
        ),
    )


PERFECT = Example(
    name="perfect",
    source=SOURCES["bahumi"],
    description="a perfect prediction: loss and gradient reach exactly 0 at a logit gap of 746",
    logits=np.array([[gap, 0.0] for gap in GAPS]),
    targets=np.zeros(len(GAPS), np.int64),
    options=LossOptions(reduction="none"),
    published=(
        Published(
            "loss at p = 1",
            ("0",),
            lambda c: [_exact_text(c.result.loss[-1])],
            note="Compared exactly.",
        ),
        Published(
            "gradient at p = 1", ("0", "0"), lambda c: [_exact_text(g) for g in c.gradient[-1]]
        ),
    ),
    rows=(len(GAPS) - 1,),
    extra_steps=_gap_steps,
    command="xent loss {folder}/logits.csv {folder}/targets.csv --reduction none",
)

OVERFLOW = Example(
    name="overflow",
    source=SOURCES["sorix"],
    description="a logit of 1000, whose exponential overflows float64",
    logits=np.array([[1000.0, 0.0]]),
    targets=np.array([0]),
    published=(
        Published("exp(1000)", ("overflow",), _unshifted_exp),
        Published("loss and gradient", ("finite",), _finite),
    ),
)

EXAMPLES = {example.name: example for example in (PERFECT, OVERFLOW)}
