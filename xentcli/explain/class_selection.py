"""Which classes of a derivation are shown: all, or the largest and the rest as one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import exact_sum
from xentcli.display.document import Column, Formula, Step
from xentcli.errors import plural, visible
from xentcli.explain import Derivation

MANY = 20  # classes; with more only the largest are shown unless --top says otherwise
SOME = 10


@dataclass(frozen=True)
class View:
    """How much of a derivation is shown: names of the classes, how many of them, decimals."""

    names: tuple[str, ...] = ()
    top: int | None = None
    decimals: int = 4


class Chosen:
    """The classes that are shown, in their order, and the rest as one line."""

    def __init__(self, d: Derivation, view: View) -> None:
        top = view.top or (d.classes if d.classes <= MANY else SOME)
        size = np.abs(np.where(np.isnan(d.difference), np.inf, d.difference))
        size[[] if d.target is None else [d.target]] = np.inf  # the target is always among them
        order = np.argsort(-size, kind="stable")[: min(top, d.classes)]
        self.order = np.sort(order) if d.classes <= top else order
        self.rest = np.setdiff1d(np.arange(d.classes), self.order)
        names = [f"{c} {view.names[c]}" if view.names else str(c) for c in self.order]
        others = [f"{plural(len(self.rest), 'other')}"] if len(self.rest) else []
        self.labels = tuple(map(visible, [*names, *others]))
        self.marked = frozenset(place for place, c in enumerate(self.order) if c == d.target)

    def column(
        self, title: Formula, values: Array, *, bar: str = "", summed: bool = True
    ) -> Column:
        """The chosen entries, and the sum of the others where that means something."""
        shown: list[Any] = values[self.order].tolist()
        if len(self.rest):
            shown.append(float(exact_sum(values[self.rest])) if summed else None)
        finite = [abs(value) for value in shown if value is not None and np.isfinite(value)]
        reach = max([*finite, 0.0]) or 1.0
        return Column(title, tuple(shown), bar, reach if bar == "pull" else 1.0)

    def directions(self, gradient: Array) -> Column:
        """What a step against the gradient does to each logit."""
        words = tuple(_direction(value) for value in gradient[self.order])
        rest = (None,) if len(self.rest) else ()
        return Column(Formula("the logit", r"\text{the logit}"), (*words, *rest))

    def step(self, title: str, formula: Formula, columns: list[Column], **more: Any) -> Step:
        """A step whose columns have a line for each class."""
        return Step(
            title,
            formula,
            labels=self.labels,
            columns=tuple(columns),
            marked=self.marked,
            **more,
        )


def _direction(gradient: float) -> str:
    if np.isnan(gradient):
        return "nan"
    return "rises" if gradient < 0 else "falls" if gradient > 0 else "stays"
