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

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, Array, narrow, widen
from xentcli.backends import Scalars
from xentcli.backends.softmax_steps import (
    HALF_LIFT,
    LIFT,
    SoftmaxSteps,
    lowered,
    plus,
    softmax,
    without,
)
from xentcli.backends.two_words import TwoWords, add, choose, divide, multiply, one_word, total

TOO_LARGE = 2.0**900  # for a product with an error


def one_hot(targets: Array, classes: int) -> Array:
    """A row for each class index, with a 1 there."""
    q = np.zeros((len(targets), classes))
    q[np.arange(len(q)), targets] = 1.0
    return q


def masses(q: Array, weight: Array, smoothing: float) -> Array:
    """a_c, the weight of each class's −log p in the loss: its mass."""
    a: Array = weight * ((1 - smoothing) * q + smoothing / q.shape[1])
    return a


def terms(s: SoftmaxSteps, a: Array) -> TwoWords:
    """a_c·(−log p_c); 0 for a class without mass, even at p = 0."""
    return _terms(a, s.neg_log_p)


def _terms(a: Array, cost: TwoWords) -> TwoWords:
    far = cost.high > TOO_LARGE
    product = choose(far, one_word(a * cost.high), multiply(one_word(a), cost))
    return choose(a == 0, one_word(0.0), product)


def loss(s: SoftmaxSteps, a: Array, z_loss: float) -> Array:
    """The loss of each row, for target masses a; NaN where the row has no answer."""
    only = np.argmax(a != 0, axis=-1)[:, None]
    if np.count_nonzero(a) == np.count_nonzero(np.take_along_axis(a, only, axis=-1)):
        cost = plus(s.gap.at(only), s.log_total)  # the other terms are 0
        each = _terms(np.take_along_axis(a, only, axis=-1), cost)
    else:
        each = terms(s, a)
    finite = np.isfinite(each.high)
    infinite = np.where(finite, 0.0, each.high).sum(axis=-1)  # of both signs: NaN
    result = total(choose(finite, each, one_word(0.0))).high[:, 0] + infinite
    if z_loss:
        result = result + z_term(s, z_loss)
    return np.where(np.isnan(s.top[:, 0]), np.nan, result + 0.0)


def z_term(s: SoftmaxSteps, z_loss: float) -> Array:
    """λ·lse² of each row."""
    term: Array = z_loss * s.lse**2
    return term


def difference(s: SoftmaxSteps, a: Array) -> TwoWords:
    """A·p − a, the gradient of Σ a_c·(−log p_c) with respect to z, times 2^LIFT.

    For the likeliest class and for the one with the largest mass this subtracts nearly equal
    numbers; there it is p_c·Σ_{j≠c} a_j − a_c·Σ_{j≠c} p_j.
    """
    most = np.argmax(np.abs(a), axis=-1)[:, None]
    others = total(without(one_word(a), most))
    mass = add(others, one_word(np.take_along_axis(a, most, axis=-1)))
    g = add(multiply(s.e, divide(mass, s.total)), one_word(a * -(2.0**LIFT)))
    for index in (s.best, most):
        own = one_word(np.take_along_axis(a, index, axis=-1))
        its_others = choose(index == most, others, add(mass, -own))
        plus = multiply(multiply(s.e.at(index), its_others), divide(one_word(1.0), s.total))
        better = add(plus, -multiply(own, s.rest(index)))
        for word, value in zip(g, better, strict=True):
            np.put_along_axis(word, index, value, axis=-1)
    return g


def z_pull(s: SoftmaxSteps, z_loss: float) -> Array:
    """The gradient of λ·lse² with respect to z, as float64."""
    return 2 * z_loss * s.lse[:, None] * lowered(s.p)


def gradient(s: SoftmaxSteps, a: Array, z_loss: float) -> tuple[TwoWords, Array]:
    """The gradient of each row's loss with respect to its logits, times T·2^(LIFT − power).

    The power of each row is 0 unless its z-loss is so large that it would leave the range.
    """
    pull = 2 * z_loss * s.lse[:, None]
    power = np.maximum(np.frexp(pull)[1], 0)
    unit = np.ldexp(1.0, -power)
    g = difference(s, a * unit)
    if z_loss:
        g = add(g, multiply(s.p, one_word(pull * unit)))
    return (g if s.slope is None else multiply(g.times(2.0**-HALF_LIFT), s.slope)), power


def scaled(gradient: tuple[TwoWords, Array], temperature: float, scale: Array) -> Array:
    """Each row of such a gradient times its own factor, rounded once; −0.0 becomes 0.0."""
    g, lowered_by = gradient
    (number, up), (divisor, down) = np.frexp(scale[:, None]), np.frexp(temperature)
    high, _ = multiply(g, divide(one_word(number), one_word(divisor)))
    infinite = ~np.isfinite(number)
    if infinite.any():
        high = np.where(infinite, g.high * number, high)
    power = np.clip(up - down + lowered_by - LIFT, -2040, 2040)
    half = power // 2  # of which the first makes nothing subnormal that is not 0 in the end
    product: Array = high * np.ldexp(1.0, half) * np.ldexp(1.0, power - half) + 0.0
    return product


class NumpyBackend:
    """The reference as a backend."""

    name = "numpy"
    block = 1 << 15  # logits: the float64 temporaries of a block fit into the cache
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
                rows = gradient(s, a, scalars.z_loss)
                g[present] = scaled(rows, scalars.temperature, row_scale[present])
        put_rows(grad, g)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        with np.errstate(all="ignore"):
            s = softmax(by_row(logits), scalars)
            put_rows(out, 0.0 - s.neg_log_p.high if log else lowered(s.p))


def by_row(box: Array) -> Array:
    """(outer, C, inner) as float64 (outer·inner, C)."""
    outer, classes, inner = box.shape
    return widen(box.transpose(0, 2, 1).reshape(outer * inner, classes), NAMES["f64"])


def put_rows(box: Array | None, rows: Array | None) -> None:
    """Round float64 rows once into a box of any float dtype; −0.0 becomes 0.0."""
    if box is not None and rows is not None:
        outer, classes, inner = box.shape
        rounded = narrow(rows, box.dtype)
        box[...] = rounded.reshape(outer, inner, classes).transpose(0, 2, 1)
        clear_negative_zero(box)


def clear_negative_zero(array: Array) -> None:
    """Make −0.0 in an array of any float dtype 0.0."""
    values = array.view("<u2") if array.dtype == BF16 else array
    np.copyto(values, 0, where=(values == 0x8000) if array.dtype == BF16 else (values == 0))
