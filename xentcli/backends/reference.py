"""The reference: float64 NumPy, written from the definition, step by step.

    z_c = x_c / T, or κ·tanh(x_c / (T·κ)) with a softcap
    p_c = exp(z_c) / Σ_j exp(z_j)
    a_c = w_c·((1 − ε)·q_c + ε/C)                     q is onehot(y) for an index target
    L   = Σ_c a_c·(−log p_c) + λ·lse²
    ∂L/∂z_c = p_c·Σ_{j≠c} a_j − a_c·Σ_{j≠c} p_j + 2·λ·lse·p_c
    ∂L/∂x_c = ∂L/∂z_c · sech²(x_c / (T·κ)) / T

The usual form of the gradient, A·p_c − a_c, subtracts two nearly equal numbers where the softmax is
nearly one-hot. Here every sum over the other classes is summed from those classes themselves, and
keeps its digits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow, widen
from xentcli.arrays.error_free import two_product, two_sum
from xentcli.arrays.sums import exact_sum
from xentcli.backends import Scalars


class SoftmaxSteps(NamedTuple):
    """The steps from the logits of some rows to their probabilities, in order.

    `z` are the logits, after the softcap if there is one, still to be divided by `divisor`.
    """

    z: Array
    divisor: float
    top: Array  # the largest z; NaN where it is not finite
    gap: Array  # (top − z) / divisor
    e: Array  # exp(−gap)
    total: Array  # Σ e
    p: Array
    rest: Array  # 1 − p
    neg_log_p: Array  # −log p
    lse: Array
    slope: Array  # dz/dx


def softmax(x: Array, scalars: Scalars) -> SoftmaxSteps:
    """Everything that depends on the logits alone, in float64."""
    z, divisor, slope = _scaled(x, scalars)
    top = np.max(z, axis=-1, keepdims=True)
    top = np.where(np.isfinite(top / divisor), top, np.nan)  # ±inf or NaN: the row is NaN
    gap, error = _quotient(*_difference(top, z), divisor)
    e = np.exp(-gap) * (1.0 - error)
    others = _others(e)
    total = exact_sum(e)[:, None]
    log_total = np.log1p(np.take_along_axis(others, np.argmax(z, axis=-1)[:, None], axis=-1))
    return SoftmaxSteps(
        z,
        divisor,
        top,
        gap,
        e,
        total,
        p=e / total,
        rest=others / total,
        neg_log_p=gap + (log_total + error),
        lse=(top / divisor + log_total)[:, 0],
        slope=slope / scalars.temperature,
    )


def _scaled(x: Array, scalars: Scalars) -> tuple[Array, float, Array]:
    """z, the divisor that remains for z, and dz/dx times T."""
    if np.isinf(scalars.softcap):
        return x, scalars.temperature, np.ones_like(x)
    angle = x / scalars.temperature / scalars.softcap
    return scalars.softcap * np.tanh(angle), 1.0, np.cosh(angle) ** -2.0


def _difference(a: Array, b: Array) -> tuple[Array, Array]:
    """a − b as the rounded difference and its error; the error is 0 where it is not finite."""
    high, low = two_sum(a, -b)
    return high, np.where(np.isfinite(high), low, 0.0)


def _quotient(high: Array, low: Array, divisor: float) -> tuple[Array, Array]:
    """(high + low) / divisor as the rounded quotient and its error."""
    if divisor == 1.0:
        return high, low
    quotient = high / divisor
    product, excess = two_product(quotient, np.array(divisor))
    error = ((high - product) - excess + low) / divisor
    return quotient, np.where(np.isfinite(error), error, 0.0)


def _others(values: Array) -> Array:
    """For each entry the sum of its row's other entries, without cancellation.

    The row's sum minus the entry is accurate for every entry but the largest; for that one the
    other entries are summed.
    """
    rest = exact_sum(values)[:, None] - values
    largest = np.argmax(np.abs(values), axis=-1)[:, None]
    without = values.copy()
    np.put_along_axis(without, largest, 0.0, axis=-1)
    np.put_along_axis(rest, largest, exact_sum(without)[:, None], axis=-1)
    return rest


def one_hot(targets: Array, classes: int) -> Array:
    """A row for each class index, with a 1 there."""
    q = np.zeros((len(targets), classes))
    q[np.arange(len(q)), targets] = 1.0
    return q


def masses(q: Array, weight: Array, smoothing: float) -> Array:
    """a_c, the weight of each class's −log p in the loss: its mass."""
    a: Array = weight * ((1 - smoothing) * q + smoothing / q.shape[1])
    return a


