"""The quantities of each row that `report` asks a backend for.

A backend of `report` has a function over a box of logits, an array (outer, C, inner) whose
n = outer·inner rows are numbered in C order, as in the functions of `backends`:

    statistics(logits, targets, scalars, results)

Of the scalars only temperature and softcap matter. `results`, float64 (FIELDS, n), gets the fields,
which are in terms of z, the logits after temperature and softcap:

    nll          = −log p_y                     against probabilities q: −Σ q_c·log p_c
    confidence   = max_c p_c = exp(z_max − lse)
    p_target     = p_y
    entropy      = −Σ p_c·log p_c
    brier        = Σ_{c≠y} p_c² + (1 − p_y)²    against probabilities q: Σ (p_c − q_c)²
    prediction   = the lowest class among those with the largest logit
    above        = #{c: z_c > z_y}              the lowest rank of the target, counted from 0
    ties         = #{c ≠ y: z_c = z_y}          its highest rank is above + ties
    lse          = log Σ exp(z_c)
    target_gap   = z_max − z_y
    mean_gap     = Σ p_c·(z_max − z_c)
    gap_variance = Σ p_c·(z_c − Σ p·z)²

Prediction, above and ties compare the logits as they are: temperature and softcap keep their order,
and rounding makes no ties of it. All fields of a row are NaN where it is ignored, where a logit is
NaN or +∞, or where all are −∞; those about the target class are NaN for probability targets. The
bits of a row depend on that row alone, and not on its memory layout.
"""

from __future__ import annotations

from enum import IntEnum


class Field(IntEnum):
    """The rows of the results."""

    NLL = 0
    CONFIDENCE = 1
    P_TARGET = 2
    ENTROPY = 3
    BRIER = 4
    PREDICTION = 5
    ABOVE = 6
    TIES = 7
    LSE = 8
    TARGET_GAP = 9
    MEAN_GAP = 10
    GAP_VARIANCE = 11


FIELDS = len(Field)
