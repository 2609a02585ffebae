"""The exact gradient and loss of some rows, to twice the digits of float64.

It carries two words for each number, keeps powers of two apart, and follows the definition:

    z_c = x_c / T, or κ·tanh(x_c / (T·κ));  p = softmax(z);  a_c = w_c·((1 − ε)·q_c + ε/C)
    ∂L/∂z_c = p_c·Σ_{j≠c} a_j − a_c·Σ_{j≠c} p_j + 2·λ·lse·p_c

Every "all the others" is a sum of the others. What is left to subtract are the three terms; the
sum of their sizes goes with each exact number, because no arithmetic can do better than its
rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.error_free import two_sum
from xentcli.check.oracles.dd_arithmetic import (
    Pair,
    add,
    choose,
    divide,
    exp,
    expm1,
    log1p,
    multiply,
    normal,
    pair,
    quotient,
    scaled,
    subtract,
    total,
)
from xentcli.check.oracles.rows import FloatRows, OracleResult, Scale, scatter
from xentcli.options import LossOptions
from xentcli.records import dataclass

ERROR_BOUND = 2.0**-95  # of the terms: some hundred roundings to 106 bits
SMALL, LARGE = 2.0**-800, 2.0**900
HUGE = 2.0**1000
SATURATED = 4000.0  # where tanh is 1 to any precision


class ShiftedLogits(NamedTuple):
    """z − max z, max z, and dz/dx as a number and a power of two; which entries are −∞."""

    below: Pair
    top: Pair
    slope: Pair
    power: Array
    masked: Array


class PairSoftmax(NamedTuple):
    """p and 1 − p as numbers and powers of two, −log p and log-sum-exp as they are."""

    p: Pair
    p_power: Array
    rest: Pair
    rest_power: Array
    neg_log_p: Pair
    lse: Pair
    others: Pair  # the sum of all terms but the largest, one per row, and its power of two
    second: Array


@dataclass(frozen=True)
class DoubleDoubleOracle:
    """The double-double oracle of a problem."""

    options: LossOptions
    scale: Scale
    name = "double-double"

    def __call__(self, rows: FloatRows) -> OracleResult:
        """Gradient and losses; NaN in rows that have no answer, zero in those that are ignored."""
        with np.errstate(all="ignore"):
            usable = rows.present & np.isfinite(self._top(rows.x))
            inner = self._usable(rows.some(usable))
        return scatter(inner, rows, usable)

    def _top(self, x: Array) -> Array:
        """The largest z of each row; not finite where the row has no answer."""
        top = x.max(axis=1, initial=-np.inf)
        if self.options.softcap is None:
            return np.asarray(top / self.options.temperature)
        return np.where(np.isnan(top), top, 0.0)

    def _usable(self, rows: FloatRows) -> OracleResult:
        logits = shifted(rows.x, self.options.temperature, self.options.softcap)
        s = pair_softmax(logits)
        a, a_power = masses(rows, self.options)
        z_loss = self._z_loss(rows.weight)
        grad, size, power = _gradient(s, a, z_loss)
        row, row_power = self.scale.of(rows)
        factor = multiply(logits.slope, row.at(..., None))
        power = power + logits.power + row_power[:, None] + a_power
        grad = scaled(multiply(grad, factor), power)
        size = scaled(pair(size * np.abs(factor.high)), power).high
        losses, loss_power = _losses(s, a, z_loss)
        v, v_power = normal(pair(rows.sample_weight))
        infinite = ~np.isfinite(losses.high)
        weighted = scaled(multiply(losses, v), v_power + a_power + loss_power)
        losses = choose(infinite, pair(losses.high * rows.sample_weight), weighted)
        uncertainty = scaled(s.rest, s.rest_power).high.min(axis=1, initial=1.0)
        return OracleResult(grad, size, size * ERROR_BOUND, losses, uncertainty)

    def _z_loss(self, weight: Array) -> Pair | None:
        """λ in the units that the masses are in."""
        if not self.options.z_loss:
            return None
        return scaled(multiply(pair(self.options.z_loss), self.scale.ratio), -_unit(weight))


@dataclass(frozen=True)
class _Capped:
    """κ·tanh(angle), written with e = exp(−2·|angle|) so that nothing cancels."""

    cap: float
    angle: Pair
    gap: Pair  # angle − its row's largest
    largest: Pair
    e: Pair
    power: Array

    @classmethod
    def of(cls, x: Array, top: Array, temperature: float, cap: float) -> _Capped:
        x, top = np.clip(x, -HUGE, HUGE), np.clip(top, -HUGE, HUGE)  # tanh(∞) is 1
        high, low = two_sum(x, -top)
        gap = _within(quotient(quotient(Pair(high, low), temperature), cap), 2 * SATURATED)
        angle = _within(quotient(quotient(pair(x), temperature), cap), SATURATED)
        largest = _within(quotient(quotient(pair(top), temperature), cap), SATURATED)
        e, power = exp(_magnitude(angle, -2.0))
        return cls(cap, angle, gap, largest, e, power)

    def slope(self) -> tuple[Pair, Array]:
        """sech² = 4e / (1 + e)²."""
        below = add(pair(1.0), scaled(self.e, self.power))
        return divide(self.e, multiply(below, below)), self.power + 2

    def top(self, where: Array) -> Pair:
        """κ·tanh of each row's largest angle."""
        minus = expm1(_magnitude(self.largest, -2.0))
        value = divide(-minus, add(pair(2.0), minus))
        return multiply(_signed(value, self.largest), pair(self.cap))

    def below(self) -> Pair:
        """κ·(tanh a − tanh b) = 2κ·expm1(−2|a − b|)·E / ((1 + e_a)(1 + e_b)).

        E is the larger of e_a and e_b where a and b have the same sign, else 1.
        """
        e_a = scaled(self.e, self.power)
        e_b = scaled(*exp(_magnitude(self.largest, -2.0)))
        e_b = Pair(*(np.broadcast_to(part, e_a.high.shape) for part in e_b))
        larger = choose(e_a.high > e_b.high, e_a, e_b)
        same = self.angle.high * np.sign(self.largest.high) > 0
        shared = choose(same, larger, pair(1.0))
        below = multiply(add(pair(1.0), e_a), add(pair(1.0), e_b))
        value = divide(multiply(expm1(_magnitude(self.gap, -2.0)), shared), below)
        return multiply(value, pair(2.0 * self.cap))


