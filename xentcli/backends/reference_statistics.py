"""The reference of `backends.fields`, in float64 NumPy.

The Brier score is written so that nothing cancels: Σ p² − 2·p_y + 1 loses all digits of a row that
is right and confident.
"""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import exact_sum
from xentcli.backends import Scalars
from xentcli.backends.fields import FIELDS, Field
from xentcli.backends.reference import SoftmaxSteps, by_row, softmax
from xentcli.backends.reference_divergence import divergence, scaled


def row_statistics(x: Array, targets: Array, scalars: Scalars) -> Array:
    """The fields of rows of logits (n, C) in float64, as an array (FIELDS, n).

    `targets` are class indices (n,), or probabilities (n, C), for which the fields about the
    target class are NaN. All fields of a row are NaN where a logit is NaN or +∞, or all are −∞.
    """
    with np.errstate(all="ignore"):
        s = softmax(x, scalars)
        # At p = 0 the logarithm may be −∞: such a class adds nothing to the entropy.
        entropy = exact_sum(np.where(s.p == 0, 0.0, s.p * s.neg_log_p))
        top = np.argmax(x, axis=-1)
        found = np.full((FIELDS, len(x)), np.nan)
        found[Field.CONFIDENCE] = np.take_along_axis(s.p, top[:, None], axis=-1)[:, 0]
        found[Field.ENTROPY], found[Field.LSE], found[Field.PREDICTION] = entropy, s.lse, top
        gap = np.where(s.p == 0, 0.0, s.gap)
        found[Field.MEAN_GAP] = mean = exact_sum(s.p * gap)
        spread = np.where(s.p == 0, 0.0, gap - mean[:, None])
        found[Field.GAP_VARIANCE] = exact_sum(s.p * spread * spread)
        if targets.ndim > 1:
            losses = np.where(targets == 0, 0.0, targets * s.neg_log_p)
            found[Field.NLL] = exact_sum(losses) + 0.0
            found[Field.BRIER] = exact_sum((s.p - targets) ** 2)
        else:
            _about_target(found, x, s, targets)
        found[:, np.isnan(s.top[:, 0])] = np.nan
        return found


def _about_target(found: Array, x: Array, s: SoftmaxSteps, targets: Array) -> None:
    """The fields that depend on the target class."""
    y = targets[:, None]
    x_y, rest = (np.take_along_axis(part, y, axis=-1) for part in (x, s.rest))
    squares = s.p * s.p
    np.put_along_axis(squares, y, rest * rest, axis=-1)
    found[Field.NLL] = np.take_along_axis(s.neg_log_p, y, axis=-1)[:, 0] + 0.0
    found[Field.P_TARGET] = np.take_along_axis(s.p, y, axis=-1)[:, 0]
    found[Field.TARGET_GAP] = np.take_along_axis(s.gap, y, axis=-1)[:, 0]
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
