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

from xentcli.arrays.dtypes import BF16, NAMES, Array, narrow, widen
from xentcli.arrays.error_free import two_product, two_sum
from xentcli.backends import Scalars
from xentcli.backends.two_words import (
    TwoWords,
    add,
    choose,
    divide,
    exp_minus,
    log1p,
    multiply,
    one_word,
    tanh,
    total,
)

# Exponentials, probabilities and gradients are kept 2⁸⁰⁰ times as large until the end, so that
# those below 10⁻³⁰⁸ are there when a weight or an upstream gradient brings them back.
LIFT = 800
HALF_LIFT = 400  # of dz/dx, which is multiplied by a gradient that has its own
HUGE = 2.0**1022  # the largest logits; those of two rows differ by less than infinity
LARGE = 2.0**12  # where tanh is 1 to any digit
TOO_LARGE = 2.0**900  # for a product with an error


class SoftmaxSteps(NamedTuple):
    """The steps from the logits of some rows to their probabilities, in order.

    `e`, `others` and `p` are 2^LIFT times as large as their names say.
    """

    top: Array  # the largest x; NaN where the row has no answer
    best: Array  # its class
    gap: TwoWords  # max z − z
    e: TwoWords  # exp(−gap)
    others: TwoWords  # the sum of e over all classes but the best
    total: TwoWords  # Σ e
    log_total: TwoWords
    lse: Array
    slope: TwoWords | None  # dz/dx times T and 2^HALF_LIFT; None where dz/dx·T is 1

    @property
    def p(self) -> TwoWords:
        """e / Σ e."""
        return multiply(self.e, divide(one_word(1.0), self.total))

    @property
    def neg_log_p(self) -> TwoWords:
        """−log p = gap + log Σ e."""
        return _plus(self.gap, self.log_total)

    def rest(self, index: Array) -> TwoWords:
        """1 − p of one class of each row, times 2^LIFT: its others' e over Σ e."""
        inverse = divide(one_word(1.0), self.total)
        usual = add(one_word(2.0**LIFT), -multiply(self.e.at(index), inverse))
        return choose(index == self.best, multiply(self.others, inverse), usual)


def softmax(x: Array, scalars: Scalars) -> SoftmaxSteps:
    """Everything that depends on the logits alone."""
    best = np.argmax(x, axis=-1)[:, None]
    top = np.take_along_axis(x, best, axis=-1)
    if np.isinf(scalars.softcap):
        top = np.where(np.isfinite(top / scalars.temperature), top, np.nan)
        gap, top_z, slope = _scaled(x, top, scalars.temperature)
    else:
        gap, top_z, slope = _capped(x, top, scalars)
    e = exp_minus(gap, LIFT)
    others = total(_without(e, best))
    log_total = log1p(others.times(2.0**-LIFT))
    return SoftmaxSteps(
        top,
        best,
        gap,
        e,
        others,
        add(one_word(1.0), others.times(2.0**-LIFT)),
        log_total,
        add(top_z, log_total).high[:, 0],
        slope,
    )


def lowered(lifted: TwoWords) -> Array:
    """Numbers that are 2^LIFT times too large, as float64."""
    return lifted.high * 2.0**-LIFT


def _plus(a: TwoWords, b: TwoWords) -> TwoWords:
    """a + b, where a may be infinite."""
    infinite = np.isinf(a.high)
    return choose(infinite, TwoWords(a.high, np.zeros_like(a.high)), add(a, b))


def _without(values: TwoWords, index: Array) -> TwoWords:
    """Rows in which one entry is 0."""
    without = TwoWords(*(word.copy() for word in values))
    for word in without:
        np.put_along_axis(word, index, 0.0, axis=-1)
    return without


def _scaled(x: Array, top: Array, temperature: float) -> tuple[TwoWords, TwoWords, None]:
    """(top − x) / T and top / T. Rows of huge logits are halved, and T with them."""
    half = np.where(np.abs(x).max(axis=-1, keepdims=True) > HUGE, 0.5, 1.0)
    gap = _difference(top * half, x * half)
    return _over(gap, temperature, half), _over(one_word(top), temperature), None


def _difference(a: Array, b: Array) -> TwoWords:
    """a − b; the error of its rounding is 0 where it is not finite."""
    high, low = two_sum(a, -b)
    return TwoWords(high, np.where(np.isfinite(high), low, 0.0))


