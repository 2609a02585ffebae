"""The formulas of a row, for one number at a time, in float64.

    z_c    = x_c / T, or κ·tanh(x_c / T / κ) with a softcap
    e_c    = exp(z_c − max z),  s = Σ e_c,  others = s − 1, where the 1 is a largest one's own
    a_c    = weight_c·((1 − label_smoothing)·q_c + label_smoothing/C)
    loss   = A·log1p(others) + Σ a_c·(max z − z_c) + λ·lse²,   A = Σ a_c
    grad_c = B·e_c/s − a_c,   B = A + 2·λ·lse

`others` and the sum of the others' masses are added up without the largest one, so that nothing
cancels in a row that is nearly certain.
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
from xentcli.backends.elementary import FARTHEST, LN2_HIGH, LN2_LOW, PER_LN2, ROUND

device = cuda.jit(device=True)

added = device(elementary.add)
difference = device(elementary.difference)
exp_series = polynomial(elementary.EXP)
log1p_series = polynomial(elementary.LOG1P)


class Sums(NamedTuple):
    """What is known of some classes: it can be added to that of the row's other classes.

    `peak` is their largest z, which the exponentials refer to (to 0 where it is −inf).
    """

    peak: Any
    ones: Any  # how many are the largest
    others: Any  # Σ e of the others
    score: Any  # z of an index target, 0 where it is not among them
    of_ones: Any  # Σ a of the largest
    rest: Any  # Σ a of the others
    far: Any  # Σ a·(peak − z)
    top: Any  # the first of the largest


class Row(NamedTuple):
    """What the gradient of a class needs to know of all classes."""

    others: Any
    rest: Any  # B − a of the largest z
    b: Any  # B
    loss: Any
    lse: Any


@device
def lesser(a, b):
    """The smaller of two numbers. (`min` does not compile for the device in every Numba.)"""
    if b < a:
        return b
    return a


@device
def reference_of(peak):
    """What exponentials refer to: with the largest at −inf, exp(−inf − 0) = 0 is right."""
    if peak == -math.inf:
        return 0.0
    return peak


@device
def scored(x, call):
    """z of a logit, still to be divided by `divisor`."""
    if call.softcap < math.inf:
        return math.tanh(x / call.temperature / call.softcap) * call.softcap
    return x


@device
def divisor(call):
    """The temperature, where the softcap has not used it up."""
    if call.softcap < math.inf:
        return 1.0
    return call.temperature


@device
def slope(x, call):
    """dz/dx, times the temperature: 1 − tanh² without cancellation."""
    if call.softcap < math.inf:
        e = math.exp(-2.0 * abs(x / call.temperature / call.softcap))
        return e * 4.0 / ((1.0 + e) * (1.0 + e))
    return 1.0


@device
def below(peak, score, by):
    """(peak − score) / by as a rounded number and its error (Knuth); no error of infinity."""
    high, low = difference(peak, score)
    if by != 1.0:
        quotient = high / by
        low = (fma(quotient, -by, high) + low) / by
        high = quotient
    if not abs(high) < math.inf:
        low = 0.0
    return high, low


@device
def exponential(peak, score, call):
    """exp(z − max z), within 1 ULP."""
    e, _ = exponential_in_two(peak, score, call)
    return e


@device
def exponential_in_two(peak, score, call):
    """exp(z − max z), and what the last rounding took of it.

    −gap − error = n·ln 2 + r, |r| ≤ ln 2 / 2, with what the rounding of r took, and a minimax
    polynomial of (eʳ − 1 − r) / r². The library's function knows no error of its argument.
    """
    gap, error = below(peak, score, divisor(call))
    if gap != gap:
        return gap, 0.0
    if not gap < FARTHEST:
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
    """log(1 + x) for x ≥ 0, within 1 ULP; the library's is a little farther off.

    1 + x = 2ᵏ·(1 + f), √½ < 1 + f < √2, and log(1 + f) = f − f²/2 + s·(f²/2 + R(s²)) with
    s = f / (2 + f); the rounding error of 1 + x enters to first order. The polynomial R is that
    of FreeBSD's e_log.c.
    """
    if not x < math.inf:
        return x
    u, error = added(1.0, 0.0, x)
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
def single(x, reference, by):
    """exp(x − reference)·2⁴⁸ of float32 numbers not more than 700 below, within 2⁻²⁸.

    Range reduction, and a minimax polynomial of eʳ for |r| ≤ ln 2 / 2 with the value 1 at 0.
    """
    gap = x - reference
    biased = fma(gap, by.per_ln2, by.round)
    r = fma(biased - by.round, -by.ln2, gap)
    e = fma(r, by.c6, by.c5)
    e = fma(e, r, by.c4)
    e = fma(e, r, by.c3)
    e = fma(e, r, by.c2)
    e = fma(e, r, by.c1)
    return times_power(fma(e, r, 1.0), biased)


@device
def mass(weight, q, call):
    """a of a class, without what an index target adds."""
    return times(weight, fma(q, 1.0 - call.smoothing, call.smoothing / call.classes))


@device
def concluded(sums, hot, of_top, call):
    """Loss, log-sum-exp, and what the gradient needs; NaN where the largest z is no number.

    `hot` is what an index target's class gets beyond smoothing, `of_top` the mass of the first
    of the largest without that.
    """
    limit = sums.peak / divisor(call)
    others = (sums.ones - 1.0) + sums.others
    if not abs(limit) < math.inf:
        others = math.nan
    log_s = log1p(others)
    lse = limit + log_s
    rest = sums.rest + (sums.of_ones - of_top)
    far = sums.far
    hot_elsewhere = 0.0
    if hot != 0.0:
        gap, error = below(sums.peak, sums.score, divisor(call))
        far += fma(hot, gap, times(hot, error))
        if sums.score != sums.peak:
            hot_elsewhere = hot
    a = rest + of_top + hot
    loss = fma(a, log_s, far) + times(times(lse, call.z_loss), lse)
    extra = times(lse, 2.0 * call.z_loss)
    return Row(others, rest + hot_elsewhere + extra, a + extra, loss + 0.0, lse)


@device
def entry(e, a, is_top, row):
    """B·p − a of one class, in the form that cancels less."""
    s = row.others + 1.0
    share = row.others / s
    p = row.b / s
    if is_top and fma(abs(row.b), share, abs(row.rest)) < abs(p) + abs(a):
        return fma(-row.b, share, row.rest)
    return fma(e, p, -a)
