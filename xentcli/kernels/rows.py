"""The CPU kernels: one row at a time, float64 inside, and ranges of rows.

One row of C logits goes through these steps, with d_c = (max z − z_c) ≥ 0 kept together with
its rounding error:

    e_c    = exp(−d_c)                 the largest is exactly 1
    others = Σ e_c without the largest, so that s = 1 + others and log s = log1p(others)
    loss   = A·log1p(others) + Σ a_c·d_c + λ·lse²            A = Σ a_c, all terms ≥ 0
    grad_c = B·e_c/s − a_c                                   B = A + 2·λ·lse

Only the entry of the largest logit can cancel; it is written as (B − a) − B·others/s where that
is smaller.
"""

from __future__ import annotations

import math

import numpy as np

from xentcli.kernels.arithmetic import add, below, compiled, exp_below


@compiled
def capped(x, scalars):
    """The logit after the softcap, whose temperature is then used up."""
    return scalars.softcap * math.tanh(x / scalars.temperature / scalars.softcap)


@compiled
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
    if bad or not abs(peak / scalars.temperature) < math.inf:
        return -1
    return top


@compiled
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


@compiled
def at_top(b, a, b_rest, others):
    """B·p − a at the largest logit, where p = 1/s: the form that cancels less."""
    s = 1.0 + others
    if abs(b_rest) + abs(b) * others / s < abs(b) / s + abs(a):
        return b_rest - b * (others / s)
    return b / s - a


@compiled
def slope(x, scalars):
    """dz/dx for a capped logit, times the temperature: 1 − tanh², without cancellation."""
    return math.cosh(x / scalars.temperature / scalars.softcap) ** -2.0


@compiled
def finish(x, scalars, scale, grad):
    """Multiply a row by its scale and by dz/dx; + 0.0 turns −0.0 into 0.0."""
    if scalars.softcap < math.inf:
        for c in range(len(grad)):
            grad[c] = grad[c] * (slope(np.float64(x[c]), scalars) * scale) + 0.0
    else:
        for c in range(len(grad)):
            grad[c] = grad[c] * scale + 0.0


@compiled
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
    a = hot + even * (weight_sum[0] + weight_sum[1])
    loss = a * math.log1p(others) + distance + scalars.z_loss * lse * lse
    extra = 2.0 * scalars.z_loss * lse
    b = a + extra
    a_top = even * weight[top] + (hot if top == y else 0.0)
    without_top = (weight_sum[0] - weight[top]) + weight_sum[1]
    a_rest = even * without_top + (0.0 if top == y else hot)
    factor = b / (1.0 + others)
    for c in range(len(z)):
        z[c] *= factor
    if even > 0.0:
        for c in range(len(z)):
            z[c] -= even * weight[c]
    z[y] -= hot
    z[top] = at_top(b, a_top, a_rest + extra, others)
    return loss + 0.0, lse


@compiled
def mass(q, c, weight, scalars, even):
    """a_c = w_c·((1 − ε)·q_c + ε/C)."""
    return weight[c] * ((1.0 - scalars.label_smoothing) * q[c] + even)


@compiled
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


@compiled
def write_row(x, z, scalars, scale, grad):
    """The gradient of one row in the caller's buffer, which may be x itself."""
    finish(x, scalars, scale / scalars.temperature, z)
    for c in range(len(z)):
        grad[c] = z[c]


@compiled
def index_range(logits, targets, weight, scale, scalars, loss, lse, grad):
    """A range of rows with one class index each."""
    z = np.empty(logits.shape[1])
    weight_sum = (0.0, 0.0)  # with its rounding error: one weight may dwarf all others
    for c in range(len(weight)):
        weight_sum = add(weight_sum[0], weight_sum[1], weight[c])
    for i in range(len(logits)):
        if targets[i] < 0:
            loss[i], lse[i] = 0.0, math.nan
            if len(grad):
                grad[i] = 0.0
            continue
        loss[i], lse[i] = index_row(logits[i], targets[i], weight, weight_sum, scalars, z)
        if len(grad):
            write_row(logits[i], z, scalars, scale[i], grad[i])


@compiled
def prob_range(logits, targets, weight, scale, scalars, loss, lse, grad):
    """A range of rows with a probability for each class."""
    z = np.empty(logits.shape[1])
    for i in range(len(logits)):
        loss[i], lse[i] = prob_row(logits[i], targets[i], weight, scalars, z)
        if len(grad):
            write_row(logits[i], z, scalars, scale[i], grad[i])


@compiled
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