def _over(a: TwoWords, divisor: float, half: Array | float = 1.0) -> TwoWords:
    """a / (divisor·half), for numbers of any size."""
    mantissa, power = np.frexp(divisor)
    power = 1 - power - np.frexp(half)[1] + 1
    if power.any():
        a = TwoWords(*(np.ldexp(word, power) for word in a))
    if mantissa == 0.5:  # a power of two
        return a
    quotient = a.high / (2 * mantissa)
    product, excess = two_product(quotient, 2 * mantissa)
    rest = ((a.high - product) - excess + a.low) / (2 * mantissa)
    return TwoWords(quotient, np.where(np.isfinite(rest), rest, 0.0))


def _capped(x: Array, top: Array, scalars: Scalars) -> tuple[TwoWords, TwoWords, TwoWords]:
    """max z − z, max z and dz/dx·T for z = κ·tanh(angle), angle = x / (T·κ).

    tanh a − tanh b = tanh(a − b)·(1 − tanh a·tanh b), and 1 − |tanh|, which keeps its digits
    where tanh is nearly 1, is 2e / (1 + e) for e = exp(−2·|angle|).
    """
    x, top = np.clip(x, -HUGE, HUGE), np.clip(top, -HUGE, HUGE)
    away, angle, top_angle = (
        _clipped(_over(_over(a, scalars.temperature), scalars.softcap))
        for a in (_difference(top, x), one_word(np.abs(x)), one_word(np.abs(top)))
    )
    small, top_small = _one_minus_tanh(angle), _one_minus_tanh(top_angle)
    below, top_below = small.times(2.0**-HALF_LIFT), top_small.times(2.0**-HALF_LIFT)
    product = add(add(below, top_below), -multiply(below, top_below))  # 1 − |tanh a·tanh b|
    same = (x > 0) == (top > 0)
    opposite = add(one_word(2.0), -product)  # 1 + |tanh a·tanh b|
    cap = one_word(scalars.softcap)
    gap = multiply(multiply(tanh(away), choose(same, product, opposite)), cap)
    top_z = multiply(tanh(top_angle), cap)
    return gap, top_z.times(np.sign(top)), multiply(small, add(one_word(2.0), -below))


def _clipped(a: TwoWords) -> TwoWords:
    inside = a.high < LARGE
    return TwoWords(np.minimum(a.high, LARGE), np.where(inside, a.low, 0.0))


def _one_minus_tanh(angle: TwoWords) -> TwoWords:
    """1 − tanh(angle) = 2e / (1 + e), times 2^HALF_LIFT."""
    e = exp_minus(angle.times(2.0), HALF_LIFT)
    return divide(e.times(2.0), add(one_word(1.0), e.times(2.0**-HALF_LIFT)))


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
        cost = _plus(s.gap.at(only), s.log_total)  # the other terms are 0
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
    others = total(_without(one_word(a), most))
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


def slope(s: SoftmaxSteps, temperature: float) -> Array:
    """dz/dx, as float64."""
    inverse = np.full_like(s.gap.high, 1 / temperature)
    return inverse if s.slope is None else s.slope.high * 2.0**-HALF_LIFT * inverse


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
        x = _by_row(logits)
        if targets.ndim > 1:
            q, present = _by_row(targets), np.full(len(x), True)
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
        _put(grad, g)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        with np.errstate(all="ignore"):
            s = softmax(_by_row(logits), scalars)
            _put(out, 0.0 - s.neg_log_p.high if log else lowered(s.p))


def _by_row(box: Array) -> Array:
    """(outer, C, inner) as float64 (outer·inner, C)."""
    return widen(box.transpose(0, 2, 1).reshape(-1, box.shape[1]), NAMES["f64"])


def _put(box: Array | None, rows: Array | None) -> None:
    if box is not None and rows is not None:
        outer, classes, inner = box.shape
        rounded = narrow(rows, box.dtype)
        box[...] = rounded.reshape(outer, inner, classes).transpose(0, 2, 1)
        values = box.view("<u2") if box.dtype == BF16 else box
        np.copyto(values, 0, where=(values == 0x8000) if box.dtype == BF16 else (values == 0))
