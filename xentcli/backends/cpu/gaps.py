"""Gaps to the largest logit, and exponentials that may be squared: for the statistics of rows.

    d_c = max z − z_c,   e_c = exp(−d_c)

Exponentials are multiplied by 2¹⁰⁰, so that the smallest are normal numbers, and their squares
finite. The others of this backend are multiplied by 2⁹⁰⁰: see `exponential`.
"""

from __future__ import annotations

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.exponential import exp_series, nearest_power, reduce_range
from xentcli.backends.cpu.formulas import gap_below, peak_of
from xentcli.backends.cpu.simd import constant, fma, fmin, less, power_of_two, select, splat
from xentcli.backends.elementary import LN2_LOW, MAX_GAP

BITS = 100
SCALE = 2.0**BITS
UNSCALE = 2.0**-BITS


@inline_jit
def expm1_and_power(gap, error):
    """s and n + 1.5·2⁵² of exp(−gap − error) = 2ⁿ·(1 + s); an error of None is 0."""
    if error is None:
        n, biased, high = nearest_power(gap)
        r = fma(n, constant(gap, -LN2_LOW), high)
        return fma(r * r, exp_series(r), r), biased
    r, lost, biased = reduce_range(gap, error)
    return r + fma(r * r, exp_series(r), lost), biased


@inline_jit
def bounded_gap_and_e(gap, error):
    """d, at most 746, and e·2¹⁰⁰, 0 there; an error of None is 0."""
    far = constant(gap, MAX_GAP)
    near, bounded = less(gap, far), fmin(gap, far)
    if error is None:
        s, biased = expm1_and_power(bounded, None)
    else:
        s, biased = expm1_and_power(bounded, select(near, error, constant(gap, 0.0)))
    power = power_of_two(biased, BITS)
    return bounded, select(near, fma(power, s, power), constant(gap, 0.0))


@inline_jit
def gap_of(x, peak, scalars, exact):
    """d of 16 logits in float64, and its error."""
    high, low, _ = gap_below(peak, x, scalars, exact)
    return high, low


@inline_jit
def peak_of_row(largest, scalars, exact):
    """What gaps come from, of the largest logit."""
    return peak_of(splat(largest), scalars, exact)
