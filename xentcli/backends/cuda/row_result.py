"""The result of a row with any target and any option, from the sums over all its classes.

    loss   = A·log s + Σ a_c·gap_c + λ·lse²,   A = Σ a_c
    grad_c = (B·e_c/s − a_c)·scale/T·dz/dx,   B = A + 2·λ·lse

`others` and the other classes' masses are summed without the largest logit, so that nothing
cancels where the softmax is nearly one-hot. Numbers of a row have two words, and are rounded when
they are written; those that can be very large or small have a power of two besides.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import float64, int64

from xentcli.backends.cuda.formulas import (
    ONE,
    SCALE_BITS,
    UNIT,
    exponential,
    gap_of,
    has_softcap,
    largest_z,
    log1p,
    mass,
    min_of,
    times_slope,
)
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX, LOG, NONE, PROBS
from xentcli.backends.cuda.primitives import device, fma, get, times
from xentcli.backends.cuda.reductions import NO_CLASS, row_offset
from xentcli.backends.cuda.two_words import (
    add,
    add_pairs,
    difference,
    divide,
    divide_by,
    improved_log1p,
    multiply,
    normalised,
    product,
    quick_sum,
    times_large_power,
)

NEGLIGIBLE = 2.0**-900  # beside 1: log(1 + others) is `others`
DOWN = -float(SCALE_BITS)
SMALLER = -1000.0  # the power of two of masses where 2·λ·lse overflows
INFINITE = 1200.0  # the power of two of an infinite scale: its products are infinite, or 0


class RowSums(NamedTuple):
    """Sums over all classes, in two words each."""

    others: Any  # times 2^−power
    power: Any  # 0, or −960 where `others` is negligible
    s: Any
    log_s: Any  # times 2^−power
    b: Any  # B, times `unit`
    rest: Any  # B − a of the largest logit, times `unit`
    unit: Any  # of masses: 1, or less where 2·λ·lse overflows


@device
def mass_of_class(given, c, params, row):
    """a of a class, without the one-hot part of an index target."""
    _, targets, weight, _ = given
    q = 0.0
    if params.kind == PROBS:
        place = row_offset(row, params.inner, params.q_outer, params.q_inner)
        q = float64(get(targets, place + c * params.q_step))
    return mass(get(weight, c), q, params)


@device
def has_other_masses(params):
    """Whether classes other than an index target have a mass."""
    return params.kind == PROBS or (params.kind == INDEX and params.uniform > 0.0)


@device
def target_mass(y, weight, params):
    """The one-hot part of an index target: weight·(1 − label_smoothing). Probabilities alone are
    as the gradient of a target of mass 1."""
    if params.kind == INDEX:
        return times(params.kept, weight[y])
    return 1.0 if params.kind == NONE else 0.0


@device
def sum_of_others(sums, z):
    """Σ e of all classes but one that is largest, its power, s and log s; NaN where the largest z
    is not finite."""
    high, low = add(sums.others, sums.others_low, (sums.ones - 1.0) * ONE)
    high, low = quick_sum(high, low)
    if not (abs(sums.peak) < math.inf and abs(z) < math.inf):
        high = math.nan
    if high < NEGLIGIBLE * ONE:
        return (high, low), DOWN, (1.0, times(high, UNIT)), (high, low)
    others = times(high, UNIT), times(low, UNIT)
    s = add_pairs((1.0, 0.0), others)
    if not others[0] < math.inf:
        return others, 0.0, s, others
    return others, 0.0, s, improved_log1p(others, log1p(others[0]))


@device
def times_negligible(a, value):
    """a·value and its power of two, for a value that has one of −960."""
    if abs(a[0]) > 2.0**900:
        high, low = multiply((times(a[0], UNIT), times(a[1], UNIT)), value)
        return high, low, 0.0
    high, low = multiply(a, value)
    return high, low, DOWN


@device
def at_power(value, power):
    """Two words with a power of 0 or −960, without it."""
    if power == 0.0:
        return value
    return times(value[0], UNIT), times(value[1], UNIT)


@device
def row_loss(a, row, gaps, lse, params):
    """A·log s + Σ a·gap + λ·lse²; `gaps` are two parts of the sum."""
    if row.power != 0.0 and gaps[0][0] == 0.0 and gaps[1][0] == 0.0 and params.z_loss == 0.0:
        high, _, power = times_negligible(a, row.log_s)
        return times_large_power(high, power) + 0.0
    log_s, weighted = at_power(row.log_s, row.power), times(lse[0], params.z_loss)
    plain = fma(a[0], log_s[0], gaps[0][0] + gaps[1][0]) + times(weighted, lse[0])
    if not abs(plain) < math.inf:
        return plain
    total = add_pairs(add_pairs(gaps[0], gaps[1]), multiply(a, log_s))
    total = add_pairs(total, multiply((weighted, fma(lse[0], params.z_loss, -weighted)), lse))
    return total[0] + 0.0


@device
def row_sums(sums, z, of_max, hot, is_max, params):
    """The row's sums, A and its log-sum-exp. `of_max` is the mass of the largest logit without the
    one-hot part `hot` of the target, which is the largest or not."""
    others, power, s, log_s = sum_of_others(sums, z[0])
    lse = add_pairs(z, at_power(log_s, power))
    of_peaks = add_pairs((sums.peak_mass, sums.peak_mass_low), (-of_max, 0.0))
    rest = add_pairs((sums.other_mass, sums.other_mass_low), of_peaks)
    a = add_pairs(add_pairs(rest, (of_max, 0.0)), (hot, 0.0))
    if not is_max:
        rest = add_pairs(rest, (hot, 0.0))
    unit = 1.0 if abs(times(lse[0], params.z_loss)) < 2.0**1000 else 2.0**SMALLER
    extra = 2.0 * times(lse[0], times(params.z_loss, unit)), 0.0
    b = add_pairs((a[0] * unit, a[1] * unit), extra)
    rest = add_pairs((rest[0] * unit, rest[1] * unit), extra)
    return RowSums(others, power, s, log_s, b, rest, unit), a, lse


@device
def gradient_entry(e, a, is_max, row):
    """B·p − a of one class in the form that cancels less: two words and a power of two."""
    p = divide(row.b, row.s)
    if is_max:
        share = divide(row.others, row.s)
        if row.rest[0] == 0.0 and row.power != 0.0:
            high, low, power = times_negligible(row.b, share)
            return -high, -low, power
        share = multiply(row.b, at_power(share, row.power))
        if abs(share[0]) + abs(row.rest[0]) < abs(p[0]) + abs(a[0]):
            high, low = add_pairs(row.rest, (-share[0], -share[1]))
            return high, low, 0.0
    high, low = add_pairs(multiply(e, p), (-a[0], -a[1]))
    return high, low, 0.0


@device
def scaled_entry(entry, row, factor, x, place, params):
    """An entry of the gradient times scale/T and the softcap's slope, rounded; never −0.0."""
    high, low, power = normalised(entry[0], entry[1])
    value = multiply((high, low), (factor[0], factor[1]))
    high, _ = times_slope_at(value, x, place, params)
    power += entry[2] + factor[2] + power_of_masses(row)
    return times_large_power(high, power) + 0.0


