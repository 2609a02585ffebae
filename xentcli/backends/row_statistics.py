"""What `report` asks of each row of logits, in float64 NumPy.

    nll        = −log p_y                       against probabilities q: −Σ q_c·log p_c
    confidence = max_c p_c = exp(z_max − lse)
    p_target   = p_y
    entropy    = −Σ p_c·log p_c
    brier      = Σ_{c≠y} p_c² + (1 − p_y)²      against probabilities q: Σ (p_c − q_c)²
    prediction = the lowest class among those with the largest logit
    above      = #{c: z_c > z_y}                the lowest rank of the target, counted from 0
    ties       = #{c ≠ y: z_c = z_y}            its highest rank is above + ties

The Brier score is written so that nothing cancels: Σ p² − 2·p_y + 1 loses all digits of a row that
is right and confident.

`row_statistics` is the reference of `Backend.statistics`: a compiled backend computes the same
from its own formulas.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import exact_sum
from xentcli.backends import Scalars
from xentcli.backends.reference import by_row, softmax


class Field(IntEnum):
    """The rows of the results: one float64 number for each row of logits."""

    NLL = 0
    CONFIDENCE = 1
    P_TARGET = 2
    ENTROPY = 3
    BRIER = 4
    PREDICTION = 5
    ABOVE = 6
    TIES = 7
    LSE = 8


FIELDS = len(Field)


def row_statistics(x: Array, targets: Array, scalars: Scalars) -> Array:
    """The fields of rows of logits (n, C) in float64, as an array (FIELDS, n).

    `targets` are class indices (n,), or probabilities (n, C), for which the fields about the
    target class are NaN. All fields of a row are NaN where a logit is NaN or +∞, or all are −∞.
    """
    with np.errstate(all="ignore"):
        s = softmax(x, scalars)
        # At p = 0 the logarithm may be −∞: such a class adds nothing to the entropy.
        entropy = exact_sum(np.where(s.p == 0, 0.0, s.p * s.neg_log_p))
        top = np.argmax(s.z, axis=-1)
        found = np.full((FIELDS, len(x)), np.nan)
        found[Field.CONFIDENCE] = np.take_along_axis(s.p, top[:, None], axis=-1)[:, 0]
        found[Field.ENTROPY], found[Field.LSE], found[Field.PREDICTION] = entropy, s.lse, top
        if targets.ndim > 1:
            losses = np.where(targets == 0, 0.0, targets * s.neg_log_p)
            found[Field.NLL] = exact_sum(losses) + 0.0
            found[Field.BRIER] = exact_sum((s.p - targets) ** 2)
        else:
            _about_target(found, s.z, (s.p, s.rest, s.neg_log_p), targets)
        found[:, np.isnan(s.top[:, 0])] = np.nan
        return found


def _about_target(
    found: Array, z: Array, softmax: tuple[Array, Array, Array], targets: Array
) -> None:
    """The fields that depend on the target class, which p, 1 − p and −log p give."""
    p, rest, neg_log_p = softmax
    y = targets[:, None]
    z_y = np.take_along_axis(z, y, axis=-1)
    squares = p * p
    rest_y = np.take_along_axis(rest, y, axis=-1)
    np.put_along_axis(squares, y, rest_y * rest_y, axis=-1)
    found[Field.NLL] = np.take_along_axis(neg_log_p, y, axis=-1)[:, 0] + 0.0
    found[Field.P_TARGET] = np.take_along_axis(p, y, axis=-1)[:, 0]
    found[Field.BRIER] = exact_sum(squares)
    found[Field.ABOVE] = np.count_nonzero(z > z_y, axis=-1)
    found[Field.TIES] = np.count_nonzero(z == z_y, axis=-1) - 1


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
