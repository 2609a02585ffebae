"""The reference's softmax in two words, from the logits to the log-sum-exp, step by step.

z_c = x_c / T, or κ·tanh(x_c / (T·κ)) with a softcap
gap_c = max z − z_c,   e_c = exp(−gap_c),   p_c = e_c / Σ_j e_j,   −log p_c = gap_c + log Σ_j e_j
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_product, two_sum
from xentcli.backends.scalars import Scalars
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
HUGE = 2.0**1022  # the largest logits under a softcap: their differences are finite
LARGE = 2.0**12  # where tanh is 1 to any digit


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
        return plus(self.gap, self.log_total)

    def dz_dx(self, temperature: float) -> Array:
        """The derivative of z as float64."""
        inverse = np.full_like(self.gap.high, 1 / temperature)
        return inverse if self.slope is None else self.slope.high * 2.0**-HALF_LIFT * inverse

    def rest(self, index: Array) -> TwoWords:
        """1 − p of one class of each row, times 2^LIFT: its others' e over Σ e."""
        inverse = divide(one_word(1.0), self.total)
        usual = add(one_word(2.0**LIFT), -multiply(self.e.at(index), inverse))
        return choose(index == self.best, multiply(self.others, inverse), usual)


def softmax(x: Array, scalars: Scalars, left_out: Array | None = None) -> SoftmaxSteps:
    """Everything that depends on the logits alone; p is 0 where an entry is left out.

    Those have a logit of −∞, which a softcap alone would make finite.
    """
    best = np.argmax(x, axis=-1)[:, None]
    top = answerable(np.take_along_axis(x, best, axis=-1), scalars)
    gap, top_z, slope = below_top(x, top, scalars)
    if left_out is not None:
        gap = choose(left_out, one_word(np.inf), gap)
    e = exp_minus(gap, LIFT)
    others = total(without(e, best))
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


def answerable(top: Array, scalars: Scalars) -> Array:
    """The largest x; NaN where z is not finite, so that the row has no answer."""
    if not np.isinf(scalars.softcap):
        return top
    return np.where(np.isfinite(top / scalars.temperature), top, np.nan)


def below_top(x: Array, top: Array, scalars: Scalars) -> tuple[TwoWords, TwoWords, TwoWords | None]:
    """max z − z, max z, and dz/dx times T and 2^HALF_LIFT, None where dz/dx·T is 1."""
    if np.isinf(scalars.softcap):
        return _scaled(x, top, scalars.temperature)
    return _capped(x, top, scalars)


def lowered(lifted: TwoWords) -> Array:
    """Numbers that are 2^LIFT times too large, as float64."""
    return lifted.high * 2.0**-LIFT


def plus(a: TwoWords, b: TwoWords) -> TwoWords:
    """a + b, where a may be infinite."""
    infinite = np.isinf(a.high)
    return choose(infinite, TwoWords(a.high, np.zeros_like(a.high)), add(a, b))


def without(values: TwoWords, index: Array) -> TwoWords:
    """Rows in which one entry is 0."""
    kept = TwoWords(*(word.copy() for word in values))
    for word in kept:
        np.put_along_axis(word, index, 0.0, axis=-1)
    return kept


def _scaled(x: Array, top: Array, temperature: float) -> tuple[TwoWords, TwoWords, None]:
    """(top − x) / T and top / T. Where top − x overflows, both are halved, and T with them."""
    gap, half = _difference(top, x), np.ones_like(top)
    overflows = np.isinf(gap.high) & np.isfinite(x)
    if overflows.any():
        half[overflows.any(axis=-1)] = 0.5
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
