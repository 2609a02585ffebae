"""The options of the loss: defaults, allowed values and help texts, declared once.

The command line and the Python functions are both made from these classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from xentcli.errors import OptionError

Reduction: TypeAlias = Literal["mean", "sum", "none"]
EmptyMean: TypeAlias = Literal["nan", "zero", "error"]
TargetKind: TypeAlias = Literal["auto", "index", "probs"]
Backend: TypeAlias = Literal["auto", "numpy", "cpu", "cuda"]


def setting(default: Any, help: str, **rule: Any) -> Any:
    """A dataclass field with its help text and rule: `choices`, or a range `low`, `high`, `above`.

    `group` is the heading under which `--help` lists it, `flag` its name on the command line
    where that is not the field's. With `saved` the command line also takes it from a file that a
    command wrote.
    """
    return field(default=default, metadata={"help": help, **rule})


def same_as(cls: type, name: str, **changes: Any) -> Any:
    """A dataclass field declared as the one of that name in another class."""
    found = next(item for item in fields(cls) if item.name == name)
    return field(default=found.default, metadata={**found.metadata, **changes})


@dataclass(frozen=True)
class LossOptions:
    """The scalar options of the loss; arrays such as weights are in `Extras`.

    >>> LossOptions(label_smoothing=0.1).reduction
    'mean'
    >>> LossOptions(label_smoothing=2)
    Traceback (most recent call last):
    xentcli.errors.OptionError: label_smoothing: 2 is not allowed; expected a number from 0 to 1
    """

    reduction: Reduction = setting(
        "mean",
        "Reduce the losses to their mean or sum, or keep one per row (none).",
        group="Loss",
        choices=get_args(Reduction),
    )
    ignore_index: int = setting(-100, "Ignore rows with this target.", group="Loss", integer=True)
    label_smoothing: float = setting(
        0.0,
        "Fraction of the target spread evenly over all classes.",
        group="Loss",
        low=0.0,
        high=1.0,
    )
    temperature: float = setting(
        1.0, "Divide the logits by this value.", group="Logits", above=0.0, saved=True
    )
    softcap: float | None = setting(
        None,
        "Cap the logits at ±F: z = F·tanh(z/F), after the temperature.",
        group="Logits",
        above=0.0,
    )
    z_loss: float = setting(
        0.0,
        "Add F times logsumexp² to each row's loss.",
        group="Loss",
        low=0.0,
    )
    normalizer: float | None = setting(
        None, "Denominator of the mean; computed from the data by default.", group="Loss", above=0.0
    )
    empty_mean: EmptyMean = setting(
        "nan", "Mean when every row is ignored.", group="Loss", choices=get_args(EmptyMean)
    )
    target_kind: TargetKind = setting(
        "auto",
        "Whether targets are class indices or probabilities; auto decides by shape.",
        group="Loss",
        choices=get_args(TargetKind),
        flag="targets",
    )
    class_axis: int | None = setting(
        None,
        "Class axis; by default inferred from the shapes, or the last one.",
        group="Logits",
        integer=True,
    )

    def __post_init__(self) -> None:
        _check(self)
        if self.normalizer is not None and self.reduction != "mean":
            raise OptionError(
                "normalizer", f"applies to the reduction mean only, not to {self.reduction}"
            )


@dataclass(frozen=True)
class LogitsOptions:
    """Those of the options that softmax has too."""

    temperature: float = same_as(LossOptions, "temperature")
    softcap: float | None = same_as(LossOptions, "softcap")
    class_axis: int | None = same_as(LossOptions, "class_axis")

    def __post_init__(self) -> None:
        _check(self)


def _check(options: LossOptions | LogitsOptions) -> None:
    for item in fields(options):
        value = getattr(options, item.name)
        if not _allowed(value, item.default, item.metadata):
            rule = rule_text(item.metadata)
            raise OptionError(item.name, f"{value!r} is not allowed; expected {rule}")


def _allowed(value: Any, default: Any, rule: Mapping[str, Any]) -> bool:
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


def _between(number: float, rule: Mapping[str, Any]) -> bool:
    return bool(rule.get("low", -math.inf) <= number <= rule.get("high", math.inf))


def rule_text(rule: Mapping[str, Any]) -> str:
    """A field's rule in words, for errors and help.

    >>> rule_text({"low": 0.0, "high": 1.0}), rule_text({"above": 0.0})
    ('a number from 0 to 1', 'a finite number above 0')
    """
    if "choices" in rule:
        *others, last = rule["choices"]
        return f"{', '.join(others)} or {last}"
    if rule.get("integer"):
        return "an integer"
    if "high" in rule:
        return f"a number from {rule['low']:g} to {rule['high']:g}"
    if "above" in rule:
        return f"a finite number above {rule['above']:g}"
    return f"a finite number, at least {rule['low']:g}"
