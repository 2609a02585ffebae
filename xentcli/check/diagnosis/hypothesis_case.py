"""Some rows with everything that a gradient is computed from, to simulate mistakes."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Layout
from xentcli.check.oracles.rows import FloatRows, Scale
from xentcli.check.oracles.ulp import FloatInfo
from xentcli.options import LossOptions
from xentcli.records import dataclass


class Hypothesis(NamedTuple):
    """The gradient that a mistake leads to, and the size of the terms that it is made of.

    NaN where it is not known.
    """

    grad: Array
    size: Array


class Factor(NamedTuple):
    """A constant that a gradient may be too large by, and why."""

    value: float
    name: str
    words: str


@dataclass(frozen=True)
class HypothesisCase:
    """Rows that count, the options, and what their gradients were divided by.

    `present` is how many rows count in the whole; `candidate` is the gradient to be explained,
    and `columns` the same rows of it transposed, where it is square. `whole`: these are all rows.
    `rough`: `finfo` has less precision than the numbers, and each step was rounded to it.
    """

    rows: FloatRows
    candidate: Array
    options: LossOptions
    scale: Scale
    finfo: FloatInfo
    layout: Layout
    present: int
    columns: Array | None
    whole: bool
    rough: bool = False

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Constants that are known beside those of every loss."""
        return ()

    @property
    def classes(self) -> int:
        """C."""
        return self.layout.classes

    @property
    def denominator(self) -> float:
        """D."""
        return float(self.scale.denominator.high)

    @property
    def z_loss(self) -> float:
        """λ, scaled as the reduction needs it."""
        return self.options.z_loss * float(self.scale.ratio.high)

    @cached_property
    def factor(self) -> Array:
        """u·v / D of each row."""
        scale, power = self.scale.of(self.rows)
        return np.ldexp(scale.high, power)

    @cached_property
    def z(self) -> Array:
        """The logits after temperature and softcap."""
        return capped(self.rows.x, self.options.temperature, self.options.softcap)

    @cached_property
    def p(self) -> Array:
        """Their softmax."""
        return softmax(self.z)

    @cached_property
    def lse(self) -> Array:
        """Their log-sum-exp, (n, 1)."""
        top = self.z.max(axis=1, keepdims=True)
        return np.asarray(top + np.log(np.exp(self.z - top).sum(axis=1, keepdims=True)))

    @cached_property
    def slope(self) -> Array:
        """dz/dx."""
        o = self.options
        bent = np.zeros_like(self.z) if o.softcap is None else self.z / o.softcap
        return np.asarray((1 - bent**2) / o.temperature)

    @cached_property
    def bend(self) -> Array:
        """The size of the terms of dz/dx, 1 and tanh²."""
        return np.asarray(2 / self.options.temperature - self.slope)

    @cached_property
    def a(self) -> Array:
        """w_c·((1 − ε)·q_c + ε/C)."""
        return self.rows.weight * self.smoothed(self.rows.q)

    def smoothed(self, q: Array, times: float = 1.0) -> Array:
        """(1 − ε)·q + times·ε/C."""
        smoothing = self.options.label_smoothing
        return (1 - smoothing) * q + times * smoothing / self.classes

    @cached_property
    def target_weight(self) -> Array:
        """Σ w·q: the target's weight, (n, 1)."""
        return np.asarray((self.rows.weight * self.rows.q).sum(axis=1, keepdims=True))

    def make(
        self,
        *,
        p: Array | None = None,
        a: Array | None = None,
        mass: Array | None = None,
        slope: Array | None = None,
        z_loss: float | None = None,
        factor: Array | None = None,
    ) -> Hypothesis:
        """The gradient, with p, a, mass Σ a, slope, z_loss or factor replaced."""
        p, a = self.p if p is None else p, self.a if a is None else a
        mass = a.sum(axis=1, keepdims=True) if mass is None else mass
        slope = self.slope if slope is None else slope
        factor = (self.factor if factor is None else factor)[:, None]
        z_term = 2 * (self.z_loss if z_loss is None else z_loss) * self.lse * p
        grad = (mass * p - a + z_term) * factor * slope
        size = (np.abs(mass) * p + np.abs(a) + np.abs(z_term)) * np.abs(factor)
        return Hypothesis(grad, size * self.bend)

    def some(self, which: Array) -> HypothesisCase:
        """Some of the rows."""
        columns = None if self.columns is None else self.columns[which]
        whole = self.whole and len(which) == len(self.candidate)
        rows, candidate = self.rows.some(which), self.candidate[which]
        return replace(self, rows=rows, candidate=candidate, columns=columns, whole=whole)

    def with_logits(self, x: Array) -> HypothesisCase:
        """The same with other logits."""
        return replace(self, rows=replace(self.rows, x=x))

    def neighbour(self, step: int) -> Array:
        """The position of the row `step` rows later, −1 where it was not sampled."""
        numbers = self.rows.numbers
        places = np.minimum(np.searchsorted(numbers, numbers + step), len(numbers) - 1)
        return np.where(numbers[places] == numbers + step, places, -1)

    def shifted(self, values: Array, step: int) -> Array:
        """The values of the row `step` rows later, NaN where it was not sampled."""
        places = self.neighbour(step)
        moved = values[places].astype(np.float64)
        moved[places < 0] = np.nan
        return moved


def capped(x: Array, temperature: float, cap: float | None) -> Array:
    """z."""
    z = x / temperature
    return z if cap is None else np.asarray(cap * np.tanh(z / cap))


def softmax(z: Array, axis: int = 1) -> Array:
    """p."""
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))
