"""The reference of `backends.fields`, in float64 NumPy.

    d_c = (max z − z_c), with its rounding error,   e_c = exp(−d_c),   s = Σ e_c,   p_c = e_c / s

The largest e is 1. The sum of the others is formed without it, so that a row that is right and
confident keeps its digits in log s, in 1 − p_y = (s − e_y) / s, and in the Brier score, of which
the usual form Σ p² − 2·p_y + 1 would lose them all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product, two_sum
from xentcli.arrays.sums import exact_sum
from xentcli.backends import Scalars
from xentcli.backends.fields import FIELDS, Field
from xentcli.backends.reference import by_row
from xentcli.backends.reference_divergence import divergence, scaled


class _Softmax(NamedTuple):
    """Rows of probabilities, and what they are made of."""

    best: Array  # (n, 1), the class of the largest logit
    top: Array  # (n,), the largest z; NaN where it is not finite
    gap: Array  # d
    error: Array  # of d
    p: Array
    others: Array  # (n,), Σ e but for one largest
    log_total: Array  # (n,), log s

    @property
    def neg_log_p(self) -> Array:
        """−log p of every class."""
        return np.asarray(self.gap + (self.log_total[:, None] + self.error))


def _softmax(x: Array, scalars: Scalars) -> _Softmax:
    capped = not np.isinf(scalars.softcap)
    z, divisor = (scaled(x, scalars), 1.0) if capped else (x, scalars.temperature)
    best = np.argmax(x, axis=-1)[:, None]
    top = np.take_along_axis(z, best, axis=-1)
    top = np.where(np.isfinite(top / divisor), top, np.nan)  # ±inf or NaN: the row is NaN
    gap, error = _quotient(*two_sum(top, -z), divisor)
    e = np.exp(-gap) * (1.0 - error)
    without = e.copy()
    np.put_along_axis(without, best, 0.0, axis=-1)
    others = exact_sum(without)
    p = e / (1.0 + others)[:, None]
    return _Softmax(best, top[:, 0] / divisor, gap, error, p, others, np.log1p(others))


def _quotient(high: Array, low: Array, divisor: float) -> tuple[Array, Array]:
    """(high + low) / divisor as the rounded quotient and its error, 0 where it is not finite."""
    low = np.where(np.isfinite(high), low, 0.0)
    if divisor == 1.0:
        return high, low
    quotient = high / divisor
    product, excess = two_product(quotient, np.array(divisor))
    error = ((high - product) - excess + low) / divisor
    return quotient, np.where(np.isfinite(error), error, 0.0)


def row_statistics(x: Array, targets: Array, scalars: Scalars) -> Array:
    """The fields of rows of logits (n, C) in float64, as an array (FIELDS, n).

    `targets` are class indices (n,), or probabilities (n, C), for which the fields about the
    target class are NaN. All fields of a row are NaN where a logit is NaN or +∞, or all are −∞.
    """
    with np.errstate(all="ignore"):
        s = _softmax(x, scalars)
        found = np.full((FIELDS, len(x)), np.nan)
        gap = np.where(s.p == 0, 0.0, s.gap)  # not 0·∞
        found[Field.CONFIDENCE] = 1.0 / (1.0 + s.others)
        found[Field.MEAN_GAP] = mean = exact_sum(s.p * gap)
        found[Field.GAP_VARIANCE] = exact_sum(s.p * (gap - mean[:, None]) ** 2)
        found[Field.ENTROPY] = s.log_total + mean
        found[Field.LSE], found[Field.PREDICTION] = s.top + s.log_total, s.best[:, 0]
        if targets.ndim > 1:
            losses = np.where(targets == 0, 0.0, targets * s.neg_log_p)
            found[Field.NLL] = exact_sum(losses) + 0.0
            found[Field.BRIER] = exact_sum((s.p - targets) ** 2)
        else:
            _about_target(found, x, s, targets)
        found[:, np.isnan(s.top)] = np.nan
        return found


def _about_target(found: Array, x: Array, s: _Softmax, targets: Array) -> None:
    """The fields that depend on the target class."""
    y = targets[:, None]
    x_y, p_y, gap, error = (
        np.take_along_axis(part, y, axis=-1) for part in (x, s.p, s.gap, s.error)
    )
    total = 1.0 + s.others
    rest = np.where(y == s.best, (s.others / total)[:, None], 1.0 - p_y)
    squares = s.p * s.p
    np.put_along_axis(squares, y, rest * rest, axis=-1)
    found[Field.NLL] = gap[:, 0] + (s.log_total + error[:, 0]) + 0.0
    found[Field.P_TARGET], found[Field.TARGET_GAP] = p_y[:, 0], gap[:, 0]
    found[Field.BRIER] = exact_sum(squares)
    found[Field.ABOVE] = np.count_nonzero(x > x_y, axis=-1)
    found[Field.TIES] = np.count_nonzero(x == x_y, axis=-1) - 1


class NumpyStatistics:
    """The reference as a backend of `report`."""

    name = "numpy"
    block = 1 << 16  # logits: the float64 temporaries of a block fit into the cache

    def statistics(self, logits: Array, targets: Array, scalars: Scalars, results: Array) -> None:
        """The fields of the rows of a box (outer, C, inner) into `results` (FIELDS, n).

        All fields of ignored rows, of which the target is −1, are NaN.
        """
        x = by_row(logits)
        if targets.ndim > 1:
            results[...] = row_statistics(x, by_row(targets), scalars)
            return
        present = targets >= 0
        results[...] = np.nan
        if present.all():
            results[...] = row_statistics(x, targets, scalars)
        else:
            results[:, present] = row_statistics(x[present], targets[present], scalars)

    def divergence(self, base: Array, model: Array, scalars: Scalars, results: Array) -> None:
        """KL(base‖model) of the rows of two boxes into `results` (n,)."""
        p, q = (scaled(by_row(box), scalars) for box in (base, model))
        results[...] = divergence(p, q)
