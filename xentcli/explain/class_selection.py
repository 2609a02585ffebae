"""Which classes of a derivation are shown: all, or the largest and the sum of the others."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import exact_sum
from xentcli.display.document import Bar, Column, Formula, Step
from xentcli.errors import OptionError, plural, visible
from xentcli.records import dataclass

SHOW_ALL = 20  # classes; with more, the largest are shown by default
DEFAULT_TOP = 10


@dataclass(frozen=True)
class DisplayOptions:
    """The names of the classes, how many classes are shown, and with how many decimals."""

    names: tuple[str, ...] = ()
    top: int | None = None
    decimals: int = 4


class Row(Protocol):
    """What decides which classes are shown: the largest differences, and the target."""

    @property
    def classes(self) -> int:
        """C."""

    @property
    def difference(self) -> Array:
        """One number per class."""

    @property
    def target(self) -> int | None:
        """The target's class, if there is one."""


def require_names(display: DisplayOptions, classes: int) -> None:
    """An error unless there is a name per class, or none."""
    if display.names and len(display.names) != classes:
        count = plural(len(display.names), "name")
        raise OptionError("names", f"{count} given, but the row has {classes} classes")


class ClassSelection:
    """The classes that are shown, in their order, and all others as one line."""

    def __init__(self, d: Row, display: DisplayOptions) -> None:
        top = display.top or (d.classes if d.classes <= SHOW_ALL else DEFAULT_TOP)
        size = np.abs(np.where(np.isnan(d.difference), np.inf, d.difference))
        size[[] if d.target is None else [d.target]] = np.inf  # the target is always shown
        largest = np.argsort(-size, kind="stable")[: min(top, d.classes)]
        self.indices = np.sort(largest) if d.classes <= top else largest
        self.others = np.setdiff1d(np.arange(d.classes), self.indices)
        self._names = display.names
        names = [f"{c} {display.names[c]}" if display.names else str(c) for c in self.indices]
        rest = [plural(len(self.others), "other")] if len(self.others) else []
        self.labels = tuple(map(visible, [*names, *rest]))
        self.marked = frozenset(row for row, c in enumerate(self.indices) if c == d.target)

    def name(self, c: int) -> str:
        """A class in a sentence."""
        return f"class {c} ({visible(self._names[c])})" if self._names else f"class {c}"

    def column(
        self, title: Formula, values: Array, *, bar: Bar = "", summed: bool = True
    ) -> Column:
        """The entries of these classes, and the sum of the others if `summed`."""
        shown: list[Any] = values[self.indices].tolist()
        if len(self.others):
            shown.append(float(exact_sum(values[self.others])) if summed else None)
        finite = [abs(value) for value in shown if value is not None and np.isfinite(value)]
        largest = max([*finite, 0.0]) or 1.0
        return Column(title, tuple(shown), bar, largest if bar == "signed" else 1.0)

    def directions(self, gradient: Array) -> Column:
        """What a gradient descent step does to each logit."""
        words = tuple(map(_direction, gradient[self.indices]))
        rest = (None,) if len(self.others) else ()
        return Column(Formula.in_words("direction"), (*words, *rest))

    def step(self, title: str, formula: Formula, columns: list[Column], **more: Any) -> Step:
        """A step with one line per class."""
        more |= {"labels": self.labels, "columns": tuple(columns), "marked": self.marked}
        return Step(title, formula, **more)


def _direction(gradient: float) -> str:
    if np.isnan(gradient):
        return "nan"
    return "rises" if gradient < 0 else "falls" if gradient > 0 else "stays"
