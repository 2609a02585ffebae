"""The CPU kernels: Numba, one pass of reading and one of writing per row, float64 inside.

One row of C logits goes through these steps, with d_c = (max z − z_c) ≥ 0 kept together with
its rounding error:

    e_c    = exp(−d_c)                 the largest is exactly 1
    others = Σ e_c without the largest, so that s = 1 + others and log s = log1p(others)
    loss   = A·log1p(others) + Σ a_c·d_c + λ·lse²            A = Σ a_c, all terms ≥ 0
    grad_c = B·e_c/s − a_c                                   B = A + 2·λ·lse

Only the entry of the largest logit can cancel; it is written as (B − a) − B·others/s where that
is smaller. The parallel functions only deal ranges of rows out to threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types
from numba.core import event

from xentcli.dtypes import Array
from xentcli.kernels import Scalars
from xentcli.kernels.cache import prepare

# NumPy's rules for division by zero; never fastmath: NaN and infinity have a meaning here.
_inner = njit(error_model="numpy", nogil=True)

# Numba's workqueue layer aborts the process when two threads run parallel kernels at once.
_ONE_AT_A_TIME = RLock()


@_inner
def add(high, low, value):
    """Add to a sum that carries its rounding error."""
    total = high + value
    shadow = total - high
    return total, low + ((high - (total - shadow)) + (value - shadow))


@_inner
def below(peak, score, divisor):
    """(peak − score) / divisor as a rounded number and its error; no error where it is inf."""
    high = peak - score
    shadow = high - peak
    low = (peak - (high - shadow)) + (-score - shadow)
    low = low if low == low else 0.0
    if divisor == 1.0:
        return high, low
    quotient = high / divisor
    return quotient, (remainder(high, quotient, divisor) + low) / divisor


@_inner
def power_of_two(n):
    """2ⁿ for the exponents of normal numbers."""
    return np.int64((n + 1023) << 52).view(np.float64)


@_inner
def exp_below(gap, error):
    """exp(−gap − error) for gap ≥ 0, within 0.6 ULP; subnormal results included.

    −gap = n·ln 2 + r, |r| ≤ ln 2 / 2; the Taylor polynomial of degree 13 leaves out 4e-18. It
    is written here because a call to the C library's exp keeps the loop scalar, and cost 150 ns
    instead of 8 where 256-bit conversions stood beside it.
    """
    error = error if gap < 746.0 else 0.0  # of a gap of 1e16 the error alone is 1
    gap = min(gap, 746.0)  # beyond, exp is 0; and 2ⁿ stays in range
    n = np.rint(gap * -1.4426950408889634)
    high = -gap - n * 6.93147180369123816490e-01
    low = n * 1.90821492927058770002e-10 + error
    r = high - low
    r_low = (high - r) - low
    t = 1.6059043836821613e-10
    t = t * r + 2.08767569878681e-09
    t = t * r + 2.505210838544172e-08
    t = t * r + 2.755731922398589e-07
    t = t * r + 2.7557319223985893e-06
    t = t * r + 2.48015873015873e-05
    t = t * r + 0.0001984126984126984
    t = t * r + 0.001388888888888889
    t = t * r + 0.008333333333333333
    t = t * r + 0.041666666666666664
    t = t * r + 0.16666666666666666
    t = t * r + 0.5
    e = 1.0 + (r + (r_low + r * r * t))
    k = np.int64(n)
    half = k >> 1
    return e * power_of_two(half) * power_of_two(k - half)


@_inner
def remainder(value, quotient, divisor):
    """value − quotient·divisor, exactly (Dekker); 0 where the factors are too large to split."""
    if abs(value) > 1e290 or abs(quotient) > 1e290 or divisor > 1e290:
        return 0.0
    shifted = quotient * 134217729.0
    q_high = shifted - (shifted - quotient)
    q_low = quotient - q_high
    shifted = divisor * 134217729.0
    d_high = shifted - (shifted - divisor)
    d_low = divisor - d_high
    return (
        ((value - q_high * d_high) - q_high * d_low) - q_low * d_high
    ) - q_low * d_low


@_inner
def capped(x, scalars):
    """The logit after the softcap, whose temperature is then used up."""
    return scalars.softcap * math.tanh(x / scalars.temperature / scalars.softcap)


@_inner
def read_row(x, scalars, z):
    """Copy a row to z, capped where asked, and find its largest entry; −1 for a NaN row."""
    has_cap = scalars.softcap < math.inf
    top, peak, bad = 0, -math.inf, False
    for c in range(len(x)):
        value = np.float64(x[c])
        if has_cap:
            value = capped(value, scalars)
        z[c] = value
        bad |= value != value
        if value > peak:
            top, peak = c, value
    if bad or not abs(peak) < math.inf:
        return -1
    return top


@_inner
def exponentials(z, top, divisor):
    """Replace z by exp(z − max z); return the sum without the largest."""
    peak = z[top]
    for c in range(len(z)):
        gap, error = below(peak, z[c], divisor)
        z[c] = exp_below(gap, error)
    high, low = 0.0, 0.0
    for c in range(len(z)):
        if c != top:
            high, low = add(high, low, z[c])
    return high + low


@_inner
def at_top(b, a, b_rest, others):
    """B·p − a at the largest logit, where p = 1/s: the form that cancels less."""
    s = 1.0 + others
    if abs(b_rest) + abs(b) * others / s < abs(b) / s + abs(a):
        return b_rest - b * (others / s)
    return b / s - a


@_inner
def slope(x, scalars):
    """dz/dx for a capped logit, times the temperature: 1 − tanh², without cancellation."""
    return math.cosh(x / scalars.temperature / scalars.softcap) ** -2.0


@_inner
def finish(x, scalars, scale, grad):
    """Multiply a row by its scale and by dz/dx; + 0.0 turns −0.0 into 0.0."""
    if scalars.softcap < math.inf:
        for c in range(len(grad)):
            grad[c] = grad[c] * (slope(np.float64(x[c]), scalars) * scale) + 0.0
    else:
        for c in range(len(grad)):
            grad[c] = grad[c] * scale + 0.0


@_inner
def index_row(x, y, weight, weight_sum, scalars, z):
    """Loss and log-sum-exp of one row; z becomes the unscaled gradient."""
    top = read_row(x, scalars, z)
    if top < 0:
        z[:] = math.nan
        return math.nan, math.nan
    peak = z[top]
    divisor = 1.0 if scalars.softcap < math.inf else scalars.temperature
    even = scalars.label_smoothing / len(x)
    hot = (1.0 - scalars.label_smoothing) * weight[y]
    gap, error = below(peak, z[y], divisor)
    distance = hot * gap + hot * error if hot != 0.0 else 0.0
    if even > 0.0:
        high, low = 0.0, 0.0
        for c in range(len(z)):
            if weight[c] != 0.0:
                high, low = add(high, low, weight[c] * below(peak, z[c], divisor)[0])
        distance += even * high if high == math.inf else even * (high + low)
    others = exponentials(z, top, divisor)
    lse = peak / divisor + math.log1p(others)
    a = hot + even * weight_sum
    loss = a * math.log1p(others) + distance + scalars.z_loss * lse * lse
    extra = 2.0 * scalars.z_loss * lse
    b = a + extra
    a_top = even * weight[top] + (hot if top == y else 0.0)
    a_rest = even * (weight_sum - weight[top]) + (0.0 if top == y else hot)
    factor = b / (1.0 + others)
    for c in range(len(z)):
        z[c] *= factor
    if even > 0.0:
        for c in range(len(z)):
            z[c] -= even * weight[c]
    z[y] -= hot
    z[top] = at_top(b, a_top, a_rest + extra, others)
    return loss + 0.0, lse


@_inner
def mass(q, c, weight, scalars, even):
    """a_c = w_c·((1 − ε)·q_c + ε/C)."""
    return weight[c] * ((1.0 - scalars.label_smoothing) * q[c] + even)


@_inner
def prob_row(x, q, weight, scalars, z):
    """Loss and log-sum-exp of one row with a probability per class; z becomes the gradient."""
    top = read_row(x, scalars, z)
    if top < 0:
        z[:] = math.nan
        return math.nan, math.nan
    peak = z[top]
    divisor = 1.0 if scalars.softcap < math.inf else scalars.temperature
    even = scalars.label_smoothing / len(x)
    rest, rest_low, high, low = 0.0, 0.0, 0.0, 0.0
    for c in range(len(z)):
        a = mass(q, c, weight, scalars, even)
        if a != 0.0:
            high, low = add(high, low, a * below(peak, z[c], divisor)[0])
        if c != top:
            rest, rest_low = add(rest, rest_low, a)
    distance = high + low if abs(high) < math.inf else high
    others = exponentials(z, top, divisor)
    lse = peak / divisor + math.log1p(others)
    a_top = mass(q, top, weight, scalars, even)
    a_rest = rest + rest_low
    loss = (a_rest + a_top) * math.log1p(others) + distance + scalars.z_loss * lse * lse
    extra = 2.0 * scalars.z_loss * lse
    b = a_rest + a_top + extra
    factor = b / (1.0 + others)
    for c in range(len(z)):
        z[c] = z[c] * factor - mass(q, c, weight, scalars, even)
    z[top] = at_top(b, a_top, a_rest + extra, others)
    return loss + 0.0, lse


@_inner
def write_row(x, z, scalars, scale, grad):
    """The gradient of one row in the caller's buffer, which may be x itself."""
    finish(x, scalars, scale / scalars.temperature, z)
    for c in range(len(z)):
        grad[c] = z[c]


