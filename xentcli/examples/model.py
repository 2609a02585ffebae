"""What an example is, and how its figures are compared with those that were published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.display.document import Step
from xentcli.engine.cross_entropy import Run, compute
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.result import CrossEntropy
from xentcli.engine.targets import Whole
from xentcli.explain import Derivation, derive
from xentcli.options import LossOptions

SOURCES = {
    "tensors": "Cross-Entropy Loss (Softmax) Gradient Used In Deep Learning",
    "exercise": "an exercise: the gradient of softmax cross-entropy, to 4 decimals",
    "bahumi": "Roei Bahumi, Cross Entropy Loss Derivative",
    "sorix": "CrossEntropyLoss in Deep Learning, a notebook of the Sorix library",
}


@dataclass(frozen=True)
class Settings:
    """What can be chosen in an example: how the training goes."""

    steps: int = 51
    lr: float = 0.1


class Claim(NamedTuple):
    """Published figures of one kind, as they were printed.

    `exact` gives the numbers that they are, or words. `decimals` is to how many the article
    rounded. `rounded` gives the numbers as the article got them, where it went on with rounded
    ones, and `how` says in which way. Several rows of figures have `classes` in each. The exact
    numbers may be `within` so much of the published ones, beside what rounding says.
    """

    what: str
    published: tuple[str, ...]
    exact: Callable[[Worked], Any]
    decimals: int = 4
    rounded: Callable[[Worked], Any] | None = None
    how: str = ""
    classes: int = 0
    within: float = math.inf

    def label(self, place: int) -> str:
        """Which of the figures it is: its class, or its row and class."""
        if len(self.published) == 1:
            return self.what
        where = f"{place // self.classes},{place % self.classes}" if self.classes else f"{place}"
        return f"{self.what}[{where}]"


class Figure(NamedTuple):
    """One published figure beside the computed one."""

    what: str
    published: str
    computed: str  # rounded as the article did
    exact: Any
    decimals: int | None  # None for words
    same: bool


@dataclass(frozen=True)
class Example:
    """A published example. `rows` are those that are derived step by step.

    `more` gives the steps that go beyond a derivation, `data` and `table` the same for machines.
    `command` is the ordinary command line for the same result.
    """

    name: str
    source: str
    shows: str
    logits: Array
    targets: Array
    claims: tuple[Claim, ...]
    command: str
    weight: Array | None = None
    upstream: Array | None = None
    options: LossOptions = field(default_factory=LossOptions)
    names: tuple[str, ...] = ()
    rows: tuple[int, ...] = (0,)
    top: int | None = None
    more: Callable[[Worked], tuple[Step, ...]] | None = None
    data: Callable[[Worked], dict[str, Any]] | None = None
    table: Callable[[Worked], tuple[tuple[Any, ...], ...]] | None = None

    @property
    def files(self) -> dict[str, Array]:
        """The inputs by the name of their file."""
        arrays = {"logits": self.logits, "targets": self.targets}
        beside = {"weight": self.weight, "upstream": self.upstream}
        return arrays | {name: array for name, array in beside.items() if array is not None}


@dataclass(frozen=True)
class Worked:
    """An example, computed."""

    example: Example
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def problem(self) -> Problem:
        """The inputs, checked."""
        e = self.example
        extras = Extras(weight=e.weight, upstream=e.upstream)
        return build(e.logits.shape, Whole(e.targets), e.options, extras)

    @cached_property
    def result(self) -> CrossEntropy:
        """What `cross_entropy` gives for the inputs."""
        e = self.example
        probs = e.targets if self.problem.probs else None
        logits = e.logits.astype(np.float64)
        return compute(self.problem, (logits, probs), e.options, Run("numpy"))

    @property
    def gradient(self) -> Array:
        """Of the inputs."""
        assert self.result.grad is not None
        gradient: Array = self.result.grad
        return gradient

    def derivation(self, row: int = 0) -> Derivation:
        """Of one row."""
        e = self.example
        q = np.asarray(e.targets[row], np.float64) if self.problem.probs else None
        return derive(self.problem, e.options, row, e.logits[row], q)

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """All published figures, compared."""
        return tuple(figure for claim in self.example.claims for figure in self._compared(claim))

    @property
    def reproduced(self) -> bool:
        """Whether all figures are the published ones."""
        return all(figure.same for figure in self.figures)

    def _compared(self, claim: Claim) -> list[Figure]:
        exact = list(claim.exact(self))
        rounded = list(claim.rounded(self)) if claim.rounded else exact
        figures = [
            figure(claim.label(place), *values, claim.decimals)
            for place, values in enumerate(zip(claim.published, rounded, exact, strict=True))
        ]
        return [item._replace(same=item.same and _near(item, claim.within)) for item in figures]


def _near(item: Figure, within: float) -> bool:
    return math.isinf(within) or abs(item.exact - float(item.published)) <= within


def figure(what: str, published: str, value: Any, exact: Any, decimals: int) -> Figure:
    """Compare one figure by its published digits; zeros at the end were not always printed.

    >>> figure("p", "0.09", 0.09003, 0.09003, 4)
    Figure(what='p', published='0.09', computed='0.09', exact=0.09003, decimals=4, same=True)
    >>> figure("p", "0.09", 0.09006, 0.09006, 4).same
    False
    """
    if isinstance(value, str):
        return Figure(what, published, value, exact, None, value == published)
    text = f"{float(value) + 0.0:.{decimals}f}"
    computed = text if text == published else text.rstrip("0").rstrip(".")
    return Figure(what, published, computed, float(exact), decimals, computed == published)
