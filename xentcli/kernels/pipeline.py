"""Long rows with an index target and no option but weights and z-loss: three rows in flight.

A row goes through three passes, and each is slow for another reason:

    1. the largest logit                       waits for the memory that is read
    2. e_c = exp(x_c − max x), and their sum   waits for arithmetic
    3. grad_c = e_c·factor                     waits for the memory that is written

So one loop takes all three at the same time, for a row, the row before and the row before that,
16 classes of each. Measured on 2 cores with AVX-512, 2²⁷ float32, C = 32,768: 53 ms, against
69 ms for one row after the other with the next row prefetched, 90 ms without, and 29 ms for a
copy.

float32 and the half types are computed on as float32: the difference x − max x with its
rounding error, the sum with its own, the factor in two words. Each entry of the gradient is
then rounded twice, in e and in the product, and stays within 2 ULP. float64 has no second word.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from xentcli.kernels.arithmetic import RULES, add_others, below, called, compiled
from xentcli.kernels.exponential import (
    BOOST,
    SINGLE_BOOST,
    begun,
    begun_single,
    boosted,
    boosted_single,
    continued,
    continued_single,
)
from xentcli.kernels.formulas import Masses, concluded, entry
from xentcli.kernels.kinds import as_stored, doubles, filled, size_of, wide
from xentcli.kernels.memory import keep, load, moved, prefetch, store, store_some, stream
from xentcli.kernels.simd import F64, LANES, constant, fma, lanes_below, larger
from xentcli.kernels.sweeps import (
    across,
    get,
    lined_up,
    one,
    others_of,
    put,
    put_one,
    row_of,
    skip,
    to_line,
)

AHEAD = 2048  # bytes; 1 to 16 KiB are the same within the noise, none costs a fifth
LATE = 2 * LANES  # so many classes later an exponential is ready: see `step`
INLINE: Any = {**RULES, "forceinline": True}


class Sums(NamedTuple):
    """What the loop carries: the largest logits of the coming row, the sums of this one."""

    most: Any
    ones: Any
    high: Any
    low: Any


class Flow(NamedTuple):
    """The same, and the 32 exponentials that are under way."""

    sums: Sums
    begun: Any
    continued: Any


class Finished(NamedTuple):
    """What writing a row needs: its factor, also in two words, and the target's own entry."""

    factor: Any
    high: Any
    low: Any
    target: Any
    usual: Any


def started(x: Any, top: Any) -> Any:
    """Nothing summed up so far, and exponentials of 0 under way."""
    raise NotImplementedError  # compiled code takes `_started`, by the type of the lanes


def step(flow: Flow, coming: Any, x: Any, top: Any) -> Any:
    """Passes 1 and 2 for 16 classes each: the sums, and the exponentials of 32 classes before.

    The exponential is a chain of 100 cycles. So a step begins that of x, continues that of 16
    classes before, and ends that of 32 before: the processor sees three short chains where it
    else had to look 300 instructions ahead.
    """
    raise NotImplementedError  # compiled code takes `_step`


@overload(started, jit_options=INLINE)
def _started(x, top):
    if top == F64:

        def double(x, top):
            nothing, least = constant(top, 0.0), filled(x, -math.inf)
            parts = begun(wide(least), top)
            return Flow(Sums(least, nothing, nothing, nothing), parts, continued(parts))

        return double

    def single(x, top):
        nothing, least = constant(top, 0.0), filled(x, -math.inf)
        parts = begun_single(least, top)
        return Flow(Sums(least, nothing, nothing, nothing), parts, continued_single(parts))

    return single


@overload(step, jit_options=INLINE)
def _step(flow, coming, x, top):
    if top == F64:

        def double(flow, coming, x, top):
            first, second = begun(wide(x), top), continued(flow.begun)
            e, sums = boosted(flow.continued), flow.sums
            added = add_others((sums.ones, sums.high, sums.low), e, constant(e, 2.0**BOOST))
            return Flow(Sums(larger(coming, sums.most), *added), first, second), e

        return double

    def single(flow, coming, x, top):
        first, second = begun_single(x, top), continued_single(flow.begun)
        (e, taken), sums = boosted_single(flow.continued), flow.sums
        one = constant(e, 2.0**SINGLE_BOOST)
        added = add_others((sums.ones, sums.high, sums.low + taken), e, one)
        return Flow(Sums(larger(coming, sums.most), *added), first, second), e

    return single


@compiled
def boost_of(z):
    """What the exponentials in a buffer are multiplied by."""
    return 2.0**BOOST if doubles(z) else 2.0**SINGLE_BOOST


@compiled
def product(z, c, done):
    """Pass 3: 16 entries of the gradient; none is negative, and a factor of 0 gives 0.0."""
    e = load(z, c)
    nothing = filled(z, 0.0)
    if doubles(z):
        return fma(e, filled(z, done.high), nothing)
    return fma(e, filled(z, done.high), fma(e, filled(z, done.low), nothing))


