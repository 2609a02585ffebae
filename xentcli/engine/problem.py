"""A cross-entropy problem: arrays that were checked against each other and the options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array, as_array, reals
from xentcli.arrays.error_free import two_product
from xentcli.arrays.layout import Layout, Shape, find
from xentcli.arrays.sums import RunningSum
from xentcli.engine.targets import IGNORED, Values, as_indices, require_targets, target_kind_of
from xentcli.errors import DataError, Setting, ShapeError, plural
from xentcli.options import LossOptions

CHUNK = 1 << 20  # rows
USUAL_POWERS = 100  # of weights: with larger ones a product could overflow or underflow
FEW = 1 << 12  # classes whose default weights are kept
ONE = np.ones(())  # the upstream gradient by default
ONE.flags.writeable = False


class Extras(NamedTuple):
    """The optional input arrays, as the user gave them."""

    weight: Any = None
    sample_weight: Any = None
    upstream: Any = None

    def as_arrays(self) -> Extras:
        """The same as NumPy arrays."""
        if self.weight is self.sample_weight is self.upstream is None:
            return self
        given = self._asdict().items()
        return Extras(**{name: as_array(a, name) for name, a in given if a is not None})


@dataclass(frozen=True)
class Problem:
    """Targets, weights and upstream gradients, checked and in one form.

    Logits and probabilities are not part of it: they may come piece by piece.

    `targets` are class indices (N,) with `IGNORED`, or None where there are probabilities.
    `weight` is (C,) and `sample_weight` (N,), or None for ones, which are not allocated for a size
    that only a header claims; `upstream` a number or (N,): float64. All are copies, whatever
    happens to the caller's arrays, and contiguous.
    """

    layout: Layout
    targets: Array | None
    weight: Array | None
    sample_weight: Array | None
    upstream: Array

    def part(self, rows: slice, layout: Layout) -> Problem:
        """The problem of some rows; `layout` is theirs."""
        return Problem(
            layout,
            None if self.targets is None else self.targets[rows],
            self.weight,
            None if self.sample_weight is None else self.sample_weight[rows],
            self.upstream if self.upstream.ndim == 0 else self.upstream[rows],
        )

    @property
    def probs(self) -> bool:
        """Whether the targets are probabilities."""
        return self.targets is None

    def present(self, rows: slice) -> Array | slice:
        """Which of some rows count: a mask, or all of them."""
        return slice(None) if self.targets is None else self.targets[rows] != IGNORED

    @property
    def scaled(self) -> bool:
        """Whether weights or an upstream gradient scale the rows."""
        given = self.weight is not None or self.sample_weight is not None
        return given or bool((self.upstream != 1).any())

    @property
    def class_weight(self) -> Array:
        """w, one per class: ones are made only when they are needed."""
        return _ones(self.layout.classes) if self.weight is None else self.weight

    def sample_weights(self, rows: slice) -> Array:
        """v_i of some rows."""
        if self.sample_weight is not None:
            return self.sample_weight[rows]
        return np.ones(len(range(*rows.indices(self.layout.rows))))

    def has_no_weight(self, rows: slice) -> Array:
        """Which rows count for nothing in the mean: v_i or w_{y_i} is 0. Any if ignored."""
        none: Array = self.sample_weights(rows) == 0
        if self.targets is None or self.weight is None:
            return none
        return np.asarray(none | (self.weight[self.targets[rows]] == 0))

    @property
    def weight_power(self) -> int:
        """The power of two that sums are computed with the class weights divided by."""
        return power_of(self.weight)

    @property
    def sample_weight_power(self) -> int:
        """The same for the row weights."""
        return power_of(self.sample_weight)

    def kernel_weight(self, power: int) -> Array:
        """w / 2^power, one per class."""
        if not power:
            return self.class_weight
        with np.errstate(under="ignore"):  # beside a huge weight
            return np.asarray(np.ldexp(self.class_weight, -power))

    def total_sample_weight(self, power: int) -> Fraction:
        """Σ v_i over the rows that count, exactly, for row weights divided by 2^power."""
        return self._total(None, power)

    def total_row_weight(self, power: int) -> Fraction:
        """Σ v_i·w_{y_i} over the rows that count, or Σ v_i for probabilities."""
        targets = None if self.targets is None or self.weight is None else self.targets
        return self._total(targets, power)

    def _total(self, targets: Array | None, power: int) -> Fraction:
        """The sum over the rows that count, some at a time: there may be more than memory."""
        total = RunningSum()
        weight = None if targets is None else self.kernel_weight(self.weight_power)
        for start in range(0, self.layout.rows, CHUNK):
            rows = slice(start, min(start + CHUNK, self.layout.rows))
            present = self.present(rows)
            with np.errstate(under="ignore"):
                v = np.ldexp(self.sample_weights(rows)[present], -power)
            if targets is None or weight is None:
                total.add(v)
                continue
            with np.errstate(under="ignore"):
                high, low = two_product(v, weight[targets[rows][present]])
            total.add(high)
            total.add(low)
        power += 0 if targets is None else self.weight_power
        return total.exact() * Fraction(2) ** power

    @property
    def ignored(self) -> int:
        """How many rows are left out."""
        targets = self.targets
        if targets is None or not targets.size or targets.item(targets.argmin()) >= 0:
            return 0
        parts = (targets[i : i + CHUNK] for i in range(0, len(targets), CHUNK))
        return sum(int(np.count_nonzero(part == IGNORED)) for part in parts)


def _ones(classes: int) -> Array:
    """The weights of classes by default, which nobody writes to."""
    return _few_ones(classes) if classes <= FEW else np.ones(classes)


@lru_cache(maxsize=16)  # a training loop asks for the same in every step
def _few_ones(classes: int) -> Array:
    ones = np.ones(classes)
    ones.flags.writeable = False
    return ones


def power_of(values: Array | None) -> int:
    """The exponent of the largest number; 0 unless products with it could leave the range."""
    if values is None:
        return 0
    largest = float(np.abs(values).max(initial=0.0))
    exponent = math.frexp(largest)[1]
    return exponent if abs(exponent) > USUAL_POWERS else 0


def without_targets(layout: Layout) -> Problem:
    """The problem of logits alone, for what computes no loss."""
    return Problem(layout, None, None, None, ONE)


def build(logits: Shape, targets: Values | None, options: LossOptions, extras: Extras) -> Problem:
    """Check everything that can be known before the logits are read; raise `DataError`.

    Beside a teacher there may be no targets, and then no row is ignored.
    """
    if targets is None:
        layout, indices = find(logits, None, options.class_axis), None
    else:
        require_targets(targets.dtype)
        layout = find(logits, targets.shape, options.class_axis)
        probs = target_kind_of(targets.shape, layout, options) == "probs"
        indices = None if probs else as_indices(targets, layout, options.ignore_index)
    per_row = layout.rows, layout.row_shape
    weight = None
    if extras.weight is not None:
        weight = vector(extras.weight, "weight", (layout.classes, (layout.classes,)))
    sample_weight = None
    if extras.sample_weight is not None:
        sample_weight = vector(extras.sample_weight, "sample_weight", per_row)
    return Problem(
        layout=layout,
        targets=indices,
        weight=weight,
        sample_weight=sample_weight,
        upstream=upstream(extras.upstream, options, per_row),
    )


def upstream(values: Any, options: LossOptions, per_row: tuple[int, Shape]) -> Array:
    """dL/d(loss): a number, or one per row."""
    if values is None:
        return ONE
    array = reals(values, "upstream")
    if array.size == 1:
        return vector(array, "upstream", (1, (1,))).reshape(())
    require_per_row(array.shape, options)
    return vector(array, "upstream", per_row)


def require_per_row(shape: Shape, options: LossOptions) -> None:
    """An error for several upstream gradients where the reduction gives one number."""
    if options.reduction != "none":
        raise ShapeError(
            "upstream",
            f"shape {shape}, but the reduction {options.reduction} gives one number",
            ("use ", Setting("reduction", "none"), " for one upstream gradient per row"),
        )


def require_length(given: Shape, where: str, allowed: tuple[int, Shape]) -> None:
    """An error unless there is one number for each class or row; one column or line is taken."""
    length, shape = allowed
    if given not in (shape, (length,), (length, 1), (1, length)) and prod(given) != 1:
        raise ShapeError(where, f"shape {given} does not fit; expected {shape}")
    if prod(given) != length:
        raise ShapeError(where, f"{plural(prod(given), 'number')} given, {length} needed")


def vector(values: Any, where: str, allowed: tuple[int, Shape]) -> Array:
    """One finite number for each class or row, float64, in memory of their own."""
    array = reals(values, where)
    require_length(array.shape, where, allowed)
    flat = array.flatten()
    if not np.isfinite(flat).all():
        first = int(np.argmin(np.isfinite(flat)))
        raise DataError(where, f"entry {first} is {flat[first].item()}; expected finite numbers")
    return flat
