"""The options of `report` and `calibrate`, checked."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

from xentcli.options import BOOLEAN, LossOptions, TargetKind, allowed, same_as
from xentcli.records import dataclass

Binning: TypeAlias = Literal["width", "mass"]
Method: TypeAlias = Literal["temperature", "bias"]


@dataclass(frozen=True)
class ScoreOptions:
    """Those of the loss's options that change what a row is: no weight of classes, no smoothing."""

    ignore_index: int = same_as(LossOptions, "ignore_index", group="Row")
    target_kind: TargetKind = same_as(LossOptions, "target_kind", group="Row")
    temperature: float = same_as(LossOptions, "temperature")
    softcap: float | None = same_as(LossOptions, "softcap")
    class_axis: int | None = same_as(LossOptions, "class_axis")

    def __post_init__(self) -> None:
        self.loss()

    def loss(self) -> LossOptions:
        """The same as options of the loss, which checks them."""
        return LossOptions(**{name: getattr(self, name) for name in ScoreOptions.__annotations__})


RULES: dict[str, dict[str, Any]] = {
    "bins": {"integer": True, "low": 1},
    "binning": {"choices": get_args(Binning)},
    "confusion": {"integer": True, "low": 0},
    "worst": {"integer": True, "low": 0},
    "skip_nonfinite": BOOLEAN,
    "bytes": {"integer": True, "low": 1},
    "words": {"integer": True, "low": 1},
}
METHOD = {"choices": get_args(Method)}
FOLDS = {"integer": True, "low": 2}


@dataclass(frozen=True)
class ReportOptions:
    """What to report.

    >>> ReportOptions(bins=0)
    Traceback (most recent call last):
    xentcli.errors.OptionError: bins: 0 is not allowed; expected an integer, at least 1
    """

    top: tuple[int, ...] = (1, 5)
    bins: int = 15
    binning: Binning = "width"
    confusion: int = 0
    worst: int = 0
    skip_nonfinite: bool = False
    bytes: int | None = None  # the size of the text
    words: int | None = None  # in the text

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, allowed(name, value, rule))
        ranks = tuple(allowed("top", k, {"integer": True, "low": 1}) for k in self.top)
        object.__setattr__(self, "top", ranks)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The k of each top-k accuracy, 1 first: it is the accuracy."""
        return tuple(sorted({1, *self.top}))


def finite_or_none(value: float | None) -> float | None:
    """A number, or None where there is none: an error that is not defined."""
    return value if value is not None and math.isfinite(value) else None