def terms(s: SoftmaxSteps, a: Array) -> Array:
    """a_c·(−log p_c); 0 for a class without mass, even at p = 0."""
    return np.where(a == 0, 0.0, a * s.neg_log_p)


def loss(s: SoftmaxSteps, a: Array, z_loss: float) -> Array:
    """The loss of each row, for target masses a."""
    total = exact_sum(terms(s, a))
    if z_loss:
        total += z_term(s, z_loss)
    return total + 0.0


def z_term(s: SoftmaxSteps, z_loss: float) -> Array:
    """λ·lse² of each row."""
    term: Array = z_loss * s.lse**2
    return term


def difference(s: SoftmaxSteps, a: Array) -> Array:
    """A·p − a, the gradient of Σ a_c·(−log p_c) with respect to z."""
    g: Array = s.p * _others(a) - a * s.rest
    return g


def z_pull(s: SoftmaxSteps, z_loss: float) -> Array:
    """The gradient of λ·lse² with respect to z."""
    g: Array = 2 * z_loss * s.lse[:, None] * s.p
    return g


def gradient(s: SoftmaxSteps, a: Array, z_loss: float) -> Array:
    """The gradient of each row's loss with respect to its logits."""
    g = difference(s, a)
    if z_loss:
        g += z_pull(s, z_loss)
    return np.multiply(g, s.slope, out=g)


def scaled(g: Array, scale: Array) -> Array:
    """Each row times its own factor; −0.0 becomes 0.0."""
    product: Array = g * scale[:, None] + 0.0
    return product


class NumpyBackend:
    """The reference as a backend."""

    name = "numpy"
    block = 1 << 16  # logits: the float64 temporaries of a block fit into the cache
    slabs = 1

    def rows(
        self,
        logits: Array,
        targets: Array,
        weight: Array,
        scale: Array,
        scalars: Scalars,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Losses, log-sum-exps and gradients."""
        x = by_row(logits)
        if targets.ndim > 1:
            q, present = by_row(targets), np.full(len(x), True)
        else:
            present = targets >= 0
            q = one_hot(targets[present], x.shape[1])
        row_scale = np.broadcast_to(scale, len(x))
        g = None if grad is None else np.zeros_like(x)
        results[0], results[1] = 0.0, np.nan
        with np.errstate(all="ignore"):
            a = masses(q, weight, scalars.label_smoothing)
            s = softmax(x[present], scalars)
            results[0, present], results[1, present] = loss(s, a, scalars.z_loss), s.lse
            if g is not None:
                g[present] = scaled(gradient(s, a, scalars.z_loss), row_scale[present])
        _put(grad, g)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        with np.errstate(all="ignore"):
            s = softmax(by_row(logits), scalars)
            _put(out, 0.0 - s.neg_log_p if log else s.p)


def by_row(box: Array) -> Array:
    """(outer, C, inner) as float64 (outer·inner, C)."""
    return widen(box.transpose(0, 2, 1).reshape(-1, box.shape[1]), NAMES["f64"])


def _put(box: Array | None, rows: Array | None) -> None:
    if box is not None and rows is not None:
        outer, classes, inner = box.shape
        rounded = narrow(rows + 0.0, box.dtype)  # + 0.0: no −0.0
        box[...] = rounded.reshape(outer, inner, classes).transpose(0, 2, 1)
