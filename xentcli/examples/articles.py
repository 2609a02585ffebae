"""The examples that are a derivation and nothing else."""

from __future__ import annotations

import math

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.examples.model import SOURCES, Claim, Example, Worked


def _p(w: Worked) -> Array:
    return w.derivation().p


def _exponentials(w: Worked) -> Array:
    return w.derivation().unshifted


def _total(w: Worked) -> list[float]:
    return [w.derivation().unshifted_total]


def _gradient(w: Worked) -> Array:
    return w.gradient.reshape(-1)


def _loss(w: Worked) -> list[float]:
    return [w.result.loss]


def _from_rounded_p(w: Worked) -> list[float]:
    """-log of the target's probability after that was rounded to two digits."""
    return [-math.log(round(w.derivation().p[1], 2))]


def _in_float32(w: Worked) -> Array:
    """(p - y)/n with every intermediate result rounded to float32."""
    rows = [w.derivation(row) for row in range(len(w.example.logits))]
    p = np.array([d.p for d in rows], dtype=np.float32)
    y = np.array([d.q for d in rows], dtype=np.float32)
    gradient: Array = ((p - y) / np.float32(len(rows))).reshape(-1)
    return gradient


THREE_CLASS = Example(
    name="three-class",
    source=SOURCES["exercise"],
    shows="the gradient p - y of logits 1, 2, 3 with target 0",
    logits=np.array([[1.0, 2.0, 3.0]]),
    targets=np.array([0]),
    claims=(
        Claim("exp(x)", ("2.718", "7.389", "20.086"), _exponentials, 3),
        Claim("sum of exp(x)", ("30.193",), _total, 3),
        Claim("p", ("0.09", "0.2447", "0.6652"), _p),
        Claim("gradient", ("-0.91", "0.2447", "0.6652"), _gradient),
    ),
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

TIE = Example(
    name="tie",
    source=SOURCES["exercise"],
    shows="two equal logits: a gradient of one half each way",
    logits=np.array([[0.0, 0.0]]),
    targets=np.array([1]),
    claims=(
        Claim("exp(x)", ("1", "1"), _exponentials),
        Claim("sum of exp(x)", ("2",), _total),
        Claim("p", ("0.5", "0.5"), _p),
        Claim("gradient", ("0.5", "-0.5"), _gradient),
    ),
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

FOUR_CLASS = Example(
    name="four-class",
    source=SOURCES["exercise"],
    shows="logits 1, 2, 3, 4 with target 2, which is pushed up",
    logits=np.array([[1.0, 2.0, 3.0, 4.0]]),
    targets=np.array([2]),
    claims=(
        Claim("exp(x)", ("2.718", "7.389", "20.086", "54.598"), _exponentials, 3),
        Claim("sum of exp(x)", ("84.791",), _total, 3),
        Claim("p", ("0.0321", "0.0871", "0.2369", "0.6439"), _p),
        Claim("gradient", ("0.0321", "0.0871", "-0.7631", "0.6439"), _gradient),
    ),
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

CAT_DOG_BIRD = Example(
    name="cat-dog-bird",
    source=SOURCES["bahumi"],
    shows="an image of a dog: p = 0.23, 0.63, 0.14, and a loss from rounded p",
    logits=np.array([[1.0, 2.0, 0.5]]),
    targets=np.array([1]),
    claims=(
        Claim("p", ("0.23", "0.63", "0.14"), _p, 2),
        Claim(
            "loss",
            ("0.462",),
            _loss,
            3,
            rounded=_from_rounded_p,
            how="The article's loss is -log(0.63), of p rounded to two digits; the exact loss is "
            "0.4644.",
        ),
    ),
    names=("cat", "dog", "bird"),
    command="xent loss {folder}/logits.csv {folder}/targets.csv",
)

BATCH_MEAN = Example(
    name="batch-mean",
    source=SOURCES["sorix"],
    shows="the mean over a batch of two: the gradient is (p - y)/2",
    logits=np.array([[2.0, 1.0, 0.1], [0.0, 5.0, 0.2]]),
    targets=np.array([0, 1]),
    claims=(
        Claim("loss", ("0.2159",), _loss),
        Claim(
            "gradient",
            (
                *("-0.17049944", "0.12121648", "0.04928295"),
                *("0.00331929", "-0.00737348", "0.00405419"),
            ),
            _gradient,
            8,
            rounded=_in_float32,
            how="The article computed in float32: p is rounded to float32 before 1 is subtracted, "
            "which changes the eighth digit. The exact numbers stand beside.",
            classes=3,
        ),
    ),
    rows=(0, 1),
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

CLASS_WEIGHTS = Example(
    name="class-weights",
    source=SOURCES["sorix"],
    shows="class weights 1 and 10, which the weighted mean cancels",
    logits=np.array([[2.0, 1.0], [2.0, 1.0]]),
    targets=np.array([1, 1]),
    weight=np.array([1.0, 10.0]),
    claims=(
        Claim("loss", ("1.3133",), _loss),
        Claim(
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
