"""The fields of `backends.fields`: one row at a time, 16 classes at a time, in float64.

    1. the largest logit; NaN if any is NaN
    2. with d_c = max z − z_c and e_c = exp(−d_c) the sums of e_c, e_c², e_c·d_c and e_c·d_c², and
       how many logits are above the target's or equal to it

In no sum is a term negative, so they are plain float64, but for the largest e_c, which is 1 and
kept apart: where the softmax is nearly one-hot the others would be lost beside it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit, jit, log1p
from xentcli.backends.cpu.formulas import divisor
from xentcli.backends.cpu.gaps import SCALE, UNSCALE, bounded_gap_and_e, gap_of, peak_of_row
from xentcli.backends.cpu.half_types import as_float64, constant_for, is_float64
from xentcli.backends.cpu.load_store import advance, load, prefetch
from xentcli.backends.cpu.row_ops import (
    element,
    load_padded,
    max_across,
    prefetch_line,
    row_max,
    row_pointer,
    total_across,
)
from xentcli.backends.cpu.simd import (
    LANES,
    constant,
    equal,
    first_lane,
    fma,
    lane_indices,
    lanes_below,
    less,
    select,
    select_min,
    splat,
)
from xentcli.backends.fields import FIELDS, Field

NLL, CONFIDENCE, P_TARGET = int(Field.NLL), int(Field.CONFIDENCE), int(Field.P_TARGET)
ENTROPY, BRIER, PREDICTION = int(Field.ENTROPY), int(Field.BRIER), int(Field.PREDICTION)
ABOVE, TIES, LSE = int(Field.ABOVE), int(Field.TIES), int(Field.LSE)
TARGET_GAP, MEAN_GAP, GAP_VARIANCE = (
    int(Field.TARGET_GAP),
    int(Field.MEAN_GAP),
    int(Field.GAP_VARIANCE),
)
FIELD_COUNT = FIELDS


class RowSums(NamedTuple):
    """Sums over the classes of a row, in 16 lanes; e is kept multiplied by `SCALE`."""

    ones: Any  # of the e that are 1
    others: Any  # of the other e
    squares: Any  # of their e²
    gaps: Any  # e·d
    gap_squares: Any  # e·d²
    above: Any  # of the logits' own dtype, as are the next two
    equal: Any
    place: Any  # the first class with the largest logit


class Marks(NamedTuple):
    """What each logit is compared with, in vectors of their own dtype."""

    largest: Any
    target: Any
    classes: Any  # an index beyond the end


@inline_jit
def any_gap_and_e(peak, x, scalars, exact):
    """d and e of 16 logits, with any option."""
    gap, error = gap_of(as_float64(x), peak, scalars, exact)
    if exact:
        return bounded_gap_and_e(gap, error)
    return bounded_gap_and_e(gap, None)


@inline_jit
def added(sums, values, indices, gap_and_e, marks):
    """The sums with 16 more classes."""
    gap, e = gap_and_e
    zero, largest_e = constant(e, 0.0), constant(e, SCALE)
    none, one = constant(values, 0.0), constant(values, 1.0)
    is_one, weighted = equal(e, largest_e), e * gap
    other = select(is_one, zero, e)
    return RowSums(
        sums.ones + select(is_one, largest_e, zero),
        sums.others + other,
        fma(other, other, sums.squares),
        sums.gaps + weighted,
        fma(weighted, gap, sums.gap_squares),
        sums.above + select(less(marks.target, values), one, none),
        sums.equal + select(equal(marks.target, values), one, none),
        select_min(sums.place, select(equal(values, marks.largest), indices, marks.classes)),
    )


@inline_jit
def row_sums(x, classes, y, limits, scalars, exact):
    """Pass 2. Ranks are those of the logits as they are: temperature and softcap keep the order."""
    largest, peak = limits
    none, target = constant_for(x, 0.0), element(x, y)
    marks = Marks(
        constant_for(x, largest), constant_for(x, target), constant_for(x, float(classes))
    )
    # What lies beyond the end counts as −∞, which the target's logit may be, too.
    padding = float(-classes % LANES) if target == -math.inf else 0.0
    zero, indices, step = as_float64(none), lane_indices(none), constant_for(x, float(LANES))
    same = constant_for(x, -padding / LANES)
    sums = RowSums(zero, zero, zero, zero, zero, none, same, marks.classes)
    body, c = classes - classes % LANES, 0
    if scalars.temperature == 1.0 and not scalars.softcap < math.inf and not exact:
        while c < body:
            values = load(x, c)
            both = bounded_gap_and_e(peak.x - as_float64(values), None)
            sums, indices = added(sums, values, indices, both, marks), indices + step
            prefetch(x, c + classes)  # the next row, while this one is computed
            c += LANES
    while c < classes:
        values = load_padded(x, classes, c, -math.inf)
        gap, e = any_gap_and_e(peak, values, scalars, exact)
        e = select(lanes_below(classes - c), e, zero)  # a softcap makes −inf finite
        sums, indices = added(sums, values, indices, (gap, e), marks), indices + step
        prefetch_line(x, c + classes)
        c += LANES
    return sums


@inline_jit
def unscaled(sums):
    """The sums as numbers, without the scale."""
    squares, gaps = (
        total_across(sums.squares) * UNSCALE * UNSCALE,
        total_across(sums.gaps) * UNSCALE,
    )
    ones, others = total_across(sums.ones) * UNSCALE, total_across(sums.others) * UNSCALE
    return ones, (ones - 1.0) + others, squares, gaps, total_across(sums.gap_squares) * UNSCALE


@inline_jit
def write_fields(x, y, peak, sums, how, out):
    """The fields of one row, from its sums; `out` are pointer and stride."""
    (to, stride), (scalars, exact) = out, how
    ones, others, squares, gaps, gap_squares = unscaled(sums)
    total, mean = 1.0 + others, gaps / (1.0 + others)
    log_total, _ = log1p(others, 0.0)
    gap, error = gap_of(splat(element(x, y)), peak, scalars, exact)
    e = first_lane(bounded_gap_and_e(gap, error)[1]) * UNSCALE
    gap, error = first_lane(gap), first_lane(error)
    squares, rest = (squares + ones) - e * e, (others - e) + 1.0
    if e == 1.0:  # the largest: the sums over the other classes do not hold it
        squares, rest = unscaled(sums)[2] + (ones - 1.0), others
    to[NLL * stride] = gap + (log_total + error) + 0.0
    to[CONFIDENCE * stride] = 1.0 / total
    to[P_TARGET * stride] = e / total
    to[ENTROPY * stride] = log_total + mean
    to[BRIER * stride] = (squares + rest * rest) / (total * total)
    to[PREDICTION * stride] = 0.0 - max_across(constant(sums.place, 0.0) - sums.place)
    to[ABOVE * stride] = total_across(sums.above)
    to[TIES * stride] = total_across(sums.equal) - 1.0
    to[LSE * stride] = first_lane(peak.z) / divisor(scalars) + log_total
    to[TARGET_GAP * stride] = gap
    to[MEAN_GAP * stride] = mean
    to[GAP_VARIANCE * stride] = max(0.0, gap_squares / total - mean * mean)


@inline_jit
def write_nan(out):
    """The fields of a row that is ignored or has no probabilities."""
    to, stride = out
    for field in range(FIELD_COUNT):
        to[field * stride] = math.nan


@jit
def statistics_range(count, logits, targets, classes, scalars, fields, space):
    """Some rows with contiguous classes; `fields` are pointer and stride."""
    start, stride = fields
    exact = is_float64(space)
    for i in range(count):
        x, y, out = row_pointer(logits, i), targets[i], (advance(start, i), stride)
        largest = row_max(x, classes)
        peak = peak_of_row(largest, scalars, exact)
        if y < 0 or not abs(first_lane(peak.z) / divisor(scalars)) < math.inf:
            write_nan(out)
            continue
        sums = row_sums(x, classes, y, (largest, peak), scalars, exact)
        write_fields(x, y, peak, sums, (scalars, exact), out)