def shifted(x: Array, temperature: float, cap: float | None) -> ShiftedLogits:
    """z of rows that have a largest one."""
    where = np.argmax(x, axis=1)[:, None]
    top = np.take_along_axis(x, where, axis=1)
    if cap is None:
        high, low = two_sum(x, -top)
        masked = ~np.isfinite(high)
        gap = Pair(np.where(masked, 0.0, high), np.where(masked, 0.0, low))
        slope, power = normal(quotient(pair(np.ones_like(x)), temperature))
        return ShiftedLogits(
            quotient(gap, temperature), quotient(pair(top), temperature), slope, power, masked
        )
    capped = _Capped.of(x, top, temperature, cap)
    slope, power = capped.slope()
    slope = quotient(slope, temperature)
    return ShiftedLogits(capped.below(), capped.top(where), slope, power, np.full(x.shape, False))


def _within(a: Pair, limit: float) -> Pair:
    """Clipped; there the function is flat."""
    high = np.clip(a.high, -limit, limit)
    return Pair(high, np.where(high == a.high, a.low, 0.0))


def _magnitude(a: Pair, times: float) -> Pair:
    """|a|·times, a power of two."""
    sign = np.where(a.high < 0, -times, times)
    return Pair(a.high * sign, a.low * sign)


def _signed(a: Pair, like: Pair) -> Pair:
    return choose(like.high < 0, -a, a)


def pair_softmax(logits: ShiftedLogits) -> PairSoftmax:
    """The largest term is 1 exactly; the others are summed in the scale of the second largest."""
    e, power = exp(logits.below)
    e = choose(logits.masked, pair(0.0), e)
    power = np.where(e.high == 0, -(1 << 20), power).astype(np.int32)
    order = np.argmax(np.where(logits.masked, -np.inf, logits.below.high), axis=1)[:, None]
    is_top = np.arange(e.high.shape[1]) == order
    second = np.where(is_top, -(1 << 20), power).max(axis=1, initial=-(1 << 20))[:, None]
    others = total(choose(is_top, pair(0.0), scaled(e, power - second))).at(..., None)
    s = add(pair(1.0), scaled(others, second))
    p = divide(e, s)
    rest = subtract(pair(1.0), scaled(p, power))
    log_s = log1p(scaled(others, second))
    neg_log_p = subtract(log_s, logits.below)
    return PairSoftmax(
        p=p,
        p_power=power,
        rest=choose(is_top, divide(others, s), rest),
        rest_power=np.where(is_top, second, 0).astype(np.int32),
        neg_log_p=choose(logits.masked, pair(np.inf), neg_log_p),
        lse=add(logits.top, log_s).at(..., 0),
        others=others.at(..., 0),
        second=second[:, 0],
    )


