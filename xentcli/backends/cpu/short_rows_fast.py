"""Short rows with an index target and no option but weights: 16 rows at a time, in float32.

As in `long_rows_fast`, exponentials are multiplied by 2⁴⁸ and sums carry their errors. So do the
factor of the gradient and the target's entry. A loss is put together in float64, where the gap of
the target is exact.

Rows with numbers that float32 cannot represent on the way are computed again by `short_rows`, in
float64. Here are the formulas for 16 rows; `short_rows_passes` goes over all of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends import Scalars
from xentcli.backends.cpu import workspace
from xentcli.backends.cpu.arithmetic import (
    add,
    add_exponential,
    add_wide_exponential,
    fast_add,
    inline_jit,
    jit,
    log1p_series_f32,
)
from xentcli.backends.cpu.exponential import (
    F32_ROUND,
    F32_SCALE_BITS,
    SLOPE_ONE,
    exp_of_gap,
    exp_stage1_f32,
    exp_stage2_f32,
    exp_stage3_f32,
)
from xentcli.backends.cpu.exponential import ONE as EXP_OF_0
from xentcli.backends.cpu.formulas import RowSums, log_of_sum, mass_times_gap, total_of
from xentcli.backends.cpu.gradient_formulas import entries, entry_of_target, row_factors
from xentcli.backends.cpu.half_types import as_float64, cast_for, constant_for
from xentcli.backends.cpu.load_store import float64_at, gather, load, prefetch, store
from xentcli.backends.cpu.row_tiles import tile_rows
from xentcli.backends.cpu.simd import (
    LANES,
    absolute,
    constant,
    equal,
    exponent,
    fma,
    less,
    less_or_nan,
    maximum,
    power_of_two,
    select,
    select_max,
    select_min,
)

ONE = 2.0**F32_SCALE_BITS  # what exp(0) is kept as
LN2 = math.log(2)
NO_OPTIONS = Scalars()
# The range of the factors with which a product has the digits of float32, as in `long_rows_fast`.
LEAST_FACTOR, MOST_FACTOR = 2.0**-114, 2.0**-25

result_offset = inline_jit(workspace.result_offset)


class TileSums(NamedTuple):
    """Of 16 rows: the largest exponentials, the others with their error, and the target's."""

    ones: Any
    others: Any
    low: Any
    e_y: Any
    peak: Any  # the largest logit
    x_y: Any  # the target's


class Total(NamedTuple):
    """The sum of the exponentials of 16 rows as (w + w_low) / power, √½ ≤ w < √2."""

    w: Any
    w_low: Any
    inverse: Any  # 1 / w
    power: Any


@inline_jit
def exp_f32(x, peak):
    """exp(x − peak)·2⁴⁸ and its rounding error; NaN of NaN."""
    return exp_stage3_f32(exp_stage2_f32(exp_stage1_f32(x, peak, None)))


@inline_jit
def tile_sums(xs, classes, y, ahead, step):
    """Replace the logits of a tile by their exponentials, and add them up.

    Meanwhile logits of a tile to come are prefetched, `step` elements apart.
    """
    peak = load(xs, 0)
    for c in range(1, classes):
        peak = select_max(peak, load(xs, c * LANES))  # a NaN that is lost here shows in the sum
    one, zero = constant(peak, ONE), constant(peak, 0.0)
    sums, e_y, x_y, at = (zero, zero, zero), zero, zero, zero
    for c in range(classes):
        prefetch(ahead, c * step)
        x = load(xs, c * LANES)
        e, lost = exp_f32(x, peak)
        store(xs, c * LANES, e)
        sums = add_exponential((sums[0], sums[1], sums[2] + lost), e, one)
        here, at = equal(y, at), at + constant(at, 1.0)
        e_y, x_y = select(here, e, e_y), select(here, x, x_y)
    return TileSums(*sums, e_y, peak, x_y)


@inline_jit
def pair_sums(xs, y, ahead, step):
    """The same for two classes: one exponential is 1."""
    prefetch(ahead, 0)
    prefetch(ahead, step)
    first, second = load(xs, 0), load(xs, LANES)
    peak, least = select_max(first, second), select_min(first, second)
    one, zero = constant(peak, ONE), constant(peak, 0.0)
    e, lost = exp_f32(least, peak)
    e = select(equal(first, first), e, first)  # the peak is not NaN if this is
    first_is_peak, first_is_target = equal(first, peak), equal(y, zero)
    e_first, e_second = select(first_is_peak, one, e), select(first_is_peak, e, one)
    store(xs, 0, e_first)
    store(xs, LANES, e_second)
    e_y, x_y = select(first_is_target, e_first, e_second), select(first_is_target, first, second)
    return TileSums(one, e, lost, e_y, peak, x_y)


