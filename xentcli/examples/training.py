"""A linear layer that learns one row by gradient descent, and the loss as it falls."""

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
from xentcli.examples.model import SOURCES, Claim, Example, Settings, Worked

INPUT, TARGET = np.array([1.0, 0.0, 0.0]), 2
START = (0.221, -1.419, -1.514)  # the logits of step 0, as published
# A start that rounds to the published one, and leads to every published digit.
FINER_START = (0.22106, -1.4186, -1.51362)
LOSS_LIMIT, LOGIT_LIMIT = 2e-4, 1e-3
LINES = 10  # of the table

PUBLISHED = {
    0: ("2.0499", "0.221", "-1.419", "-1.514"),
    10: ("0.5548", "-0.82", "-1.713", "-0.178"),
    20: ("0.2448", "-1.25", "-1.91", "0.449"),
    30: ("0.1491", "-1.479", "-2.034", "0.802"),
    40: ("0.1057", "-1.629", "-2.123", "1.041"),
    50: ("0.0814", "-1.74", "-2.191", "1.22"),
}


class Moment(NamedTuple):
    """One step of the training, before its update."""

    step: int
    loss: float
    logits: Array


def train(start: tuple[float, ...], settings: Settings) -> list[Moment]:
    """Stochastic gradient descent of x = W·input + b, with dL/dW = (p - y)·inputᵀ, dL/db = p - y.

    The input is (1, 0, 0), so of W only the first column matters; it begins as `start`.

    >>> [round(moment.loss, 4) for moment in train(START, Settings(steps=3))]
    [2.0501, 1.794, 1.5635]
    """
    weight, bias = np.zeros((len(start), len(INPUT))), np.zeros(len(start))
    weight[:, 0] = start
    history = []
    with np.errstate(all="ignore"):  # a learning rate that is far too large
        for step in range(settings.steps):
            logits = weight @ INPUT + bias
            result = cross_entropy(logits[None, :], [TARGET], backend="numpy")
            assert result.grad is not None
            history.append(Moment(step, result.loss, logits))
            weight -= settings.lr * np.outer(result.grad[0], INPUT)
            bias -= settings.lr * result.grad[0]
    return history


@lru_cache(maxsize=2)
def _published_run(start: tuple[float, ...]) -> dict[int, Moment]:
    return {moment.step: moment for moment in train(start, Settings()) if moment.step in PUBLISHED}


def _values(step: int, start: tuple[float, ...]) -> Callable[[Worked], Sequence[float]]:
    return lambda w: [_published_run(start)[step].loss]


def _outputs(step: int, start: tuple[float, ...]) -> Callable[[Worked], Sequence[float]]:
    return lambda w: _published_run(start)[step].logits.tolist()


HOW = (
    "The article prints the first logits to three decimals, and they decide everything after. "
    f"Started from those, losses agree to {LOSS_LIMIT:g} and logits to {LOGIT_LIMIT:g} (exact). "
    f"Started from {FINER_START}, which round to them, every digit is the published one (computed)."
)


def _claims() -> tuple[Claim, ...]:
    """A loss and three logits for each published step."""
    claims: list[Claim] = []
    for step, (loss, *logits) in PUBLISHED.items():
        for name, published, of, decimals, within in (
            ("loss", (loss,), _values, 4, LOSS_LIMIT),
            ("x", tuple(logits), _outputs, 3, LOGIT_LIMIT),
        ):
            claim = Claim(f"step {step} {name}", published, of(step, START), decimals)
            how = "" if claims else HOW
            claims.append(claim._replace(rounded=of(step, FINER_START), how=how, within=within))
    return tuple(claims)


def _told(w: Worked) -> tuple[Step, ...]:
    """Loss and logits of some steps, and the loss as a curve."""
    history = train(START, w.settings)
    shown = history[:: max(1, math.ceil((len(history) - 1) / LINES))]
    if shown[-1] is not history[-1]:
        shown = [*shown, history[-1]]
    losses = tuple(moment.loss for moment in shown)
    logits = zip(*(moment.logits.tolist() for moment in shown), strict=True)
    columns = (
        *(Column(Formula(f"x{c}", f"x_{c}"), values) for c, values in enumerate(logits)),
        Column(Formula("loss", r"\text{loss}"), losses, "share", max(losses)),
    )
    words = (
        f"{plural(w.settings.steps, 'step')} of gradient descent at a rate of {w.settings.lr:g}, "
        "from the logits of step 0. --steps and --lr change that; --format csv has every step."
    )
    return (
        Step(
            "Training",
            Formula("x = W·(1, 0, 0) + b", r"x = W\,(1, 0, 0)^T + b"),
            label="step",
            labels=tuple(str(moment.step) for moment in shown),
            columns=columns,
            remarks=(words,),
        ),
    )


def _data(w: Worked) -> dict[str, Any]:
    history = train(START, w.settings)
    return {"history": [{**m._asdict(), "logits": m.logits.tolist()} for m in history]}


def _table(w: Worked) -> tuple[tuple[Any, ...], ...]:
    history = train(START, w.settings)
    return ("step", "loss", "x0", "x1", "x2"), *(
        (moment.step, moment.loss, *moment.logits.tolist()) for moment in history
    )


TRAINING = Example(
    name="training",
    source=SOURCES["sorix"],
    shows="a linear layer learns one row by SGD: the loss falls from 2.05 to 0.08 in 50 steps",
    logits=np.array([START]),
    targets=np.array([TARGET]),
    claims=_claims(),
    more=_told,
    data=_data,
    table=_table,
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

EXAMPLES = {"training": TRAINING}
