"""The reference of `StatisticsBackend.divergence`, in float64 NumPy.

    KL(base‖model) = Σ_c (p_c·x_c − p_c + q_c) = Σ_c p_c·(x_c + expm1(−x_c)),   x = ln p − ln q

with p the softmax of the base's logits b and q that of the model's z. Every term is 0 or more. A
class with p_c = 0 adds q_c, one with p_c > 0 and q_c = 0 makes the sum infinite. The difference of
the logarithms is x_c = ln Σ_j p_j·exp(δ_j) − δ_c with δ = z − b, in which nothing large cancels:
for logits that differ by 10⁻⁶ the usual formula Σ p·(ln p − ln q) loses 12 of 16 digits.
"""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_sum
from xentcli.arrays.sums import exact_sum
from xentcli.backends import Scalars

SMALL = 0.25  # |x| up to which x + expm1(−x) is a series: it is off by 8 rounding errors there
FAR = 30.0
TERMS = 13  # of the series, the last below 2⁻⁵³ of the first


def scaled(x: Array, how: Scalars) -> Array:
    """The logits after temperature and softcap."""
    if how.temperature == 1.0 and np.isinf(how.softcap):
        return x
    with np.errstate(all="ignore"):
        z = x / how.temperature
        return z if np.isinf(how.softcap) else how.softcap * np.tanh(z / how.softcap)


def divergence(base: Array, model: Array) -> Array:
    """KL(base‖model) of each row, in nats, from logits (n, C) in float64; NaN where one is NaN.

    >>> base = np.log([[0.5, 0.5], [0.5, 0.5]])
    >>> divergence(base, base + [[2e-8, 0.0], [0.0, 0.0]]).round(24).tolist()
    [5e-17, 0.0]
    """
    with np.errstate(all="ignore"):
        p, log_p = _softmax(base)
        q, log_q = _softmax(model)
        x = np.where(p > 0, _log_ratio(base, model, p, log_p - log_q), 0.0)
        # For x far below 0 exp(−x) may overflow, although p·exp(−x) = q does not.
        terms = np.where(x > -FAR, p * excess(x), p * (x - 1) + q)
        terms = np.where(p > 0, terms, q)
        total = exact_sum(terms) + 0.0
        total[((p > 0) & (model == -np.inf)).any(axis=-1)] = np.inf
        broken = np.isnan(p).any(axis=-1) | np.isnan(q).any(axis=-1)
        return np.where(broken, np.nan, total)


def _softmax(z: Array) -> tuple[Array, Array]:
    """Probabilities and their logarithms; NaN in a row without a finite maximum."""
    top = z.max(axis=-1, keepdims=True)
    shifted = z - np.where(np.isfinite(top), top, np.nan)
    e = np.exp(shifted)
    total = exact_sum(e)[:, None]
    return e / total, shifted - np.log(total)


def _log_ratio(base: Array, model: Array, p: Array, plain: Array) -> Array:
    """ln p − ln q of each class: exact to the rounding of δ where the rows are close to each
    other, `plain` where they are not."""
    high, low = two_sum(model, -base)  # with its error: the rows may differ by a constant
    peak = np.argmax(base, axis=-1)[:, None]
    high_peak, low_peak = (np.take_along_axis(part, peak, axis=-1) for part in (high, low))
    delta = (high - high_peak) + (low - low_peak)
    close = ((np.abs(delta) < 1) & (p > 0)).all(axis=-1)[:, None]
    change = np.log1p(exact_sum(p * np.expm1(np.where(close, delta, 0.0))))[:, None]
    return np.where(close, change - delta, plain)


def excess(x: Array) -> Array:
    """x + expm1(−x), which is x²/2 − x³/6 + … and never negative.

    >>> excess(np.array([2e-10, -2e-10, 1.0])).tolist()
    [1.999999999866667e-20, 2.0000000001333335e-20, 0.36787944117144233]
    """
    near = np.where(np.abs(x) < SMALL, x, 0.0)
    series = np.ones_like(near)
    for k in range(TERMS, 2, -1):
        series = 1.0 - near / k * series
    return np.where(np.abs(x) < SMALL, near * near * 0.5 * series, x + np.expm1(-x))
