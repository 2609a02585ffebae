"""A linear layer trained on one row by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.display.document import Column, Formula, Step
from xentcli.engine.cross_entropy import cross_entropy
from xentcli.errors import plural
from xentcli.examples.example import SOURCES, ComputedExample, Example, Published, TrainingSettings

INPUT, TARGET = np.array([1.0, 0.0, 0.0]), 2
START = (0.221, -1.419, -1.514)  # the logits of step 0, as published
# Rounds to the published start, and leads to every published digit.
FINER_START = (0.22106, -1.4186, -1.51362)
LOSS_LIMIT, LOGIT_LIMIT = 2e-4, 1e-3
LINES = 10  # of the printed table

PUBLISHED = {
    0: ("2.0499", "0.221", "-1.419", "-1.514"),
    10: ("0.5548", "-0.82", "-1.713", "-0.178"),
    20: ("0.2448", "-1.25", "-1.91", "0.449"),
    30: ("0.1491", "-1.479", "-2.034", "0.802"),
    40: ("0.1057", "-1.629", "-2.123", "1.041"),
    50: ("0.0814", "-1.74", "-2.191", "1.22"),
}


class TrainingStep(NamedTuple):
    """Loss and logits of one training step, before its update."""

    step: int
    loss: float
    logits: Array


def train(start: tuple[float, ...], settings: TrainingSettings) -> list[TrainingStep]:
    """SGD on x = W·input + b, where dL/dW = (p - y)·inputᵀ and dL/db = p - y.

    The input is (1, 0, 0), so only the first column of W matters, which is initialised to `start`.

    >>> [round(entry.loss, 4) for entry in train(START, TrainingSettings(steps=2))]
    [2.0501, 1.794, 1.5635]
    """
    weight, bias = np.zeros((len(start), len(INPUT))), np.zeros(len(start))
    weight[:, 0] = start
    history = []
    with np.errstate(all="ignore"):  # for learning rates that are far too large
        for step in range(settings.steps + 1):  # the first is before any update
            logits = weight @ INPUT + bias
            result = cross_entropy(logits[None, :], [TARGET], backend="numpy")
            assert result.grad is not None
            history.append(TrainingStep(step, result.loss, logits))
            weight -= settings.lr * np.outer(result.grad[0], INPUT)
            bias -= settings.lr * result.grad[0]
    return history


@lru_cache(maxsize=2)
def _published_run(start: tuple[float, ...]) -> dict[int, TrainingStep]:
    return {
        entry.step: entry for entry in train(start, TrainingSettings()) if entry.step in PUBLISHED
    }


def _loss(step: int, start: tuple[float, ...]) -> Callable[[ComputedExample], Sequence[float]]:
    return lambda _: [_published_run(start)[step].loss]


def _logits(step: int, start: tuple[float, ...]) -> Callable[[ComputedExample], Sequence[float]]:
    return lambda _: _published_run(start)[step].logits.tolist()


NOTE = (
    "The article prints the logits of step 0 to three decimals only, which limits all later steps. "
    f"Starting from these, losses agree within {LOSS_LIMIT:g} and logits within {LOGIT_LIMIT:g} "
    f"(column 'exact'). Starting from {FINER_START}, which round to them, all published digits "
    "are reproduced (column 'computed')."
)


def _published() -> tuple[Published, ...]:
    """A loss and three logits for each published step."""
    published: list[Published] = []
    for step, (loss, *logits) in PUBLISHED.items():
        for name, figures, compute, decimals, limit in (
            ("loss", (loss,), _loss, 4, LOSS_LIMIT),
            ("x", tuple(logits), _logits, 3, LOGIT_LIMIT),
        ):
            published.append(
                Published(
                    *(f"step {step} {name}", figures, compute(step, START), decimals),
                    as_in_article=compute(step, FINER_START),
                    note="" if published else NOTE,
                    tolerance=limit,
                )
            )
    return tuple(published)


def _steps(computed: ComputedExample) -> tuple[Step, ...]:
    """Loss and logits of some steps, with a bar for the loss."""
    history = train(START, computed.settings)
    shown = history[:: max(1, math.ceil((len(history) - 1) / LINES))]
    if shown[-1] is not history[-1]:
        shown = [*shown, history[-1]]
    losses = tuple(entry.loss for entry in shown)
    logits = zip(*(entry.logits.tolist() for entry in shown), strict=True)
    columns = (
        *(Column(Formula(f"x{c}", f"x_{c}"), values) for c, values in enumerate(logits)),
        Column(Formula.in_words("loss"), losses, "fraction", max(losses)),
    )
    words = (
        f"{plural(computed.settings.steps, 'step')} of gradient descent with learning rate "
        f"{computed.settings.lr:g}. Change these with --steps and --lr; --format csv prints all "
        "steps."
    )
    return (
        Step(
            "Training",
            Formula("x = W·(1, 0, 0) + b", r"x = W\,(1, 0, 0)^T + b"),
            heading="step",
            labels=tuple(str(entry.step) for entry in shown),
            columns=columns,
            remarks=(words,),
        ),
    )


def _data(computed: ComputedExample) -> dict[str, Any]:
    history = train(START, computed.settings)
    return {"history": [{**entry._asdict(), "logits": entry.logits.tolist()} for entry in history]}


def _table(computed: ComputedExample) -> tuple[tuple[Any, ...], ...]:
    history = train(START, computed.settings)
    return ("step", "loss", "x0", "x1", "x2"), *(
        (entry.step, entry.loss, *entry.logits.tolist()) for entry in history
    )


TRAINING = Example(
    name="training",
    source=SOURCES["sorix"],
    description="a linear layer trained on one row: the loss falls from 2.05 to 0.08 in 50 steps",
    logits=np.array([START]),
    targets=np.array([TARGET]),
    published=_published(),
    extra_steps=_steps,
    extra_data=_data,
    table=_table,
)

EXAMPLES = {"training": TRAINING}