@device
def scale_over_temperature(scale, params):
    """scale/T in two words, and a power of two. The scale may be infinite."""
    above, _, power = normalised(scale, 0.0)
    if abs(above) == math.inf:
        above, power = math.copysign(1.0, above), INFINITE
    below, _, less = normalised(params.temperature, 0.0)
    high, low = divide_by(above, times(above, params.scale_error), below)
    return high, low, power - less


@device
def factors_of_entries(row, factor, params):
    """The factors of e and of a in `output_value`: B/s·scale/T in two words and its unit, scale/T,
    and the power of two that both are divided by.

    Exponentials are times 2⁹⁶⁰. Where their factor is not too small for that, it has the inverse
    power and the unit is 1. Else the smallest exponentials do not count, and the unit is 2⁻⁹⁶⁰.
    """
    high, low, power = normalised(row.b[0], row.b[1])
    high, low = divide(multiply((high, low), (factor[0], factor[1])), row.s)
    power, unit = power + factor[2] + power_of_masses(row), UNIT
    shrink = 0.0
    if power > 1900.0 or (factor[2] > 900.0 and has_other_masses(params)):
        shrink = 200.0
    if abs(times_large_power(high, power - shrink)) >= 2.0**-40:
        power, unit = power + DOWN, 1.0
    high, low = times_large_power(high, power - shrink), times_large_power(low, power - shrink)
    if abs(high) > 2.0**100:  # where a product with the second word may overflow alone
        low = 0.0
    per_mass = times_large_power(factor[0], factor[2] - shrink)
    return high, low, unit, per_mass, times_large_power(1.0, shrink)