@_inner
def index_range(logits, targets, weight, scale, scalars, loss, lse, grad):
    """A range of rows with one class index each."""
    z = np.empty(logits.shape[1])
    weight_sum = weight.sum()
    for i in range(len(logits)):
        if targets[i] < 0:
            loss[i], lse[i] = 0.0, math.nan
            if len(grad):
                grad[i] = 0.0
            continue
        loss[i], lse[i] = index_row(logits[i], targets[i], weight, weight_sum, scalars, z)
        if len(grad):
            write_row(logits[i], z, scalars, scale[i], grad[i])


@_inner
def prob_range(logits, targets, weight, scale, scalars, loss, lse, grad):
    """A range of rows with a probability for each class."""
    z = np.empty(logits.shape[1])
    for i in range(len(logits)):
        loss[i], lse[i] = prob_row(logits[i], targets[i], weight, scalars, z)
        if len(grad):
            write_row(logits[i], z, scalars, scale[i], grad[i])


@_inner
def softmax_range(logits, scalars, log, out):
    """A range of rows: probabilities, or their logarithms −d_c − log s."""
    z = np.empty(logits.shape[1])
    divisor = 1.0 if scalars.softcap < math.inf else scalars.temperature
    for i in range(len(logits)):
        top = read_row(logits[i], scalars, z)
        if top < 0:
            out[i] = math.nan
            continue
        peak = z[top]
        if log:
            out_row = z.copy()
        others = exponentials(z, top, divisor)
        for c in range(len(z)):
            if log:
                gap, error = below(peak, out_row[c], divisor)
                out[i, c] = 0.0 - (gap + (math.log1p(others) + error))
            else:
                out[i, c] = z[c] / (1.0 + others)


