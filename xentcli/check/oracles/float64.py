"""The float64 reference as an oracle of float32 and smaller dtypes.

Its error, some 2⁻⁵⁰ of the terms, is nothing in units of float32, except where the terms nearly
cancel: such rows are done again with twice the digits.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends import Scalars, reference, softmax_steps
from xentcli.check.oracles.dd_arithmetic import Pair, pair
from xentcli.check.oracles.double_double import DoubleDoubleOracle
from xentcli.check.oracles.rows import FloatRows, OracleResult, Scale, scatter
from xentcli.options import LossOptions
from xentcli.records import dataclass

# An entry this much smaller than its terms has an error up to 2⁻³¹ of itself, 2⁻⁷ ULP of float32.
CANCELS = 2.0**-18
LARGE_CAP = 1e4  # z is rounded at the size of the cap
LARGE = 2.0**200  # beyond, what float64 lets underflow could matter


@dataclass(frozen=True)
class ReferenceOracle:
    """The reference backend's own steps, with the rows that need more digits done again."""

    options: LossOptions
    scale: Scale
    name = "float64 reference"

    @cached_property
    def _careful(self) -> DoubleDoubleOracle:
        return DoubleDoubleOracle(self.options, self.scale)

    @cached_property
    def _scalars(self) -> Scalars:
        return Scalars.of(self.options, self.options.z_loss * float(self.scale.ratio.high))

    def __call__(self, rows: FloatRows) -> OracleResult:
        """Gradient and losses; NaN in rows that have no answer, zero in those that are ignored."""
        if self._extreme(rows.weight):
            return self._careful(rows)
        present = rows.present
        with np.errstate(all="ignore"):
            inner = self._present(rows.some(present))
            exact = scatter(inner, rows, present)
            cancels = np.abs(exact.grad.high) < CANCELS * exact.size
        again = np.flatnonzero(cancels.any(axis=1) | self._large_factors(rows))
        if len(again):
            better = self._careful(rows.some(again))
            for old, new in zip(_arrays(exact), _arrays(better), strict=True):
                old[again] = new
        return exact

    def _extreme(self, weight: Array) -> bool:
        """Whether the cap or a class weight is too large for any row."""
        return (self.options.softcap or 0.0) > LARGE_CAP or bool((np.abs(weight) > LARGE).any())

    def _large_factors(self, rows: FloatRows) -> Array:
        """Which rows have a factor that is too large: each by itself, however rows are cut."""
        scale, power = self.scale.of(rows)
        factor = np.abs(np.ldexp(scale.high, power))
        return np.asarray((factor > LARGE) & np.isfinite(factor))

    def _present(self, rows: FloatRows) -> OracleResult:
        scalars = self._scalars
        a = reference.masses(rows.q, rows.weight, scalars.label_smoothing)
        s = softmax_steps.softmax(rows.x, scalars)
        losses = reference.loss(s, a, scalars.z_loss)
        scale, power = self.scale.of(rows)
        factor = np.ldexp(scale.high, power)
        g = reference.gradient(s, a, scalars.z_loss)
        grad = reference.scaled(g, scalars.temperature, factor)
        size = np.abs(grad)
        if rows.target is None or scalars.label_smoothing or scalars.z_loss:
            slope = s.dz_dx(scalars.temperature)
            size = self._terms(s, np.abs(a)) * slope * np.abs(factor[:, None])
        uncertainty = softmax_steps.lowered(s.rest(s.best))[:, 0]
        return OracleResult(
            pair(grad), size, np.zeros_like(size), pair(losses * rows.sample_weight), uncertainty
        )

    def _terms(self, s: softmax_steps.SoftmaxSteps, a: Array) -> Array:
        """The size of what a gradient is made of, p·Σ_{j≠c} |a_j|, |a_c|·(1 − p_c), z-loss."""
        p = softmax_steps.lowered(s.p)
        minus = a * (1 - p)
        np.put_along_axis(
            minus,
            s.best,
            np.take_along_axis(a, s.best, axis=1) * softmax_steps.lowered(s.rest(s.best)),
            axis=1,
        )
        plus = softmax_steps.lowered(reference.difference(s, a)) + minus
        pull = reference.z_pull(s, self._scalars.z_loss)
        return np.asarray(np.abs(plus) + np.abs(minus) + np.abs(pull))


def _arrays(exact: OracleResult) -> list[Array]:
    flat: list[Array] = []
    for part in exact:
        flat.extend(part if isinstance(part, Pair) else [part])
    return flat
