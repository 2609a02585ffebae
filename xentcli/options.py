"""The options of the loss: every default, range check and help text, once.

The command line and the Python call are both made from `LossOptions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from xentcli.errors import OptionError

Reduction: TypeAlias = Literal["mean", "sum", "none"]
EmptyMean: TypeAlias = Literal["nan", "zero", "error"]
TargetKind: TypeAlias = Literal["auto", "index", "probs"]
Backend: TypeAlias = Literal["auto", "numpy", "cpu", "cuda"]


def _option(default: Any, help: str, **rule: Any) -> Any:
    """A field with its help text and its rule: `choices`, or a range `low`, `high`, `above`."""
    return field(default=default, metadata={"help": help, **rule})


@dataclass(frozen=True)
class LossOptions:
    """What is computed from logits and targets; the scalars, not the arrays.

    >>> LossOptions(label_smoothing=0.1).reduction
    'mean'
    >>> LossOptions(label_smoothing=2)
    Traceback (most recent call last):
    xentcli.errors.OptionError: label_smoothing: 2 is not allowed: a number from 0 to 1
    """

    reduction: Reduction = _option(
        "mean",
        "One number for all rows (mean, sum), or one per row (none).",
        choices=get_args(Reduction),
    )
    ignore_index: int = _option(-100, "Rows with this target are left out.", integer=True)
    label_smoothing: float = _option(
        0.0, "Share of the target spread evenly over all classes.", low=0.0, high=1.0
    )
    temperature: float = _option(1.0, "Divide the logits by this first.", above=0.0)
    softcap: float | None = _option(
        None, "Cap the logits: z = c·tanh(z/c), after the temperature.", above=0.0
    )
    z_loss: float = _option(0.0, "Add this times logsumexp² to each row's loss.", low=0.0)
    normalizer: float | None = _option(
        None, "Denominator of the mean, instead of the one from the data.", above=0.0
    )
    empty_mean: EmptyMean = _option(
        "nan",
        "What the mean over no rows is.",
        choices=get_args(EmptyMean),
    )
    target_kind: TargetKind = _option(
        "auto",
        "Class indices or probabilities; auto goes by the shape.",
        choices=get_args(TargetKind),
        flag="targets",
    )
    class_axis: int | None = _option(
        None, "Axis of the logits that holds the classes; from the shapes.", integer=True
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not _allowed(value, item.default, item.metadata):
                rule = rule_text(item.metadata)
                raise OptionError(item.name, f"{value!r} is not allowed: {rule}")
        if self.normalizer is not None and self.reduction != "mean":
            raise OptionError(
                "normalizer",
                f"it is the denominator of the mean, but the reduction is {self.reduction}",
            )


def _allowed(value: Any, default: Any, rule: Any) -> bool:
    if value is None and default is None:
        return True
    if "choices" in rule:
        return value in rule["choices"]
    if isinstance(value, bool | str):
        return False
    try:
        number = float(value)
        whole = not rule.get("integer") or int(value) == value
    except (TypeError, ValueError, OverflowError):
        return False
    above = number > rule.get("above", -math.inf)
    return whole and above and math.isfinite(number) and _between(number, rule)


def _between(number: float, rule: Any) -> bool:
    return bool(rule.get("low", -math.inf) <= number <= rule.get("high", math.inf))


def rule_text(rule: Any) -> str:
    """A field's rule in words, for errors and help.

    >>> rule_text({"low": 0.0, "high": 1.0}), rule_text({"above": 0.0})
    ('a number from 0 to 1', 'a finite number above 0')
    """
    if "choices" in rule:
        *others, last = rule["choices"]
        return f"{', '.join(others)} or {last}"
    if rule.get("integer"):
        return "a whole number"
    if "high" in rule:
        return f"a number from {rule['low']:g} to {rule['high']:g}"
    if "above" in rule:
        return f"a finite number above {rule['above']:g}"
    return f"a finite number, at least {rule['low']:g}"
