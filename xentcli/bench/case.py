"""A case to time: its shape, dtype and options, and random data for it."""

from __future__ import annotations

from dataclasses import field, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, default_output, name_of, narrow, widen
from xentcli.arrays.layout import Layout
from xentcli.errors import OptionError
from xentcli.options import LossOptions
from xentcli.records import dataclass

LARGEST = 1 << 36  # bytes: so that a typing error does not allocate a terabyte
PART = 1 << 22  # logits that are drawn, and computed exactly; a larger case repeats them


class VariedOptions(TypedDict):
    """The options of the loss that a case may vary."""

    label_smoothing: float
    temperature: float
    softcap: float | None
    z_loss: float


OPTIONS = tuple(VariedOptions.__annotations__)


@dataclass(frozen=True)
class Case:
    """What is computed. `weighted`: with class weights; `probs`: targets are probabilities."""

    shape: tuple[int, ...]
    dtype: str = "f32"
    options: LossOptions = field(default_factory=LossOptions)
    class_axis: int = -1
    weighted: bool = False
    probs: bool = False
    gradient: bool = True
    in_place: bool = False

    def __post_init__(self) -> None:
        axes = len(self.shape)
        if axes < 2 or min(self.shape) < 1 or self.nbytes > LARGEST:
            raise OptionError(
                "shape", f"{self.shape} is not allowed; expected N,C or more axes, each ≥ 1"
            )
        if not -axes <= self.class_axis < axes:
            raise OptionError("class_axis", f"{self.class_axis} is not an axis of {self.shape}")
        if self.in_place and not self.gradient:
            raise OptionError("in_place", "without a gradient nothing is written")

    @cached_property
    def layout(self) -> Layout:
        """Rows and classes of the logits."""
        return Layout(self.shape, self.class_axis % len(self.shape))

    def loss_options(self) -> VariedOptions:
        """The options that are varied, as keywords of `cross_entropy`."""
        o = self.options
        return VariedOptions(
            label_smoothing=o.label_smoothing,
            temperature=o.temperature,
            softcap=o.softcap,
            z_loss=o.z_loss,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the logits."""
        return int(np.prod(self.shape, dtype=float)) * NAMES[self.dtype].itemsize

    @property
    def moved(self) -> int:
        """Bytes that have to be read and written: logits, probabilities, gradient."""
        return self.nbytes * (1 + self.probs + self.gradient)

    def part(self) -> Case:
        """The first rows along axis 0, for which data are drawn."""
        if self.class_axis % len(self.shape) == 0:
            return self
        rest = int(np.prod(self.shape[1:], dtype=float))
        return replace(self, shape=(min(self.shape[0], max(8, PART // rest)), *self.shape[1:]))

    def title(self, how: str = "") -> str:
        """The case in words; `how` is it measured, where not alone."""
        parts = [
            " × ".join(f"{n:,}" for n in self.shape),
            name_of(NAMES[self.dtype]),
            "loss and gradient" if self.gradient else "loss only",
        ]
        for wanted, words in (
            (self.in_place, "in place"),
            (self.class_axis % len(self.shape) != len(self.shape) - 1, f"axis {self.class_axis}"),
            (self.weighted, "class weights"),
            (self.probs, "probability targets"),
        ):
            parts += [words] if wanted else []
        plain = LossOptions()
        for name in OPTIONS:
            value = getattr(self.options, name)
            parts += [f"{name} {value:g}"] if value != getattr(plain, name) else []
        return ", ".join([*parts, how] if how else parts)


@dataclass(frozen=True)
class Data:
    """Arrays for a case, in host or device memory.

    The logits are normal with standard deviation 4; in every eighth row the target's probability is
    nearly 1. float16 and bfloat16 gradients have the dtype of the logits, as in training.
    """

    logits: Any
    targets: Any
    weight: Any

    @classmethod
    def make(cls, case: Case, seed: int = 0) -> Data:
        """Data for the part of a case; the same for the same seed."""
        rng, case = np.random.default_rng(seed), case.part()
        layout, dtype = case.layout, NAMES[case.dtype]
        logits = rng.standard_normal(case.shape, dtype=np.float32)
        logits *= 4
        indices = rng.integers(0, layout.classes, layout.row_shape)
        boxed = layout.boxed(logits)
        outer, _, inner = boxed.shape
        certain = np.arange(0, layout.rows, 8)
        o, i = np.divmod(certain, inner)
        boxed[o, indices.reshape(outer, inner)[o, i], i] += 30
        weight = rng.random(layout.classes) + 0.5 if case.weighted else None
        targets = _probabilities(rng, case) if case.probs else indices
        if case.dtype == "f64":
            fine = rng.random(case.shape) * 2.0**-20  # bits beyond those of float32
            return cls(logits + fine, targets, weight)
        return cls(narrow(logits, dtype), targets, weight)

    def whole(self, case: Case) -> Data:
        """The part, repeated along axis 0 to the shape of the case."""
        if self.logits.shape == case.shape:
            return self
        first, again = case.shape[0], -(-case.shape[0] // len(self.logits))
        logits, targets = (
            np.concatenate([array] * again)[:first] for array in (self.logits, self.targets)
        )
        return Data(logits, targets, self.weight)

    def counts(self, case: Case) -> Array:
        """How often each row of the part is repeated."""
        own = case.part().layout
        whole, more = divmod(case.layout.rows, own.rows)
        return (whole + (np.arange(own.rows) < more)).reshape(own.row_shape)

    def some_rows(self, case: Case, count: int) -> tuple[Array, Array, Array]:
        """The indices of some rows of the case, their logits and their targets."""
        rows = np.unique(np.linspace(0, case.layout.rows - 1, count).astype(np.int64))
        part = rows % case.part().layout.rows
        picked = rows_of(self.logits, case, part)
        if case.probs:
            return rows, picked, rows_of(self.targets, case, part)
        return rows, picked, self.targets.reshape(-1)[part]


def rows_of(array: Array, case: Case, rows: Array) -> Array:
    """Some rows of an array of the case's shape, as float64 (rows, C)."""
    inner = case.layout.box[2]
    o, i = np.divmod(rows, inner)
    boxed = array.reshape(-1, case.layout.classes, inner)
    return widen(boxed[o, :, i], NAMES["f64"])


def _probabilities(rng: np.random.Generator, case: Case) -> Array:
    values = rng.random(case.shape, dtype=np.float32)
    values /= values.sum(axis=case.class_axis, keepdims=True)
    return narrow(values, default_output(NAMES[case.dtype]))