@device
def power_of_masses(row):
    """The power of two that the row's masses are divided by."""
    return 0.0 if row.unit == 1.0 else -SMALLER


@device
def store_row_result(sums, peak, start, given, params, task, out):
    """Write the row's loss and log-sum-exp. Returns what `output_value` needs, and the indices and
    entries of the largest logit and of the target."""
    x, _, weight, scale = given
    results, grad = out
    hot = target_mass(task.y, weight, params)
    is_max = params.kind == INDEX and sums.target == sums.peak
    of_max, argmax = 0.0, int64(-1)
    if has_other_masses(params) and sums.argmax < NO_CLASS:
        argmax = int64(sums.argmax)
        if is_max:
            argmax = int64(task.y)
        of_max = mass_of_class(given, argmax, params, task.row)
    row, a, lse = row_sums(sums, largest_z(peak, params), of_max, hot, is_max, params)
    if params.mode == LOG:
        unit = 1.0 if row.power == 0.0 else UNIT
        return (row.log_s[0], row.log_s[1], unit, 0.0, 1.0), (-1.0, 0.0, -1.0, 0.0)
    gap, error, factor = 0.0, 0.0, (1.0, 0.0, 0.0)
    if params.mode == GRADIENT:
        factor = scale_over_temperature(scale[min_of(task.row, scale.size - 1)], params)
        gap, error = gap_of(peak, sums.target, params)
        if task.part == 0 or grad.size == 0:
            hot_gap = 0.0, 0.0
            if hot != 0.0:
                hot_gap = product(hot, gap)
                hot_gap = hot_gap[0], fma(hot, error, hot_gap[1])
            gaps = (sums.gap_sum, sums.gap_sum_low), hot_gap
            results[0, task.row] = row_loss(a, row, gaps, lse, params)
            results[1, task.row] = lse[0]
    place, largest = argmax - task.begin, 0.0
    if 0 <= place < task.count:
        entry = gradient_entry((1.0, 0.0), (of_max * row.unit, 0.0), True, row)
        largest = scaled_entry(entry, row, factor, x, start + place * params.x_step, params)
    else:
        place = int64(-1)
    inside, target = task.y - task.begin, 0.0
    mass_of_target = 0.0, 0.0
    if params.kind == INDEX and 0 <= inside < task.count:
        high, low = difference(mass_of_class(given, task.y, params, task.row), -hot)
        mass_of_target = high * row.unit, low * row.unit
    if mass_of_target[0] != 0.0:
        e, lost = exponential(gap, error)
        e = times(e, UNIT), times(lost, UNIT)
        entry = gradient_entry(e, mass_of_target, is_max, row)
        target = scaled_entry(entry, row, factor, x, start + inside * params.x_step, params)
    else:  # the product of e and its factor, which holds for smaller e
        inside = int64(-1)
    factors = factors_of_entries(row, factor, params)
    return factors, (float64(place), largest, float64(inside), target)


@device
def times_slope_at(value, x, place, params):
    """A number of two words times dz/dx of an element, times the temperature."""
    if has_softcap(params):
        return times_slope(value, float64(get(x, place)), params)
    return value
