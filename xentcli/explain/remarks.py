"""What happened to the numbers of a derivation that are extreme, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xentcli.engine.notes import ProbabilityCheck
from xentcli.errors import plural

if TYPE_CHECKING:
    from xentcli.explain import Derivation

LARGEST = 709.782712893384  # whose exponential is still a float64
SMALLEST = -745.1332191019411  # the same, and not 0
SURE = 0.99  # a probability near 1


class Remark(NamedTuple):
    """A sentence about one step: logits, exponentials, target, loss, gradient or factors."""

    step: str
    text: str


def with_remarks(d: Derivation) -> Derivation:
    """The same derivation with what there is to say."""
    if d.ignored:
        text = "The row is left out: its loss is 0 and its gradient exactly 0, whatever it holds."
        none = [] if d.factors.counted else _no_row(d)
        return replace(d, remarks=(Remark("target", text), *none))
    parts = (_logits(d), _exponentials(d), _target(d), _loss(d), _gradient(d), _factors(d))
    return replace(d, remarks=tuple(remark for part in parts for remark in part))


def _no_row(d: Derivation) -> list[Remark]:
    if d.options.reduction != "mean" or d.options.normalizer is not None:
        return []
    mean = {"nan": "nan", "zero": "0"}[d.options.empty_mean]
    return [Remark("factors", f"No row is left, so the mean over all of them is {mean}.")]


def _logits(d: Derivation) -> list[Remark]:
    """The shift, and what would have happened without it."""
    name = "z" if (d.z != d.logits).any() else "x"
    if np.isnan(d.maximum):
        first = int(np.argmax(~(d.z < np.inf))) if not (d.z == -np.inf).all() else None
        if first is None:
            return [Remark("logits", "All logits are -inf: there is no answer, and all is nan.")]
        return [Remark("logits", f"Class {first} is {d.z[first]:g}: no answer, so all is nan.")]
    found = []
    if d.maximum > LARGEST:
        found.append(
            f"exp({d.maximum:g}) is beyond float64 (largest: exp({LARGEST:.4g})). Without "
            "subtracting the maximum, p would be inf/inf = nan."
        )
    elif d.maximum < SMALLEST:
        found.append(
            f"Every exp({name}) is 0 in float64. Without subtracting the maximum, p would be "
            "0/0 = nan."
        )
    minus = int(np.count_nonzero(d.z == -np.inf))
    if minus:
        found.append(f"{plural(minus, 'logit')} of -inf: probability exactly 0.")
    return [Remark("logits", text) for text in found]


def _exponentials(d: Derivation) -> list[Remark]:
    gone = int(np.count_nonzero((d.exponentials == 0) & np.isfinite(d.shifted)))
    if not gone:
        return []
    verb, they = ("is", "its") if gone == 1 else ("are", "their")
    text = f"{plural(gone, 'exponential')} {verb} too small for float64 (below exp({SMALLEST:.4g}))"
    return [Remark("exponentials", f"{text}, and {they} probability is 0.")]


def _target(d: Derivation) -> list[Remark]:
    if d.target is not None:
        return []
    check = ProbabilityCheck()
    check.add(d.q[None, :])
    if not check.notes():
        return []
    text = f"The target sums to {d.q.sum():.6g}: it is no distribution, and is used as it is."
    return [Remark("target", text)]


def _loss(d: Derivation) -> list[Remark]:
    if d.target is None or not np.isfinite(d.row_loss):
        infinite = np.isinf(d.row_loss)
        text = "A class that should have some probability has 0: the loss is inf."
        return [Remark("loss", text)] if infinite else []
    p = d.p[d.target]
    if not p >= SURE or d.classes == 1:
        return []
    text = (
        "p of the target is near 1, where -log p loses digits. The loss is log1p(others/own), "
        "from the exponentials of the other classes."
    )
    return [Remark("loss", text)]


def _gradient(d: Derivation) -> list[Remark]:
    if d.target is None or not d.p[d.target] >= SURE or d.classes == 1:
        return []
    text = (
        "The target's entry p - 1 is taken as minus the sum of the others, so it keeps all its "
        "digits."
    )
    return [Remark("gradient", text)]


def _factors(d: Derivation) -> list[Remark]:
    f, found = d.factors, []
    if f.upstream < 0:
        found.append("The upstream gradient is negative: every direction is reversed.")
    if f.row_weight == 0 or f.upstream == 0 or (f.scale == 0 and f.denominator != 0):
        found.append("A factor is 0, and with it the gradient.")
    if f.denominator == 0:
        found.append("The weights of all rows sum to 0: the mean is not defined.")
    if d.z_loss != d.options.z_loss:
        found.append(
            f"The z-loss is divided by the sum of the row weights, not by the denominator above: "
            f"its coefficient is {d.z_loss:.6g} instead of {d.options.z_loss:g}."
        )
    return [Remark("factors", text) for text in found]
