"""The options of `report` and `calibrate`, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from xentcli.errors import OptionError
from xentcli.options import LossOptions, TargetKind, same_as

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
        for name, least in (
            ("bins", 1),
            ("confusion", 0),
            ("worst", 0),
            ("bytes", 1),
            ("words", 1),
        ):
            _require_integer(name, getattr(self, name), least)
        for number in self.top:
            _require_integer("top", number, 1)
        if self.binning not in get_args(Binning):
            what = f"{self.binning!r} is not allowed; expected width or mass"
            raise OptionError("binning", what)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The k of each top-k accuracy, 1 first: it is the accuracy."""
        return tuple(sorted({1, *self.top}))


def _require_integer(name: str, value: Any, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        what = f"{value!r} is not allowed; expected an integer, at least {least}"
        raise OptionError(name, what)


def finite_or_none(value: float | None) -> float | None:
    """A number, or None where there is none: an error that is not defined."""
    return value if value is not None and math.isfinite(value) else None