@inline_jit
def log_of_total(sums):
    """The sum of the exponentials, and its logarithm as float64, within 2⁻³⁰.

    As in `arithmetic.log1p`, but log(1 + f) = 2·s + s·R(s²), of which float32 is enough for the
    second term. What `w_low` adds to it is all of the logarithm where the softmax is nearly
    one-hot. It is kept multiplied by 2⁴⁸.
    """
    u, error = add(sums.ones, sums.low, sums.others)
    k, one = exponent(u), constant(u, 1.0)
    power = power_of_two(constant(u, F32_ROUND) - k, 0)
    w, w_low = u * power, error * power
    above = w + one
    both = one / (above * w)  # one division for two quotients
    inverse, rough = above * both, w * both
    s = (w - one) * rough
    z, more = s * s, error * inverse * (power * constant(u, ONE))
    more = fma(more * more, constant(u, -0.5 / ONE), more)
    wide, close = as_float64(w), as_float64(rough)
    close = close * fma(0.0 - (wide + 1.0), close, constant(wide, 2.0))
    log = fma((wide - 1.0) * close, constant(wide, 2.0), as_float64(s * z * log1p_series_f32(z)))
    log = fma(as_float64(more), constant(wide, 1.0 / ONE), log)
    bits = as_float64(k - constant(k, float(F32_SCALE_BITS)))
    return Total(w, w_low, inverse, power), fma(bits, constant(bits, LN2), log)


@inline_jit
def two_words(numbers, like):
    """float64 as two float32."""
    high = cast_for(like, numbers)
    return high, cast_for(like, numbers - as_float64(high))


@inline_jit
def gradient_factor(total, scale):
    """scale / Σe in two words; `scale` has two."""
    high, low = scale[0] * total.power, scale[1] * total.power
    ratio = high * total.inverse
    rest = fma(constant(ratio, 0.0) - ratio, total.w, high) + (low - ratio * total.w_low)
    return ratio, rest * total.inverse


@inline_jit
def target_entries(sums, factor, like):
    """−factor·(Σe − e_y). Where the target is the largest, `ones` − e_y is exact.

    The terms are multiplied by 2⁴⁸, and a subnormal result is rounded once.
    """
    rest, error = fast_add(sums.ones, constant(sums.ones, 0.0) - sums.e_y)
    rest, low = add(rest, error + sums.low, sums.others)
    scaled, more = factor[0] * constant(rest, ONE), factor[1] * constant(rest, ONE)
    high = rest * scaled
    low = fma(rest, scaled, constant(rest, 0.0) - high) + fma(rest, more, low * scaled)
    return cast_for(like, (as_float64(high) + as_float64(low)) * (-1.0 / ONE))


@inline_jit
def sums_out_of_range(sums, classes):
    """Which of 16 rows need float64; all those with a NaN or without a finite logit."""
    others = (sums.ones - constant(sums.ones, ONE)) + sums.others
    return less_or_nan(others, constant(others, classes * (ONE * 2.0**-146)))


@inline_jit
def factor_out_of_range(factor, scale):
    """The same for the factor of the gradient. That of a scale of 0 is 0."""
    size, zero = absolute(factor), constant(factor, 0.0)
    size = select(less(constant(zero, MOST_FACTOR), size), zero, size)
    size = select(equal(scale, zero), constant(zero, LEAST_FACTOR), size)
    return less_or_nan(size, constant(zero, LEAST_FACTOR))


@inline_jit
def write_entries(tile, classes, y, factor, of_target, g):
    """The gradients of 16 rows as a tile; −0.0, which rounding may give, becomes 0.0."""
    zero = constant(of_target, 0.0)
    at = zero
    for c in range(classes):
        e = load(tile, c * LANES)
        entry = fma(e, factor[0], e * factor[1])
        entry, at = select(equal(y, at), of_target, entry), at + constant(at, 1.0)
        store(g, c * LANES, entry + zero)


@jit
def tile_again(logits, row, end, index, hot, scale, space, g):
    """16 rows in float64: losses and log-sum-exps into the work space, gradients into a tile."""
    classes, zero, peak = logits.shape[1], constant(index, 0.0), constant(index, -math.inf)
    exps, results, rows = (
        float64_at(space, 0),
        float64_at(space, result_offset(classes)),
        tile_rows(logits, row, end, zero),
    )
    for c in range(classes):
        x = as_float64(gather(logits.data, rows.offsets + float(c * logits.class_stride)))
        store(exps, c * LANES, x)
        peak = maximum(peak, x)
    one, sums, e_y, gap_y = constant(zero, EXP_OF_0), (zero, zero, zero), zero, zero
    for c in range(classes):
        gap, here = peak - load(exps, c * LANES), equal(index, constant(index, float(c)))
        e, _ = exp_of_gap(gap, zero, False)
        store(exps, c * LANES, e)
        sums = add_wide_exponential(sums, e, one, False)
        e_y, gap_y = select(here, e, e_y), select(here, gap, gap_y)
    others, _ = total_of(*sums, False)
    others = select(
        less(absolute(peak), constant(peak, math.inf)), others, constant(others, math.nan)
    )
    log, _, _ = log_of_sum(others, zero, False)
    store(results, 0, hot * log + mass_times_gap(hot, gap_y))
    store(results, LANES, peak + log)
    if g is not None:
        found = RowSums(others, zero, zero, hot, zero)
        factors = row_factors(found, scale, NO_OPTIONS, False, False)
        is_target_max = equal(gap_y, zero)
        of_target = entry_of_target(
            e_y, is_target_max, found, factors, constant(zero, SLOPE_ONE), False
        )
        ignored = less(index, zero)
        for c in range(classes):
            entry = entries(load(exps, c * LANES) * factors.before, factors, False)
            entry = select(equal(index, constant(index, float(c))), of_target, entry)
            store(g, c * LANES, cast_for(g, select(ignored, zero, entry)) + constant_for(g, 0.0))