@compiled
def sweep(flow, rows, classes, begin, top, z):
    """Passes 1 and 2, from a class on to the end."""
    coming, x = rows
    body = classes - classes % LANES
    for c in range(begin, body, LANES):
        look_ahead(coming, c)
        flow, e = step(flow, load(coming, c), load(x, c), top)
        if z is not None:
            store(z, c - LATE, e)
    for c in range(body, classes + LATE, LANES):  # the last classes, and what is under way
        last = get(coming, classes, c, -math.inf)
        flow, e = step(flow, last, get(x, classes, c, -math.inf), top)
        if z is not None:
            store(z, c - LATE, e)
    return flow.sums


@compiled
def look_ahead(x, c):
    """Ask for what is needed soon."""
    prefetch(x, c + AHEAD // size_of(x))
    if size_of(x) == 8:
        prefetch(x, c + (AHEAD + 64) // size_of(x))


@compiled
def sweep_and_write(flow, rows, classes, top, buffers, done, out):
    """All three passes: the row in the other buffer is written."""
    coming, x = rows
    z, old = buffers
    grad, past_caches = out
    start = to_line(grad) if past_caches else 0
    store_some(grad, 0, lanes_below(start), as_stored(grad, product(old, 0, done)))
    body = (classes - start) // LANES * LANES
    for c in range(0, body, LANES):
        look_ahead(coming, c)
        flow, e = step(flow, load(coming, c), load(x, c), top)
        store(z, c - LATE, e)
        g = as_stored(grad, product(old, c + start, done))
        if past_caches:
            stream(grad, c + start, g)
        else:
            store(grad, c + start, g)
    # Not as a last full line: that would overlap what was streamed, and wait for it.
    end = start + body
    store_some(grad, end, lanes_below(classes - end), as_stored(grad, product(old, end, done)))
    return sweep(flow, rows, classes, body, top, z)


@compiled
def finish(grad, y, z, classes, done):
    """What the loop could not write: rows whose factor leaves float32, and the target's entry."""
    if not done.usual:
        for c in range(0, classes, LANES):
            g = wide(load(z, c)) * (1.0 / boost_of(z)) * done.factor
            put(grad, classes, c, as_stored(grad, g + 0.0))
    put_one(grad, y, done.target)


@compiled
def concluded_row(x, y, z, peak, sums, hot, scalars):
    """Loss, log-sum-exp and what the gradient needs, from the sums of a row."""
    scale = 1.0 / boost_of(z)
    parts = wide(sums.ones) * scale, wide(sums.high) * scale, wide(sums.low) * scale
    others = others_of(parts)
    at_target = one(x, y)
    gap, error = below(peak, at_target, 1.0)
    distance = hot * gap + hot * error if hot != 0.0 else 0.0
    masses = Masses(hot, 0.0, 0.0, at_target == peak)
    return concluded(peak, others, masses, distance, scalars)


@compiled
def finished(x, y, z, peak, hot, scale, row):
    """What writing the row will need."""
    factor = row.b / (1.0 + row.others) * scale
    small = factor / boost_of(z)
    is_top = one(x, y) == peak
    target = entry(z[y] / boost_of(z), hot, is_top, row) * scale
    if doubles(z):
        return Finished(factor, small, 0.0, target, factor == 0.0 or 2.0**-1000 <= small < 2.0**900)
    high = np.float64(np.float32(small))
    usual = factor == 0.0 or 2.0**-114 <= small <= 2.0**-25
    return Finished(factor, high, small - high, target, usual)


@compiled
def present(targets):
    """The rows that are not ignored."""
    rows = np.empty(len(targets), np.int64)
    n = 0
    for i in range(len(targets)):
        if targets[i] >= 0:
            rows[n] = i
            n += 1
    return rows[:n]


@called
def plain_range(logits, targets, weight, scale, scalars, results, grad, work, past_caches):
    """A range of rows, (n, C, 1), through the pipeline.

    `work` is an empty array of what is computed on, `results` the losses and log-sum-exps.
    """
    skip(targets, results, grad)
    classes = logits.shape[1]
    rows = present(targets)
    buffers = np.empty((2, (classes + 64) // 64 * 64 + 2 * LATE + 64), work.dtype)
    even, odd = moved(lined_up(buffers[0]), LATE), moved(lined_up(buffers[1]), LATE)
    peak, done = 0.0, Finished(0.0, 0.0, 0.0, 0.0, True)
    for k in range(len(rows) + 2 if len(rows) else 0):
        i = rows[min(max(k - 1, 0), len(rows) - 1)]
        coming = row_of(logits, rows[min(k, len(rows) - 1)])
        x = row_of(logits, i)
        z, old = (odd, even) if k % 2 else (even, odd)
        top = filled(z, peak)
        flow = started(x, top)
        if grad is None:
            sums = sweep(flow, (coming, x), classes, 0, top, None)
        elif k < 2:
            sums = sweep(flow, (coming, x), classes, 0, top, z)
        else:
            out = row_of(grad, rows[k - 2])
            sums = sweep_and_write(
                flow, (coming, x), classes, top, (z, old), done, (out, past_caches)
            )
            finish(out, targets[rows[k - 2]], old, classes, done)
        if 1 <= k <= len(rows):
            y = targets[i]
            hot = weight[y]
            results[0, i], results[1, i], row = concluded_row(x, y, z, peak, sums, hot, scalars)
            if grad is not None:
                done = finished(x, y, z, peak, hot, scale[min(i, len(scale) - 1)], row)
        peak = across(sums.most)
    keep(buffers)