def index_rows(parts, logits, targets, weight, scale, scalars, loss, lse, grad):
    """Deal rows out to threads; a gradient without rows stays so."""
    n = len(logits)
    for part in prange(parts):
        a, b = part * n // parts, (part + 1) * n // parts
        index_range(
            logits[a:b], targets[a:b], weight, scale[a:b], scalars, loss[a:b], lse[a:b], grad[a:b]
        )


def prob_rows(parts, logits, targets, weight, scale, scalars, loss, lse, grad):
    """Deal rows out to threads; a gradient without rows stays so."""
    n = len(logits)
    for part in prange(parts):
        a, b = part * n // parts, (part + 1) * n // parts
        prob_range(
            logits[a:b], targets[a:b], weight, scale[a:b], scalars, loss[a:b], lse[a:b], grad[a:b]
        )


def softmax_rows(parts, logits, scalars, log, out):
    """Deal rows out to threads."""
    n = len(logits)
    for part in prange(parts):
        a, b = part * n // parts, (part + 1) * n // parts
        softmax_range(logits[a:b], scalars, log, out[a:b])


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba types. What comes before the scalars is input, and may be read-only memory."""
    scalars = next(i for i, value in enumerate(arguments) if isinstance(value, Scalars))
    return tuple(
        types.Array(numba.from_dtype(value.dtype), value.ndim, "C", readonly=i < scalars)
        if isinstance(value, np.ndarray)
        else numba.typeof(value)
        for i, value in enumerate(arguments)
    )


@cache
def _compiled(function: Callable[..., None], signature: tuple[Any, ...]) -> Callable[..., None]:
    """One specialisation, from the cache folder or compiled now."""
    options = {"parallel": True, "nogil": True, "error_model": "numpy"}
    path = prepare()
    if path is None:
        return njit([signature], **options)(function)  # type: ignore[no-any-return] # untyped
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(path)
    try:
        return njit([signature], cache=True, **options)(function)  # type: ignore[no-any-return]
    finally:
        numba.config.CACHE_DIR = before


class _Listener(event.Listener):
    """Says once that a compilation has begun."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.say = say

    def on_start(self, event: Any) -> None:
        """The outermost of the nested compilations comes first."""
        if self.say:
            self.say("compiling the kernel, a few seconds, once for this kind of job")
            self.say = None

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


class CpuBackend:
    """The kernels as a backend."""

    name = "cpu"
    block = 1 << 22  # logits: 16 MiB of float32, far below the 200 ms that Ctrl-C may wait

    def __init__(
        self, threads: int | None = None, notify: Callable[[str], None] | None = None
    ) -> None:
        self.threads = min(threads or numba.config.NUMBA_NUM_THREADS, numba.config.NUMBA_NUM_THREADS)
        self.notify = notify

    def index_rows(self, *buffers: Any) -> None:
        """Rows with one class index each."""
        self._run(index_rows, *buffers)

    def prob_rows(self, *buffers: Any) -> None:
        """Rows with a probability for each class."""
        self._run(prob_rows, *buffers)

    def softmax_rows(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        self._run(softmax_rows, logits, scalars, log, out)

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        parts = min(len(arguments[0]), 4 * self.threads)
        with _ONE_AT_A_TIME, event.install_listener("numba:compile", _Listener(self.notify)):
            kernel = _compiled(function, _signature((parts, *arguments)))
            before = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                kernel(parts, *arguments)
            finally:
                numba.set_num_threads(before)
