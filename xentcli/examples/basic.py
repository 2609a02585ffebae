"""The examples that need no more than the derivation."""

from __future__ import annotations

import math

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.examples.example import SOURCES, ComputedExample, Example, Published


def _p(computed: ComputedExample) -> Array:
    return computed.derivation().p


def _gradient(computed: ComputedExample) -> Array:
    return computed.gradient.reshape(-1)


def _loss(computed: ComputedExample) -> list[float]:
    return [computed.result.loss]


def _loss_from_rounded_p(computed: ComputedExample) -> list[float]:
    """-log of the target's probability, rounded to two digits first."""
    return [-math.log(round(computed.derivation().p[1], 2))]


def _gradient_in_float32(computed: ComputedExample) -> Array:
    """(p - y)/n with every intermediate result rounded to float32."""
    rows = [computed.derivation(row) for row in range(len(computed.example.logits))]
    p = np.array([d.p for d in rows], dtype=np.float32)
    y = np.array([d.q for d in rows], dtype=np.float32)
    gradient: Array = ((p - y) / np.float32(len(rows))).reshape(-1)
    return gradient


def _exercise(
    exponentials: str, total: str, p: str, gradient: str, decimals: int = 3
) -> tuple[Published, ...]:
    """The figures of the exercise, each a line of numbers."""
    return (
        Published(
            "exp(x)", tuple(exponentials.split()), lambda c: c.derivation().unshifted, decimals
        ),
        Published("sum of exp(x)", (total,), lambda c: [c.derivation().unshifted_total], decimals),
        Published("p", tuple(p.split()), _p),
        Published("gradient", tuple(gradient.split()), _gradient),
    )


THREE_CLASS = Example(
    name="three-class",
    source=SOURCES["exercise"],
    description="the gradient p - y of logits 1, 2, 3 with target 0",
    logits=np.array([[1.0, 2.0, 3.0]]),
    targets=np.array([0]),
    published=_exercise(
        "2.718 7.389 20.086", "30.193", "0.09 0.2447 0.6652", "-0.91 0.2447 0.6652"
    ),
)

TIE = Example(
    name="tie",
    source=SOURCES["exercise"],
    description="two equal logits: the gradients are 0.5 and -0.5",
    logits=np.array([[0.0, 0.0]]),
    targets=np.array([1]),
    published=_exercise("1 1", "2", "0.5 0.5", "0.5 -0.5", 4),
)

FOUR_CLASS = Example(
    name="four-class",
    source=SOURCES["exercise"],
    description="the gradient of logits 1, 2, 3, 4 with target 2",
    logits=np.array([[1.0, 2.0, 3.0, 4.0]]),
    targets=np.array([2]),
    published=_exercise(
        "2.718 7.389 20.086 54.598",
        "84.791",
        "0.0321 0.0871 0.2369 0.6439",
        "0.0321 0.0871 -0.7631 0.6439",
    ),
)

CAT_DOG_BIRD = Example(
    name="cat-dog-bird",
    source=SOURCES["bahumi"],
    description="an image of a dog: p = 0.23, 0.63, 0.14, and a loss computed from rounded p",
    logits=np.array([[1.0, 2.0, 0.5]]),
    targets=np.array([1]),
    published=(
        Published("p", ("0.23", "0.63", "0.14"), _p, 2),
        Published(
            "loss",
            ("0.462",),
            _loss,
            3,
            as_in_article=_loss_from_rounded_p,
            note="The article computes -log(0.63), from p rounded to two digits; the exact loss is "
            "0.4644.",
        ),
    ),
    names=("cat", "dog", "bird"),
    command="xent loss {folder}/logits.csv {folder}/targets.csv",
)

BATCH_MEAN = Example(
    name="batch-mean",
    source=SOURCES["sorix"],
    description="the mean over a batch of two: the gradient is (p - y)/2",
    logits=np.array([[2.0, 1.0, 0.1], [0.0, 5.0, 0.2]]),
    targets=np.array([0, 1]),
    published=(
        Published("loss", ("0.2159",), _loss),
        Published(
            "gradient",
            (
                *("-0.17049944", "0.12121648", "0.04928295"),
                *("0.00331929", "-0.00737348", "0.00405419"),
            ),
            _gradient,
            8,
            as_in_article=_gradient_in_float32,
            note="The article computes in float32: p is rounded to float32 before 1 is subtracted, "
            "which changes the eighth digit. The column 'exact' is in float64.",
            classes=3,
        ),
    ),
    rows=(0, 1),
)

CLASS_WEIGHTS = Example(
    name="class-weights",
    source=SOURCES["sorix"],
    description="class weights 1 and 10, which cancel in the weighted mean",
    logits=np.array([[2.0, 1.0], [2.0, 1.0]]),
    targets=np.array([1, 1]),
    weight=np.array([1.0, 10.0]),
    published=(
        Published("loss", ("1.3133",), _loss),
        Published(
            "gradient",
            ("0.3655293", "-0.3655293", "0.3655293", "-0.3655293"),
            _gradient,
            7,
            classes=2,
        ),
    ),
    command="xent grad {folder}/logits.csv {folder}/targets.csv --weight {folder}/weight.csv",
)

EXAMPLES = {
    example.name: example
    for example in (THREE_CLASS, TIE, FOUR_CLASS, CAT_DOG_BIRD, BATCH_MEAN, CLASS_WEIGHTS)
}
