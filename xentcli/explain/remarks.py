"""Remarks on extreme numbers in a derivation: overflow, underflow, NaN, and zero factors."""

from __future__ import annotations

import numpy as np

from xentcli.engine.notes import ProbabilityCheck
from xentcli.errors import plural
from xentcli.explain.derivation import Derivation, Remark

OVERFLOW = 709.782712893384  # exp of anything larger is inf in float64
UNDERFLOW = -745.1332191019411  # exp of anything smaller is 0
NEAR_ONE = 0.99


def remarks_on(d: Derivation) -> tuple[Remark, ...]:
    """Everything worth a remark, in the order of the steps; empty for ordinary numbers."""
    if d.ignored:
        text = "The row is ignored: its loss and gradient are exactly 0, whatever its logits are."
        return (Remark("target", text), *_all_ignored(d))
    parts = (_logits, _exponentials, _target, _loss, _gradient, _factors)
    return tuple(remark for part in parts for remark in part(d))


def _all_ignored(d: Derivation) -> list[Remark]:
    if d.factors.counted or d.options.reduction != "mean" or d.options.normalizer is not None:
        return []
    mean = {"nan": "nan", "zero": "0"}[d.options.empty_mean]
    return [Remark("factors", f"All rows are ignored, so the mean is {mean}.")]


def _logits(d: Derivation) -> list[Remark]:
    """What makes the softmax undefined, or would without subtracting the maximum."""
    name = "z" if (d.z != d.logits).any() else "x"
    undefined = "so the softmax is undefined and every result is nan."
    if np.isnan(d.maximum) and (d.z == -np.inf).all():
        return [Remark("logits", f"All logits are -inf, {undefined}")]
    if np.isnan(d.maximum):
        first = int(np.argmax(~(d.z < np.inf)))
        text = f"The logit of class {first} is {d.z[first]:g}, {undefined}"
        return [Remark("logits", text, first)]
    texts = []
    if d.maximum > OVERFLOW:
        texts.append(
            f"exp({d.maximum:g}) overflows float64 (the limit is exp({OVERFLOW:.4g})). Without "
            "subtracting the maximum, p would be inf/inf = nan."
        )
    elif d.maximum < UNDERFLOW:
        texts.append(
            f"Every exp({name}) underflows to 0 in float64. Without subtracting the maximum, p "
            "would be 0/0 = nan."
        )
    infinite = int(np.count_nonzero(d.z == -np.inf))
    if infinite:
        verb, pronoun = ("is", "its") if infinite == 1 else ("are", "their")
        count = plural(infinite, "logit")
        texts.append(f"{count} {verb} -inf: {pronoun} probability is exactly 0.")
    return [Remark("logits", text) for text in texts]


def _exponentials(d: Derivation) -> list[Remark]:
    gone = int(np.count_nonzero((d.exponentials == 0) & np.isfinite(d.shifted)))
    if not gone:
        return []
    verb, pronoun = ("underflows", "its") if gone == 1 else ("underflow", "their")
    text = f"{plural(gone, 'exponential')} {verb} to 0 in float64 (below exp({UNDERFLOW:.4g}))"
    return [Remark("exponentials", f"{text}, so {pronoun} probability is 0.")]


def _target(d: Derivation) -> list[Remark]:
    if d.target is not None:
        return []
    check = ProbabilityCheck()
    check.add(d.q[None, :])
    if not check.notes():
        return []
    text = (
        f"The target is not a probability distribution (its entries sum to {d.q.sum():.6g}, the "
        f"smallest is {d.q.min():.6g}); it is used as given."
    )
    return [Remark("target", text)]


def _is_near_one(d: Derivation) -> bool:
    return d.target is not None and d.classes > 1 and bool(d.p[d.target] >= NEAR_ONE)


def _loss(d: Derivation) -> list[Remark]:
    if np.isinf(d.row_loss):
        text = "A class with a nonzero target has probability 0, so the loss is inf."
        return [Remark("loss", text)]
    if not _is_near_one(d) or np.isnan(d.row_loss):
        return []
    text = (
        "p[target] is close to 1, where -log p loses digits. The loss is computed as log1p(r), "
        "where r is the sum of the other exponentials divided by the target's."
    )
    return [Remark("loss", text)]


def _gradient(d: Derivation) -> list[Remark]:
    if not _is_near_one(d):
        return []
    text = (
        "The target's entry p - 1 is computed as minus the sum of the other entries, which avoids "
        "cancellation."
    )
    return [Remark("gradient", text)]


def _factors(d: Derivation) -> list[Remark]:
    f, texts = d.factors, []
    if f.upstream < 0:
        texts.append("The upstream gradient is negative, so every direction is reversed.")
    if f.row_weight == 0 or f.upstream == 0 or (f.scale == 0 and f.denominator != 0):
        texts.append("A factor is 0, so the gradient is 0.")
    if f.denominator == 0:
        texts.append("The row weights sum to 0, so the mean is undefined.")
    if d.z_loss != d.options.z_loss:
        texts.append(
            "The z-loss is divided by Σ v, the sum of the sample weights, and not by D: relative "
            f"to D its coefficient is {d.z_loss:.6g} instead of {d.options.z_loss:g}."
        )
    return [Remark("factors", text) for text in texts]
