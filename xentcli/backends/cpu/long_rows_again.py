"""Gradients of rows with numbers that their dtype cannot represent on the way, again.

They are rare: the factor of the row is far from 1, or in float32 the largest logit is 100 above all
others. Those of float32 are computed in float64.
"""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import add_wide_exponential, inline_jit
from xentcli.backends.cpu.exponential import ONE, exp_of_gap
from xentcli.backends.cpu.formulas import gap_over, total_of
from xentcli.backends.cpu.gradient_formulas import entries, in_every_lane
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for, is_float64
from xentcli.backends.cpu.load_store import load, store
from xentcli.backends.cpu.row_ops import load_padded, sums_across
from xentcli.backends.cpu.simd import LANES, constant


@inline_jit
def float64_exponentials(x, classes, c, peak, scalars):
    """16 exponentials of float32 logits, multiplied by 2⁹⁰⁰."""
    z = as_float64(load_padded(x, classes, c, -math.inf))
    exact = is_float64(x)  # never; a literal would be a second copy of both functions
    gap, _ = gap_over(constant(z, peak), z, scalars, exact)
    return exp_of_gap(gap, z, exact)[0]


@inline_jit
def float64_sum(x, classes, peak, scalars):
    """The sum of all exponentials but one largest, multiplied by 2⁹⁰⁰."""
    zero = as_float64(constant_for(x, 0.0))
    sums = zero, zero, zero
    for c in range(0, classes, LANES):
        e = float64_exponentials(x, classes, c, peak, scalars)
        sums = add_wide_exponential(sums, e, constant(e, ONE), False)
    ones, high, low = sums_across(sums)
    return total_of(ones, high, low, False)


@inline_jit
def write_float64_gradient(x, classes, peak, scalars, factors, exps):
    """Replace the float32 exponentials of a row by its gradient, computed in float64."""
    for c in range(0, classes, LANES):
        e = float64_exponentials(x, classes, c, peak, scalars) * factors.before
        g = e * factors.high * factors.unit
        store(exps, c, cast_for(exps, g) + constant_for(exps, 0.0))


@inline_jit
def replace_by_gradient(classes, factors, exps):
    """Replace the float64 exponentials of a row by its gradient."""
    for c in range(0, classes, LANES):
        e = load(exps, c) * constant_for(exps, factors.before)
        g = entries(e, in_every_lane(exps, factors), True) * constant_for(exps, factors.unit)
        store(exps, c, g + constant_for(exps, 0.0))
