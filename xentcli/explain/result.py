"""The result of a derivation, for those who do not read the steps: loss, gradient, one sentence."""

from __future__ import annotations

import numpy as np

from xentcli.display.document import Fact, Formula, Step
from xentcli.errors import plural
from xentcli.explain.class_selection import ClassSelection
from xentcli.explain.derivation import Derivation

X, P = Formula("x", "x_c"), Formula("p", "p_c")
LOSS, GRADIENT = Formula.in_words("loss"), Formula.in_words("gradient")
NAMED = 2  # classes; of more, the number is said


def result_step(d: Derivation, shown: ClassSelection) -> Step:
    """The loss, the gradient of each class, and what it does."""
    columns = [shown.column(X, d.logits, summed=False)]
    if not d.ignored:
        columns.append(shown.column(P, d.p))
    columns.append(shown.column(GRADIENT, d.gradient, bar="signed"))
    columns.append(shown.directions(d.gradient))
    facts = [Fact(LOSS, d.loss, "of this row, in nats")]
    if d.rows > 1 and d.options.reduction != "none":
        facts.append(Fact(Formula.in_words("share"), d.share, f"in the {d.options.reduction}"))
    sentence = sentence_of(d, shown)
    return shown.step("Result", Formula("", ""), columns, facts=tuple(facts), remarks=(sentence,))


def sentence_of(d: Derivation, shown: ClassSelection) -> str:
    """What a gradient descent step does to the logits, or why it does nothing."""
    if d.ignored:
        return "The row is ignored: its loss and gradient are 0."
    if np.isnan(d.gradient).any():
        return f"The gradient is nan, so no step can help: {_why_nan(d)}."
    if np.isinf(d.gradient).any():
        return "The gradient is infinite, so no step can help: a factor overflows float64."
    if not d.gradient.any():
        return f"The gradient is 0, so a step changes nothing: {_why_zero(d)}."
    raised, lowered = (_classes(which, shown) for which in (d.gradient < 0, d.gradient > 0))
    parts = [f"raises the logit of {raised}"] if raised else []
    parts += [f"lowers {'that' if raised else 'the logit'} of {lowered}"] if lowered else []
    step = f"A gradient descent step {' and '.join(parts)}."
    if d.target is None:
        return step
    return f"The target, {shown.name(d.target)}, has probability {d.p[d.target]:.4g}. {step}"


def _classes(which: np.ndarray, shown: ClassSelection) -> str:
    """The classes of a mask by name, if there are few."""
    indices = np.flatnonzero(which)
    if len(indices) > NAMED:
        return f"{plural(len(indices), 'class')}"
    return " and ".join(shown.name(int(c)) for c in indices)


def _why_nan(d: Derivation) -> str:
    if np.isnan(d.z).any() or (d.z == np.inf).any():
        return "a logit is nan or inf"
    if (d.z == -np.inf).all():
        return "all logits are -inf"
    if d.factors.denominator == 0:
        return "the row weights sum to 0"
    return "a factor is not finite"


def _why_zero(d: Derivation) -> str:
    f = d.factors
    if f.scale == 0 or f.row_weight == 0 or f.upstream == 0 or d.mass == 0:
        return "a factor or weight is 0"
    if d.classes == 1:
        return "there is only one class"
    if d.logits_scaled and not d.slope.any():
        return "the softcap is saturated"
    return "the probabilities are those of the target"
