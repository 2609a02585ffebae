"""The naive implementation, p − y in the precision of the data: the measure of plain precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, widen
from xentcli.check.oracles.rows import FloatRows, GradientSpec
from xentcli.check.oracles.ulp import FLOATS, FloatInfo
from xentcli.options import LossOptions

FLOOR = 2.0  # epsilons: weight, scale, quotient and difference are rounded by half of one each
FLUSHED = 16.0  # smallest numbers: exp is not exact down there


class NaiveGradient(NamedTuple):
    """A gradient, the size of the rounding that goes into it, and where it is a difference.

    p is as exact as the exponent that it is made of: exp(log p) as PyTorch has it is off by as
    many epsilons as log p is large, e / Σe by about half of that.
    """

    grad: Array
    size: Array
    subtracted: Array


def naive_gradient(rows: FloatRows, spec: GradientSpec) -> NaiveGradient:
    """The gradient of rows in the arithmetic of its dtype; in float32 for float16 and bfloat16."""
    options, scale, finfo = spec[:3]
    dtype = working(finfo).dtype
    classes = rows.x.shape[1]
    q, w = rows.q.astype(dtype), rows.weight.astype(dtype)
    a = w * (dtype.type(1 - options.label_smoothing) * q)
    a += w * dtype.type(options.label_smoothing / classes)
    s = naive_softmax(rows.x, options, dtype)
    mass = a.sum(axis=1, keepdims=True)
    z_loss = dtype.type(2 * options.z_loss * float(scale.ratio.high)) * s.lse
    row, power = scale.of(rows)
    factor = np.ldexp(row.high, power)[:, None].astype(dtype)
    grad = (s.p * mass - a + z_loss * s.p) * s.slope * factor
    exponent = s.p * (1 + s.exponent / 2)
    size = (exponent * (np.abs(mass) + np.abs(z_loss)) + np.abs(a)) * s.bend * np.abs(factor)
    grad[~rows.present], size[~rows.present] = 0.0, 0.0
    return NaiveGradient(widen(grad, NAMES["f64"]), widen(size, NAMES["f64"]), a != 0)


class NaiveLosses(NamedTuple):
    """The losses of rows, before the reduction, and the size of what goes into them."""

    losses: Array
    size: Array


def naive_losses(rows: FloatRows, spec: GradientSpec) -> NaiveLosses:
    """The losses in the same arithmetic; zero in rows that are ignored."""
    options, scale, finfo = spec[:3]
    dtype = working(finfo).dtype
    a = rows.weight * ((1 - options.label_smoothing) * rows.q)
    a = (a + rows.weight * options.label_smoothing / rows.x.shape[1]).astype(dtype)
    s = naive_softmax(rows.x, options, dtype)
    z_term = dtype.type(options.z_loss * float(scale.ratio.high)) * s.lse[:, 0] ** 2
    naive = np.where(a == 0, 0, a * (s.lse - s.z)).sum(axis=1) + z_term
    size = np.where(a == 0, 0, np.abs(a) * (np.abs(s.lse) + np.abs(s.z))).sum(axis=1) + z_term
    weighted = np.where(rows.present, np.abs(rows.sample_weight), 0.0)
    return NaiveLosses(*(widen(part, NAMES["f64"]) * weighted for part in (naive, size)))


def allowed_loss(rows: FloatRows, spec: GradientSpec, exact: Array) -> Array:
    """Twice the error of each row's naive loss, before the reduction; at least two epsilons."""
    return loss_error(*naive_losses(rows, spec), exact, working(spec.finfo))


def loss_error(naive: Array, size: Array, exact: Array, work: FloatInfo) -> Array:
    """Twice the error of naive losses; at least two epsilons of the size of their terms."""
    missed = np.abs(naive - exact)
    missed = np.where(np.isfinite(missed), missed, 0.0)
    least = FLOOR * work.epsilon * size
    return 2 * np.maximum(missed, np.where(np.isfinite(least), least, 0.0))


def working(finfo: FloatInfo) -> FloatInfo:
    """The dtype that naive arithmetic is done in."""
    return FLOATS["f64" if finfo.name == "float64" else "f32"]


class NaiveSoftmax(NamedTuple):
    """z, p, log-sum-exp, dz/dx, and the sizes of what the exponent of p and dz/dx are made of."""

    z: Array
    p: Array
    lse: Array
    slope: Array
    exponent: Array
    bend: Array


def naive_softmax(
    x: Array, options: LossOptions, dtype: Any, kept: Array | None = None
) -> NaiveSoftmax:
    """The softmax as it is usually written; of the classes that are kept."""
    t = dtype.type(options.temperature)
    z, bent = x.astype(dtype) / t, np.zeros((), dtype)
    if options.softcap is not None:
        bent = np.tanh(z / dtype.type(options.softcap))
        z = bent * dtype.type(options.softcap)
    z = z if kept is None else np.where(kept, z, -dtype.type(np.inf))
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    s = e.sum(axis=1, keepdims=True)
    lse = top + np.log(s)
    exponent = lse - z
    if options.softcap is not None or t != 1:  # z is rounded at its own size
        exponent = exponent + np.abs(z) + np.abs(top)
    squared = bent * bent + np.zeros_like(z)
    exponent = np.where(e > 0, exponent, 0)
    return NaiveSoftmax(z, e / s, lse, (1 - squared) / t, exponent, (1 + squared) / t)


def allowed_grad(rows: NaiveGradient, exact: Array, finfo: FloatInfo) -> Array:
    """Twice the row's largest error of the naive gradient, relative to the terms.

    Twice, because another order of adding is not a mistake; two epsilons at least, because a row
    may be lucky. Target entries, which a subtraction makes, are separate from the others. A
    16-bit gradient is rounded once, to a unit.
    """
    work = working(finfo)
    share = np.where(rows.size > 0, np.abs(rows.grad - exact) / rows.size, 0.0)
    share = np.where(np.isfinite(share), share, 0.0)
    result = np.full_like(share, FLUSHED * 2.0**finfo.smallest)
    for group in (rows.subtracted, ~rows.subtracted):
        worst = np.where(group, share, 0.0).max(axis=1, keepdims=True, initial=FLOOR * work.epsilon)
        result += np.where(group, 2 * worst * rows.size, 0.0)
    return result if finfo is work else np.asarray(result + finfo.unit(np.abs(exact)))
