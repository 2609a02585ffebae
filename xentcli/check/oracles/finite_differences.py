"""The gradient from differences of the loss: an oracle that uses no formula of the gradient.

    ∂L/∂x_c ≈ (45·(L₊₁ − L₋₁) − 9·(L₊₂ − L₋₂) + (L₊₃ − L₋₃)) / 60h,   L_k = L(x + k·h·e_c)

In float64, which leaves an error of about 10⁻¹³ of the loss. That goes with each number, and what
it hides is not called an error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Layout
from xentcli.check.oracles.dd_arithmetic import pair
from xentcli.check.oracles.double_double import DoubleDoubleOracle
from xentcli.check.oracles.rows import FloatRows, OracleResult, Scale
from xentcli.errors import OptionError, Setting, plural
from xentcli.options import LossOptions
from xentcli.records import dataclass

STEP = 2.0**-7
WEIGHTS = ((1, 45.0), (2, -9.0), (3, 1.0))
ENTRIES = 1 << 18  # logits of moved rows at a time
SECONDS = 1 << 28  # exponentials: about ten
MOST = 1 << 38  # exponentials: a day
GROUP = 4  # neighbours, because a mistake may be one of rows
ROUNDING = 2.0**-44  # of the loss and the logits, with the weights and the step above
BEND = 2.0**-40  # of the sixth power of the step, times what a seventh derivative can be


def rows_to_check(layout: Layout, asked: int | None) -> Array | None:
    """The numbers of the rows that are compared, in evenly spaced groups; None for all.

    By default as many as take about ten seconds. An error where they would take more than a day.
    """
    each = 6 * layout.classes**2
    wanted = max(1, SECONDS // max(1, each)) if asked is None else asked
    count = min(wanted, layout.rows)
    if count * each > MOST:
        what = f"{count * each:.1e} exponentials are needed for {plural(count, 'row')} of "
        what += f"{layout.classes} classes"
        raise OptionError("method", what, ("use ", Setting("method", "exact")))
    if count == layout.rows:
        return None
    group = min(GROUP, count)
    starts = np.linspace(0, layout.rows - group, -(-count // group)).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(group))[:count]


@dataclass(frozen=True)
class FiniteDifferenceOracle:
    """The oracle; it tells `progress` how many logits it has moved since the last time."""

    options: LossOptions
    scale: Scale
    progress: Callable[[int], None] = lambda moved: None
    name = "finite differences"

    def __call__(self, rows: FloatRows) -> OracleResult:
        """Gradient and losses, with how far off they may be."""
        o, classes = self.options, rows.x.shape[1]
        a = rows.weight * ((1 - o.label_smoothing) * rows.q + o.label_smoothing / classes)
        step = STEP * o.temperature * min(1.0, o.softcap or 1.0)
        grad = np.zeros_like(rows.x)
        with np.errstate(all="ignore"):
            size = self._size(rows.x, a)
            for row in np.flatnonzero(rows.present):
                grad[row] = self._row(rows.x[row], a[row], step)
            scale, power = self.scale.of(rows)
            factor = np.ldexp(scale.high, power)
            error_bound = np.abs(factor) * size / (step / STEP)
            grad *= np.where(rows.present, factor, 0.0)[:, None]
        exact = DoubleDoubleOracle(o, self.scale)(rows)  # its losses are no differences
        error_bounds = np.where(rows.present, error_bound, 0.0)[:, None] + np.zeros_like(grad)
        unknown = ~np.isfinite(grad) | ~np.isfinite(error_bounds)
        grad, error_bounds = np.where(unknown, 0.0, grad), np.where(unknown, np.inf, error_bounds)
        nowhere = np.isnan(exact.losses.high) & rows.present  # there is no loss to differentiate
        grad[nowhere], error_bounds[nowhere] = np.nan, 0.0
        return exact._replace(grad=pair(grad), size=np.abs(grad), error_bound=error_bounds)

    def _row(self, x: Array, a: Array, step: float) -> Array:
        """∂L/∂x of one row."""
        grad, many = np.zeros_like(x), max(1, ENTRIES // len(x))
        for first in range(0, len(x), many):
            moved = np.arange(first, min(len(x), first + many))
            for k, weight in WEIGHTS:
                up, down = (self._loss(_moved(x, moved, s * k * step), a) for s in (1.0, -1.0))
                grad[moved] += weight * (up - down) / (60 * step)
            self.progress(len(moved))
        return grad

    def _z(self, x: Array) -> Array:
        z = x / self.options.temperature
        cap = self.options.softcap
        return z if cap is None else cap * np.tanh(z / cap)

    def _loss(self, x: Array, a: Array) -> Array:
        """Σ a·(lse − z) + λ·lse² of each row."""
        z = self._z(x)
        top = z.max(axis=1, keepdims=True)
        lse = top + np.log(np.exp(z - top).sum(axis=1, keepdims=True))
        terms = np.where(a == 0, 0.0, a * (lse - z))
        loss: Array = terms.sum(axis=1) + self._z_loss * lse[:, 0] ** 2
        return loss

    @property
    def _z_loss(self) -> float:
        return self.options.z_loss * float(self.scale.ratio.high)

    def _size(self, x: Array, a: Array) -> Array:
        """A bound of the differences' error, for the step STEP."""
        z = np.abs(self._z(x))
        largest = np.where(np.isfinite(z), z, 0.0).max(axis=1, initial=0.0)
        mass = np.abs(a).sum(axis=1) + self._z_loss * (largest + x.shape[1])
        cap = self.options.softcap or np.inf
        around = largest + np.log(x.shape[1]) + 1 + np.abs(x).max(axis=1) / min(1.0, cap)
        size: Array = mass * (ROUNDING * around + BEND)
        return size


def _moved(x: Array, places: Array, step: float) -> Array:
    """Copies of the row, one for each place, each with that logit moved."""
    rows = np.repeat(x[None], len(places), axis=0)
    rows[np.arange(len(places)), places] += step
    return rows