def _unit(weight: Array) -> Array:
    """The power of two that the largest weight is about."""
    return np.asarray(np.frexp(np.abs(weight).max(initial=0.0))[1])


def masses(rows: FloatRows, options: LossOptions) -> tuple[Pair, Array]:
    """a_c, and the power of two that all of them are to be multiplied by."""
    classes, power = rows.x.shape[1], _unit(rows.weight)
    kept = Pair(*two_sum(np.array(1.0), np.array(-options.label_smoothing)))
    even = divide(pair(options.label_smoothing), pair(float(classes)))
    q = add(multiply(pair(rows.q), kept), even)
    return multiply(q, pair(np.ldexp(rows.weight, -power))), power


def _others(a: Pair) -> Pair:
    """For each entry the sum of its row's others; those of the largest are added up."""
    largest = np.argmax(np.abs(a.high), axis=1)[:, None]
    is_largest = np.arange(a.high.shape[1]) == largest
    without = total(choose(is_largest, pair(0.0), a)).at(..., None)
    return choose(is_largest, without, subtract(total(a).at(..., None), a))


def _gradient(s: PairSoftmax, a: Pair, z_loss: Pair | None) -> tuple[Pair, Array, Array]:
    """∂L/∂z and the size of its terms, both to be multiplied by 2^power."""
    plus = multiply(s.p, _others(a))
    plus_size = np.abs(plus.high)
    if (a.high < 0).any():  # the sum of masses of both signs is smaller than its terms
        plus_size = multiply(s.p, _others(pair(np.abs(a.high)))).high
    if z_loss is not None:
        lse = multiply(multiply(s.lse, z_loss), pair(2.0))
        extra = multiply(s.p, lse.at(..., None))
        plus_size = plus_size + np.abs(extra.high)
        plus = add(plus, extra)
    minus = multiply(a, s.rest)
    low = -(1 << 20)
    power = np.maximum(
        np.where(plus_size != 0, s.p_power, low), np.where(minus.high != 0, s.rest_power, low)
    )
    power = np.where(power == low, 0, power).astype(np.int32)
    up, down = s.p_power - power, s.rest_power - power
    size = scaled(pair(plus_size), up).high + np.abs(scaled(minus, down).high)
    return subtract(scaled(plus, up), scaled(minus, down)), size, power


def _losses(s: PairSoftmax, a: Pair, z_loss: Pair | None) -> tuple[Pair, Array]:
    """The loss of each row as a number and a power of two."""
    size = np.where(np.isfinite(s.neg_log_p.high), np.abs(s.neg_log_p.high), 0.0).max(axis=1)
    down = np.where(size > LARGE, 100, 0)
    terms = multiply(a, scaled(s.neg_log_p, -down[:, None]))
    losses = total(choose(a.high == 0, pair(0.0), terms))
    endless = np.isinf(s.neg_log_p.high) & (a.high != 0)
    infinite = np.where(endless, a.high * np.inf, 0.0).sum(axis=1)  # NaN where signs differ
    if z_loss is not None:
        squared = scaled(multiply(multiply(s.lse, s.lse), z_loss), -down)
        losses = add(losses, squared)
        infinite += np.where(np.abs(s.lse.high) > 2.0**512, np.inf, 0.0)
    losses = choose(infinite != 0, pair(infinite), losses)
    # So small a loss is log(1 + others) of a certain target, which is the others themselves.
    small = (losses.high > 0) & (losses.high < SMALL) & (z_loss is None) & (down == 0)
    tiny = multiply(total(a), s.others)
    return choose(small, tiny, losses), np.where(small, s.second, down)
