"""The formulas of a row, for one number at a time, in float64.

    z_c    = x_c / T, or κ·tanh(x_c / T / κ) with a softcap
    e_c    = exp(z_c − max z),  s = Σ e_c,  others = s − 1, where the 1 is a largest one's own
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C)
    loss   = A·log1p(others) + Σ a_c·(max z − z_c) + λ·lse²,   A = Σ a_c
    grad_c = B·e_c/s − a_c,   B = A + 2·λ·lse

`others` and the other classes' masses are summed without the largest logit, so that nothing
cancels where the softmax is nearly one-hot. a_c is called the mass of a class. Products and sums
are fused with `fma` here and not in `backends.cpu.formulas`, so that the last bits differ.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import cuda

from xentcli.backends import elementary
from xentcli.backends.cuda.primitives import (
    fma,
    fraction_and_power,
    polynomial,
    times,
    times_power,
)
from xentcli.backends.elementary import LN2_HIGH, LN2_LOW, MAX_GAP, PER_LN2, ROUND

device = cuda.jit(device=True)

add = device(elementary.add)
difference = device(elementary.difference)
exp_series = polynomial(elementary.EXP)
log1p_series = polynomial(elementary.LOG1P)


class PartSums(NamedTuple):
    """Sums over a part of a row's classes, to be combined with those of the other parts.

    `peak` is their largest z; the exponentials are relative to it, or to 0 where it is −inf.
    """

    peak: Any
    ones: Any  # how many classes have the largest z
    others: Any  # Σ e of the other classes
    target_z: Any  # z of an index target, 0 if it is in another part
    peak_mass: Any  # Σ a of the classes with the largest z
    other_mass: Any  # Σ a of the other classes
    gap_sum: Any  # Σ a·(peak − z)
    argmax: Any  # the first class with the largest z


class RowResult(NamedTuple):
    """The loss of a row, and the sums over all classes that the gradient of each class needs."""

    others: Any
    rest: Any  # B − a of the largest z
    b: Any  # B
    loss: Any
    lse: Any


@device
def min_of(a, b):
    """The smaller of two numbers. (`min` does not compile in every version of Numba.)"""
    if b < a:
        return b
    return a


@device
def exp_reference(peak):
    """What is subtracted before exponentials; 0 if the largest z is −inf, for exp(−inf) = 0."""
    if peak == -math.inf:
        return 0.0
    return peak


@device
def scaled_logit(x, params):
    """z of a logit, still to be divided by `divisor`: a softcap includes the temperature."""
    if params.softcap < math.inf:
        return math.tanh(x / params.temperature / params.softcap) * params.softcap
    return x


@device
def divisor(params):
    """The temperature, or 1 with a softcap."""
    if params.softcap < math.inf:
        return 1.0
    return params.temperature


@device
def slope(x, params):
    """dz/dx, times the temperature: 1 − tanh² without cancellation."""
    if params.softcap < math.inf:
        e = math.exp(-2.0 * abs(x / params.temperature / params.softcap))
        return e * 4.0 / ((1.0 + e) * (1.0 + e))
    return 1.0


@device
def scaled_gap(peak, z, denominator):
    """(peak − z) / denominator as a rounded number and its error; the error of inf is 0."""
    high, low = difference(peak, z)
    if denominator != 1.0:
        quotient = high / denominator
        low = (fma(quotient, -denominator, high) + low) / denominator
        high = quotient
    if not abs(high) < math.inf:
        low = 0.0
    return high, low


@device
def exponential(peak, z, params):
    """exp(z − max z), within 1 ULP."""
    e, _ = exponential_with_error(peak, z, params)
    return e


@device
def exponential_with_error(peak, z, params):
    """exp(z − max z), and its last rounding error.

    −gap − error = n·ln 2 + r, |r| ≤ ln 2 / 2, with the rounding error of r, and a minimax
    polynomial of (eʳ − 1 − r) / r². The library's exp takes no error of its argument.
    """
    gap, error = scaled_gap(peak, z, divisor(params))
    if gap != gap:
        return gap, 0.0
    if not gap < MAX_GAP:
        return 0.0, 0.0
    biased = fma(gap, -PER_LN2, ROUND + 100.0)
    n = biased - (ROUND + 100.0)
    high = fma(n, -LN2_HIGH, -gap)
    low = fma(n, LN2_LOW, error)
    r = high - low
    t = exp_series(r)
    s = r + fma(r * r, t, (high - r) - low)
    e = 1.0 + s
    lost = times(s - (e - 1.0), times_power(1.0, biased))
    return times(times_power(e, biased), 2.0**-100), times(lost, 2.0**-100)


@device
def log1p(x):
    """log(1 + x) for x ≥ 0, within 1 ULP; the library's has a little more.

    1 + x = 2ᵏ·(1 + f), √½ < 1 + f < √2, and log(1 + f) = f − f²/2 + s·(f²/2 + R(s²)) with
    s = f / (2 + f); the rounding error of 1 + x enters to first order. The polynomial R is that
    of FreeBSD's e_log.c.
    """
    if not x < math.inf:
        return x
    u, error = add(1.0, 0.0, x)
    fraction, k = fraction_and_power(u)
    if fraction < 0.7071067811865476:
        fraction, k = fraction * 2.0, k - 1.0
    f = fraction - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = log1p_series(z)
    half = f * f * 0.5
    rest = fma(s, fma(r, z, half), fma(k, LN2_LOW, error / u))
    return fma(k, LN2_HIGH, f - (half - rest))


@device
def exp_float32(x, reference, constants):
    """exp(x − reference)·2⁴⁸ of float32 numbers not more than 700 below, within 2⁻²⁸.

    Range reduction, and a minimax polynomial of eʳ for |r| ≤ ln 2 / 2 with the value 1 at 0.
    """
    gap = x - reference
    biased = fma(gap, constants.per_ln2, constants.round)
    r = fma(biased - constants.round, -constants.ln2, gap)
    e = fma(r, constants.c6, constants.c5)
    e = fma(e, r, constants.c4)
    e = fma(e, r, constants.c3)
    e = fma(e, r, constants.c2)
    e = fma(e, r, constants.c1)
    return times_power(fma(e, r, 1.0), biased)


@device
def mass(weight, q, params):
    """a of a class, without the one-hot part of an index target."""
    return times(weight, fma(q, 1.0 - params.smoothing, params.smoothing / params.classes))


@device
def finish_row(sums, hot, of_max, params):
    """Loss, log-sum-exp and the gradient's sums; NaN where the largest z is not finite.

    `hot` is the one-hot part of an index target, weight·(1 − label_smoothing); `of_max` the mass of
    `argmax` without it.
    """
    limit = sums.peak / divisor(params)
    others = (sums.ones - 1.0) + sums.others
    if not abs(limit) < math.inf:
        others = math.nan
    log_s = log1p(others)
    lse = limit + log_s
    rest = sums.other_mass + (sums.peak_mass - of_max)
    gap_sum = sums.gap_sum
    hot_elsewhere = 0.0
    if hot != 0.0:
        gap, error = scaled_gap(sums.peak, sums.target_z, divisor(params))
        gap_sum += fma(hot, gap, times(hot, error))
        if sums.target_z != sums.peak:
            hot_elsewhere = hot
    a = rest + of_max + hot
    loss = fma(a, log_s, gap_sum) + times(times(lse, params.z_loss), lse)
    extra = times(lse, 2.0 * params.z_loss)
    return RowResult(others, rest + hot_elsewhere + extra, a + extra, loss + 0.0, lse)


@device
def gradient_entry(e, a, is_max, row):
    """B·p − a of one class, in the form that cancels less."""
    s = row.others + 1.0
    share = row.others / s
    p = row.b / s
    if is_max and fma(abs(row.b), share, abs(row.rest)) < abs(p) + abs(a):
        return fma(-row.b, share, row.rest)
    return fma(e, p, -a)
