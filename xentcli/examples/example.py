"""The definition of an example, and the comparison of its figures with the published ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import field
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.display.document import Step
from xentcli.engine.cross_entropy import Run, compute
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.result import CrossEntropy
from xentcli.engine.targets import Whole
from xentcli.explain import Derivation, derive
from xentcli.options import LossOptions
from xentcli.records import dataclass

SOURCES = {
    "tensors": "Cross-Entropy Loss (Softmax) Gradient Used In Deep Learning, robotchinwag.com",
    "exercise": "an exercise on the gradient of the softmax cross-entropy; author unknown",
    "bahumi": "Roei Bahumi, Cross Entropy Loss Derivative, on his blog and Medium",
    "sorix": "CrossEntropyLoss in Deep Learning, a notebook of the Python library Sorix",
}


By: TypeAlias = Literal["exact", "article", "statement"]


@dataclass(frozen=True)
class TrainingSettings:
    """What the user can change in the example `training`: updates, and the learning rate."""

    steps: int = 50
    lr: float = 0.1


class Published(NamedTuple):
    """Figures of one kind as printed in an article, rounded to `decimals`.

    `compute` gives the exact numbers, or words. Where the article continued with rounded numbers,
    `as_in_article` does the same, and `note` explains it. The exact numbers must also be within
    `tolerance` of the printed ones. Figures of several rows have `classes` per row.
    """

    what: str
    figures: tuple[str, ...]
    compute: Callable[[ComputedExample], Any]
    decimals: int = 4
    as_in_article: Callable[[ComputedExample], Any] | None = None
    note: str = ""
    classes: int = 0
    tolerance: float = math.inf

    def label(self, index: int) -> str:
        """The name of one figure, with its class, or its row and class."""
        if len(self.figures) == 1:
            return self.what
        where = f"{index // self.classes},{index % self.classes}" if self.classes else f"{index}"
        return f"{self.what}[{where}]"


class Comparison(NamedTuple):
    """One published figure and the computed one.

    `by` is how it was reproduced: in exact arithmetic, or only as the article computed, with its
    rounding or a start that is fitted to its figures; or it is a statement, and no number.
    """

    what: str
    published: str
    computed: str  # rounded as in the article
    exact: Any
    decimals: int | None  # None for words
    same: bool
    by: By = "exact"


@dataclass(frozen=True)
class Example:
    """A published example. `rows` are those whose derivation is shown.

    `extra_steps` gives steps that go beyond a derivation, `extra_data` and `table` the same for
    JSON and CSV. `command` is the command line with the same result.
    """

    name: str
    source: str
    description: str
    logits: Array
    targets: Array
    published: tuple[Published, ...]
    command: str = "xent grad {folder}/logits.csv {folder}/targets.csv"
    weight: Array | None = None
    upstream: Array | None = None
    options: LossOptions = field(default_factory=LossOptions)
    names: tuple[str, ...] = ()
    rows: tuple[int, ...] = (0,)
    top: int | None = None
    extra_steps: Callable[[ComputedExample], tuple[Step, ...]] | None = None
    extra_data: Callable[[ComputedExample], dict[str, Any]] | None = None
    table: Callable[[ComputedExample], tuple[tuple[Any, ...], ...]] | None = None

    @property
    def files(self) -> dict[str, Array]:
        """The inputs by file name."""
        arrays = {"logits": self.logits, "targets": self.targets}
        optional = {"weight": self.weight, "upstream": self.upstream}
        return arrays | {name: array for name, array in optional.items() if array is not None}


@dataclass(frozen=True)
class ComputedExample:
    """An example with its results."""

    example: Example
    settings: TrainingSettings = field(default_factory=TrainingSettings)

    @cached_property
    def problem(self) -> Problem:
        """The validated inputs."""
        e = self.example
        extras = Extras(weight=e.weight, upstream=e.upstream)
        return build(e.logits.shape, Whole(e.targets), e.options, extras)

    @cached_property
    def result(self) -> CrossEntropy:
        """The result of `cross_entropy`."""
        e = self.example
        probs = e.targets if self.problem.probs else None
        logits = e.logits.astype(np.float64)
        return compute(self.problem, (logits, probs), e.options, Run("numpy"))

    @property
    def gradient(self) -> Array:
        """The gradient with respect to the logits."""
        assert self.result.grad is not None
        gradient: Array = self.result.grad
        return gradient

    def derivation(self, row: int = 0) -> Derivation:
        """The derivation of one row."""
        e = self.example
        q = np.asarray(e.targets[row], np.float64) if self.problem.probs else None
        return derive(self.problem, e.options, row, e.logits[row], q)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All published figures, compared."""
        return tuple(chain.from_iterable(map(self._compare, self.example.published)))

    @property
    def reproduced(self) -> bool:
        """Whether all computed figures equal the published ones."""
        return all(comparison.same for comparison in self.comparisons)

    def count(self, by: By) -> int:
        """How many figures are reproduced that way."""
        return sum(one.same and one.by == by for one in self.comparisons)

    def _compare(self, published: Published) -> Iterator[Comparison]:
        exact = list(published.compute(self))
        computed = published.as_in_article(self) if published.as_in_article else exact
        limit, values = published.tolerance, zip(published.figures, computed, exact, strict=True)
        for index, (figure, value, number) in enumerate(values):
            comparison = compare(published.label(index), figure, value, number, published.decimals)
            near = math.isinf(limit) or abs(number - float(figure)) <= limit
            exactly = compare("", figure, number, number, published.decimals).same
            by: By = "exact" if exactly else "article"
            if comparison.decimals is None:
                by = "exact" if re.fullmatch(r"[-\d.]+", figure) else "statement"
            yield comparison._replace(same=comparison.same and near, by=by)


def compare(what: str, published: str, value: Any, exact: Any, decimals: int) -> Comparison:
    """Compare by the published digits; trailing zeros were not always printed.

    >>> compare("p", "0.09", 0.09003, 0.09003, 4)[:3]
    ('p', '0.09', '0.09')
    >>> compare("p", "0.09", 0.09003, 0.09003, 4).same
    True
    >>> compare("p", "0.09", 0.09006, 0.09006, 4).same
    False
    """
    if isinstance(value, str):
        return Comparison(what, published, value, exact, None, value == published)
    text = f"{float(value) + 0.0:.{decimals}f}"
    computed = text if text == published else text.rstrip("0").rstrip(".")
    return Comparison(what, published, computed, float(exact), decimals, computed == published)


def equal_within(tolerance: float, *differences: float) -> list[str]:
    """The word `equal` or `different`, as the published figure of two ways to compute the same."""
    agree = all(difference <= tolerance for difference in differences)
    return ["equal" if agree else "different"]
