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

from xentcli.backends.cpu.arithmetic import below, called, compiled
from xentcli.backends.cpu.exp_pipeline import LATE, started, step
from xentcli.backends.cpu.exponential import BOOST, SINGLE_BOOST
from xentcli.backends.cpu.formulas import Masses, concluded, entry
from xentcli.backends.cpu.half_types import as_stored, doubles, filled, size_of, wide
from xentcli.backends.cpu.load_store import keep, load, moved, prefetch, store, store_some, stream
from xentcli.backends.cpu.row_ops import (
    across,
    get,
    lined_up,
    one,
    others_of,
    placed,
    put,
    put_one,
    row_of,
    skip,
    to_line,
)
from xentcli.backends.cpu.simd import LANES, fma, lanes_below

AHEAD = 2048  # bytes; 1 to 16 KiB are the same within the noise, none costs a fifth


class Finished(NamedTuple):
    """What writing a row needs: its factor, also in two words, and the target's own entry."""

    factor: Any
    high: Any
    low: Any
    target: Any
    usual: Any


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
    """All three passes: the row in the other buffer is written.

    The target's own entry goes with the 16 it belongs to. Written afterwards, it made the
    processor read back a line that had just been sent past the caches: 200 ns a row.
    """
    coming, x = rows
    z, old = buffers
    grad, y, past_caches = out
    start = to_line(grad) if past_caches else 0
    store_some(grad, 0, lanes_below(start), written(grad, old, 0, y, done))
    body = (classes - start) // LANES * LANES
    c, pause = 0, min(max(y - start, 0) // LANES * LANES, body)
    while True:
        while c < pause:
            look_ahead(coming, c)
            flow, e = step(flow, load(coming, c), load(x, c), top)
            store(z, c - LATE, e)
            g = as_stored(grad, product(old, c + start, done))
            if past_caches:
                stream(grad, c + start, g)
            else:
                store(grad, c + start, g)
            c += LANES
        if c >= body:
            break
        flow, e = step(flow, load(coming, c), load(x, c), top)
        store(z, c - LATE, e)
        g = written(grad, old, c + start, y, done)
        if past_caches:
            stream(grad, c + start, g)
        else:
            store(grad, c + start, g)
        c, pause = c + LANES, body
    # Not as a last full line: that would overlap what was streamed, and wait for it.
    end = start + body
    store_some(grad, end, lanes_below(classes - end), written(grad, old, end, y, done))
    return sweep(flow, rows, classes, body, top, z)


@compiled
def written(grad, z, c, y, done):
    """16 entries of the gradient, and that of the target where it is among them."""
    return placed(grad, as_stored(grad, product(z, c, done)), y - c, done.target)


@compiled
def finish(grad, y, z, classes, done):
    """What the loop could not write: rows whose factor leaves float32."""
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
            out, target = row_of(grad, rows[k - 2]), targets[rows[k - 2]]
            sums = sweep_and_write(
                flow, (coming, x), classes, top, (z, old), done, (out, target, past_caches)
            )
            finish(out, target, old, classes, done)
        if 1 <= k <= len(rows):
            y = targets[i]
            hot = weight[y]
            results[0, i], results[1, i], row = concluded_row(x, y, z, peak, sums, hot, scalars)
            if grad is not None:
                done = finished(x, y, z, peak, hot, scale[min(i, len(scale) - 1)], row)
        peak = across(sums.most)
    keep(buffers)
