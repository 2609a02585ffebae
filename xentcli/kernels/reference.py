"""The reference: float64 NumPy, written from the definition, step by step.

    z_c = x_c / T, or κ·tanh(x_c / (T·κ)) with a softcap
    p_c = exp(z_c) / Σ_j exp(z_j)
    a_c = w_c·((1 − ε)·q_c + ε/C)                     q is onehot(y) for an index target
    L   = Σ_c a_c·(−log p_c) + λ·lse²
    ∂L/∂z_c = p_c·Σ_{j≠c} a_j − a_c·Σ_{j≠c} p_j + 2·λ·lse·p_c
    ∂L/∂x_c = ∂L/∂z_c · sech²(x_c / (T·κ)) / T

The gradient is written so because A·p_c − a_c, its usual form, subtracts two nearly equal
numbers in a row whose target is nearly certain. Here every "all the others" is summed from the
others themselves, and keeps its digits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.dtypes import Array
from xentcli.kernels import Scalars
from xentcli.sums import exact_sum, two_sum


class Softmax(NamedTuple):
    """One row's worth of each: p, 1 − p, −log p, log-sum-exp and dz/dx."""

    p: Array
    rest: Array
    surprise: Array
    lse: Array
    slope: Array


def softmax(logits: Array, scalars: Scalars) -> Softmax:
    """Everything that depends on the logits alone, in float64."""
    x = logits.astype(np.float64)
    if np.isinf(scalars.softcap):
        z, divisor, slope = x, scalars.temperature, np.ones_like(x)
    else:
        angle = x / scalars.temperature / scalars.softcap
        z, divisor, slope = scalars.softcap * np.tanh(angle), 1.0, np.cosh(angle) ** -2.0
    top = np.max(z, axis=-1, keepdims=True)
    top = np.where(np.isfinite(top / divisor), top, np.nan)  # ±inf or NaN: no answer
    gap, error = _quotient(*_difference(top, z), divisor)
    e = np.exp(-gap) * (1.0 - error)
    others = _others(e)
    total = exact_sum(e)[:, None]
    log_total = np.log1p(np.take_along_axis(others, np.argmax(z, axis=-1)[:, None], axis=-1))
    return Softmax(
        p=e / total,
        rest=others / total,
        surprise=gap + (log_total + error),
        lse=(top / divisor + log_total)[:, 0],
        slope=slope / scalars.temperature,
    )


def _difference(a: Array, b: Array) -> tuple[Array, Array]:
    """a − b as the rounded difference and its error; no error where it is not finite."""
    high, low = two_sum(a, -b)
    return high, np.where(np.isfinite(high), low, 0.0)


def _quotient(high: Array, low: Array, divisor: float) -> tuple[Array, Array]:
    """(high + low) / divisor as the rounded quotient and its error."""
    if divisor == 1.0:
        return high, low
    quotient = high / divisor
    product, excess = _product(quotient, np.array(divisor))
    error = ((high - product) - excess + low) / divisor
    return quotient, np.where(np.isfinite(error), error, 0.0)


def _product(a: Array, b: Array) -> tuple[Array, Array]:
    """a·b as the rounded product and its error (Dekker, with Veltkamp's splitting)."""
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    product = a * b
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(value: Array) -> tuple[Array, Array]:
    shifted = value * 134217729.0  # 2²⁷ + 1
    high = shifted - (shifted - value)
    return high, value - high


def _others(values: Array) -> Array:
    """For each entry the sum of its row's other entries, without cancellation.

    The row's sum minus the entry is accurate for every entry but the largest; for that one the
    others are added up.
    """
    rest = exact_sum(values)[:, None] - values
    largest = np.argmax(np.abs(values), axis=-1)[:, None]
    without = values.copy()
    np.put_along_axis(without, largest, 0.0, axis=-1)
    np.put_along_axis(rest, largest, exact_sum(without)[:, None], axis=-1)
    return rest


def _cross_entropy(
    s: Softmax, a: Array, scale: Array, z_loss: float, grad: Array | None
) -> tuple[Array, Array]:
    """Loss per row and, into `grad`, the scaled gradient, for target masses a."""
    loss = exact_sum(np.where(a == 0, 0.0, a * s.surprise))
    if z_loss:
        loss += z_loss * s.lse**2
    if grad is not None:
        g = s.p * _others(a) - a * s.rest
        if z_loss:
            g += 2 * z_loss * s.lse[:, None] * s.p
        grad[...] = g * s.slope * scale[:, None] + 0.0  # + 0.0: no −0.0
    return loss + 0.0, s.lse


class NumpyBackend:
    """The reference as a backend."""

    name = "numpy"
    block = 1 << 16  # logits: the float64 temporaries of a block stay in the cache

    def index_rows(
        self,
        logits: Array,
        targets: Array,
        weight: Array,
        scale: Array,
        scalars: Scalars,
        loss: Array,
        lse: Array,
        grad: Array,
    ) -> None:
        """Rows with one class index each."""
        present = targets >= 0
        onehot = np.zeros((np.count_nonzero(present), logits.shape[1]))
        onehot[np.arange(len(onehot)), targets[present]] = 1.0
        part = np.empty_like(onehot, dtype=grad.dtype) if grad.size else grad
        losses, lses = np.empty(len(onehot)), np.empty(len(onehot))
        self.prob_rows(logits[present], onehot, weight, scale[present], scalars, losses, lses, part)
        loss[...], lse[...] = 0.0, np.nan
        loss[present], lse[present] = losses, lses
        if grad.size:
            grad[...] = 0.0
            grad[present] = part

    def prob_rows(
        self,
        logits: Array,
        targets: Array,
        weight: Array,
        scale: Array,
        scalars: Scalars,
        loss: Array,
        lse: Array,
        grad: Array,
    ) -> None:
        """Rows with a probability for each class."""
        smoothing = scalars.label_smoothing
        with np.errstate(all="ignore"):
            a = weight * ((1 - smoothing) * targets + smoothing / logits.shape[1])
            loss[...], lse[...] = _cross_entropy(
                softmax(logits, scalars), a, scale, scalars.z_loss, grad if grad.size else None
            )

    def softmax_rows(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        with np.errstate(all="ignore"):
            s = softmax(logits, scalars)
            out[...] = 0.0 - s.surprise if log else s.p
