"""Ranges of rows, one after the other: what one thread does."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from xentcli.kernels.arithmetic import below, compiled, log1p
from xentcli.kernels.memory import address, load, pointer
from xentcli.kernels.rows import divisor, exponentials, scored, summarised, write
from xentcli.kernels.simd import LANES, as_stored, constant, wide
from xentcli.kernels.sweeps import fill, get, largest, put

# Bytes of gradient from which on it is written past the caches: it would not stay there, and a
# plain store reads each line before it writes it.
STREAM_FROM = 1 << 22


@compiled
def goes_past_caches(logits, grad):
    """Whether a gradient is too large to stay in a cache, and not in place of the logits."""
    large = grad.size * grad.itemsize >= STREAM_FROM
    return large and address(pointer(grad, 0)) != address(pointer(logits, 0))


@njit(error_model="numpy", nogil=True)
def index_range(logits, targets, weight, scale, scalars, loss, lse, grad, past_caches):
    """A range of rows with one class index each."""
    classes = logits.shape[1]
    buffer = np.empty(classes + LANES)
    z = pointer(buffer, 0)
    call = pointer(weight, 0), classes, scalars
    for i in range(len(logits)):
        x, y, g = pointer(logits, i * classes), targets[i], pointer(grad, i * classes)
        if y < 0:
            loss[i], lse[i] = 0.0, math.nan
            if len(grad):
                fill(g, classes, 0.0)
            continue
        loss[i], lse[i], row = summarised(x, y, None, call, z)
        if len(grad):
            write(x, y, None, call, (scale[i], past_caches), z, row, g)


@njit(error_model="numpy", nogil=True)
def prob_range(logits, targets, weight, scale, scalars, loss, lse, grad, past_caches):
    """A range of rows with a probability for each class."""
    classes = logits.shape[1]
    buffer = np.empty(classes + LANES)
    z = pointer(buffer, 0)
    call = pointer(weight, 0), classes, scalars
    for i in range(len(logits)):
        x, g = pointer(logits, i * classes), pointer(grad, i * classes)
        q = pointer(targets, i * classes)
        loss[i], lse[i], row = summarised(x, -1, q, call, z)
        if len(grad):
            write(x, -1, q, call, (scale[i], past_caches), z, row, g)


@njit(error_model="numpy", nogil=True)
def softmax_range(logits, scalars, log, out):
    """A range of rows: probabilities, or their logarithms −d_c − log s."""
    classes = logits.shape[1]
    buffer = np.empty(classes + LANES)
    z = pointer(buffer, 0)
    for i in range(len(logits)):
        x, g = pointer(logits, i * classes), pointer(out, i * classes)
        peak = scored(largest(x, classes), scalars)
        if not abs(peak / divisor(scalars)) < math.inf:
            fill(g, classes, math.nan)
            continue
        others = exponentials(x, classes, peak, scalars, z)
        for c in range(0, classes, LANES):
            value = load(z, c) / (1.0 + others)
            if log:
                score = scored(wide(get(x, classes, c, 0.0)), scalars)
                gap, error = below(constant(score, peak), score, divisor(scalars))
                value = 0.0 - (gap + (error + log1p(others)))
            put(g, classes, c, as_stored(g, value))
