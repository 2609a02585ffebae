"""Exact losses and gradients, special values included, and the sizes of the terms in them.

Written from the formulas of the semantics in mpmath, with nothing of the package. Numbers have an
unlimited exponent there, and NaN and infinity follow IEEE 754 from the operations themselves; the
only rules that are written down here are those that the semantics add to the formulas.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import mpmath

mp = mpmath.mp
DIGITS = 60  # every sum over "the other classes" is a sum of them: nothing cancels but the terms
DTYPES = {"f16": (11, -14), "bf16": (8, -126), "f32": (24, -126), "f64": (53, -1022)}


class Row(NamedTuple):
    """A loss and its gradient in two parts: that of the cross-entropy and that of the z-loss.

    The sizes are the sums of the absolute values of what each number is the sum of.
    """

    loss: Any
    z_loss: Any
    grad: list[Any]
    z_grad: list[Any]
    loss_size: Any
    z_loss_size: Any
    sizes: list[Any]
    z_sizes: list[Any]


class Exact(NamedTuple):
    """The results of some rows; `loss` is a list with reduction none."""

    loss: Any
    grad: list[list[Any]]
    loss_size: Any
    sizes: list[list[Any]]


def without(values):
    """For each value the sum of the others; those of the largest are added up."""
    largest = max(range(len(values)), key=lambda c: abs(values[c]))
    total = mp.fsum(values)
    rest = [total - v for v in values]
    rest[largest] = mp.fsum(v for c, v in enumerate(values) if c != largest)
    return rest


def _each(values, function):
    """A function of each value, computed once for those that are equal."""
    known = {}
    for v in values:
        if v not in known:
            known[v] = function(v)
    return [known[v] for v in values]


@cache
def row(x, target, weight, options) -> Row:
    """The results of one row of floats, for a class index or a tuple of probabilities."""
    o = {name: None if value is None else mp.mpf(value) for name, value in options}
    x, classes = [mp.mpf(v) for v in x], len(x)
    weight = [mp.mpf(v) for v in weight]
    slope = [1 / o["temperature"]] * classes
    z = [v / o["temperature"] for v in x]
    if o["softcap"] is not None:
        slope = _each(z, lambda v: mp.sech(v / o["softcap"]) ** 2 / o["temperature"])
        z = _each(z, lambda v: o["softcap"] * mp.tanh(v / o["softcap"]))
    if any(mp.isnan(v) for v in z) or mp.isinf(max(z)):
        nan = [mp.nan] * classes
        return Row(mp.nan, mp.nan, nan, nan, mp.nan, mp.nan, nan, nan)
    top = max(z)
    e = _each(z, lambda v: mp.exp(v - top))
    others, total = without(e), mp.fsum(e)
    p, rest = [v / total for v in e], [r / total for r in others]
    log_s = mp.log1p(others[z.index(top)])
    cost = [top - v + log_s for v in z]
    one_hot = isinstance(target, int)
    q = [mp.mpf(c == target if one_hot else target[c]) for c in range(classes)]
    eps, lam = o["label_smoothing"], 2 * o["z_loss"]
    a = [w * ((1 - eps) * q_c + eps / classes) for w, q_c in zip(weight, q, strict=True)]
    present = [(a_c, l_c) for a_c, l_c in zip(a, cost, strict=True) if a_c]  # 0·∞ is 0 here
    lse, lse_size = top + log_s, abs(top) + log_s
    terms = list(zip(p, without(a), a, rest, slope, strict=True))
    term_sizes = zip(p, without([abs(v) for v in a]), a, rest, slope, strict=True)
    return Row(
        loss=sum((a_c * l_c for a_c, l_c in present), mp.mpf(0)),
        z_loss=o["z_loss"] * lse**2,
        grad=[(p_c * others - a_c * r_c) * s for p_c, others, a_c, r_c, s in terms],
        z_grad=[lam * lse * p_c * s for p_c, s in zip(p, slope, strict=True)],
        loss_size=sum((abs(a_c * l_c) for a_c, l_c in present), mp.mpf(0)),
        z_loss_size=o["z_loss"] * lse_size**2,
        sizes=[(p_c * others + abs(a_c) * r_c) * s for p_c, others, a_c, r_c, s in term_sizes],
        z_sizes=[lam * lse_size * p_c * s for p_c, s in zip(p, slope, strict=True)],
    )


def denominators(targets, weight, v, options):
    """What the cross-entropy and the z-loss are divided by."""
    if options.get("reduction", "mean") != "mean":
        return mp.mpf(1), mp.mpf(1)
    if options.get("normalizer") is not None:
        return mp.mpf(options["normalizer"]), mp.mpf(options["normalizer"])
    counted = [(v_i, t) for v_i, t in zip(v, targets, strict=True) if t is not None]
    if not counted:
        return mp.mpf(1), mp.mpf(1)
    own = [v_i * (weight[t] if isinstance(t, int) else 1) for v_i, t in counted]
    return mp.fsum(own), mp.fsum(v_i for v_i, _ in counted)


def cross_entropy(logits, targets, digits=DIGITS, **options) -> Exact:
    """Loss and gradient of lists of floats, with the options of the package by their names."""
    with mp.workdps(digits):
        return _cross_entropy(logits, targets, options)


def _cross_entropy(logits, targets, options) -> Exact:
    classes, n = len(logits[0]), len(logits)
    scalars = {"label_smoothing": 0.0, "temperature": 1.0, "softcap": None, "z_loss": 0.0}
    scalars |= {name: options.get(name, value) for name, value in scalars.items()}
    o, plain = tuple(scalars.items()), options.get("weight")
    plain = (1.0,) * classes if plain is None else tuple(map(float, plain))
    weight = _numbers(options.get("weight"), classes)
    v = _numbers(options.get("sample_weight"), n)
    u = _numbers(options.get("upstream"), n)
    ignored = options.get("ignore_index", -100)
    targets = [None if t == ignored else _target(t) for t in targets]
    d_ce, d_z = denominators(targets, weight, v, options)
    losses, sizes, grad, grad_sizes = [], [], [], []
    for x, t, v_i, u_i in zip(logits, targets, v, u, strict=True):
        if t is None:
            losses, sizes = [*losses, mp.mpf(0)], [*sizes, mp.mpf(0)]
            grad.append([mp.mpf(0)] * classes)
            grad_sizes.append([mp.mpf(0)] * classes)
            continue
        r = row(tuple(map(float, x)), t, plain, o)
        if d_ce == 0:  # the row's own weight decides
            own = v_i * (weight[t] if isinstance(t, int) else 1)
            ce, z = (mp.mpf(0),) * 2 if own == 0 else (mp.nan,) * 2
        else:
            ce, z = u_i * v_i / d_ce, (u_i * v_i / d_z if d_z else mp.mpf(0))
        losses.append(v_i * (r.loss * _over(d_ce) + r.z_loss * _over(d_z)))
        sizes.append(abs(v_i) * (r.loss_size * abs(_over(d_ce)) + r.z_loss_size * abs(_over(d_z))))
        grad.append([ce * g + z * h for g, h in zip(r.grad, r.z_grad, strict=True)])
        both = zip(r.sizes, r.z_sizes, strict=True)
        grad_sizes.append([abs(ce) * g + abs(z) * h for g, h in both])
    if options.get("reduction", "mean") == "none":
        return Exact(losses, grad, sizes, grad_sizes)
    empty = all(t is None for t in targets) and options.get("normalizer") is None
    undefined = options.get("reduction", "mean") == "mean" and (empty or d_ce == 0)
    loss = mp.nan if undefined else sum(losses, mp.mpf(0))
    return Exact(loss, grad, sum(sizes, mp.mpf(0)), grad_sizes)


def _over(denominator):
    return 1 / denominator if denominator else mp.mpf(0)


def _numbers(values, count):
    """A number for each of a count: ones, one for all, or a list."""
    if values is None or isinstance(values, (int, float)):
        return [mp.mpf(1 if values is None else values)] * count
    return [mp.mpf(float(value)) for value in values]


def _target(t):
    return tuple(map(float, t)) if isinstance(t, (list, tuple)) else int(t)


def unit(size, dtype):
    """One unit in the last place of numbers of a size; of subnormal ones, the smallest number."""
    digits, lowest = DTYPES[dtype]
    exponent = mpmath.frexp(size)[1] - 1 if size else lowest
    return mpmath.ldexp(mp.mpf(1), max(exponent, lowest) - digits + 1)


def error(actual, exact, dtype, size=None, counted=None):
    """How far off a number in `dtype` is, in units in the last place at the exact one.

    With `size`, in units at that size, after the rounding of the number is taken off. Units are
    those of `counted`, by default of `dtype`, or of float32 for a size and a dtype of fewer bits.
    Infinity where one of them is not finite and the other one is not the same.
    """
    actual = float(actual)
    digits, lowest = DTYPES[dtype]
    largest = (2 - mpmath.ldexp(1, -digits)) * mpmath.ldexp(1, 1 - lowest)  # rounds to infinity
    if mp.isnan(exact):
        return 0.0 if math.isnan(actual) else math.inf
    if abs(exact) >= largest:
        exact = mp.inf * mp.sign(exact)
    if not math.isfinite(actual) or mp.isinf(exact):
        return 0.0 if actual == exact else math.inf
    off = abs(mp.mpf(actual) - exact)
    if size is None:
        return float(off / unit(abs(exact), counted or dtype))
    off = max(off - unit(abs(exact), dtype) / 2, mp.mpf(0))
    return float(off / unit(size, counted or ("f64" if dtype == "f64" else "f32")))


def log_softmax(x, temperature=1.0, softcap=None):
    """The probability and its logarithm of each class of one row."""
    with mp.workdps(DIGITS):
        z = [mp.mpf(v) / mp.mpf(temperature) for v in x]
        if softcap is not None:
            z = [mp.mpf(softcap) * mp.tanh(v / mp.mpf(softcap)) for v in z]
        if any(mp.isnan(v) for v in z) or mp.isinf(max(z)):
            return [(mp.nan, mp.nan)] * len(x)
        e = [mp.exp(v - max(z)) for v in z]
        best = max(range(len(z)), key=lambda c: z[c])
        log_s = mp.log1p(without(e)[best])
        return [(v / mp.fsum(e), w - max(z) - log_s) for v, w in zip(e, z, strict=True)]
