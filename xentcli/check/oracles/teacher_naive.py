"""The loss against a teacher and its gradient in plain arithmetic: a measure of its precision.

In float64 it makes the gradients and losses that mistakes lead to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, widen
from xentcli.check.oracles.naive import (
    NaiveGradient,
    NaiveSoftmax,
    loss_error,
    naive_gradient,
    naive_losses,
    naive_softmax,
    working,
)
from xentcli.check.oracles.rows import FloatRows, GradientSpec
from xentcli.check.oracles.teacher_rows import StoredClasses, padded
from xentcli.engine.teacher.task import TeacherTask
from xentcli.options import LossOptions


class NaiveTeacher(NamedTuple):
    """The gradient and the losses, before the reduction, and the sizes of their terms.

    `loss_rounding` is the size of what goes into the losses, logits and log-sum-exp too.
    """

    grad: Array
    size: Array
    losses: Array
    loss_size: Array
    loss_rounding: Array
    subtracted: Array

    @property
    def gradient(self) -> NaiveGradient:
        """The gradient alone."""
        return NaiveGradient(self.grad, self.size, self.subtracted)

    def allowed_loss(self, exact: Array, spec: GradientSpec) -> Array:
        """How far off plain arithmetic may be from the exact losses."""
        return loss_error(self.losses, self.loss_rounding, exact, working(spec.finfo))


class _Compared(NamedTuple):
    """The classes, and with a bucket all others as one more; sizes of what ln p is made of."""

    log_p: Array
    p: Array
    log_q: Array
    q: Array
    weight: Array
    log_p_size: Array
    q_size: Array


class _Slopes(NamedTuple):
    """The value, its size and rounding; p·∂L/∂p, and the size of it."""

    value: Array
    size: Array
    rounding: Array
    pull: Array
    pull_size: Array


def naive_teacher(rows: FloatRows, spec: GradientSpec) -> NaiveTeacher:
    """In the arithmetic of the gradient's dtype; in float32 for float16 and bfloat16."""
    assert rows.teacher
    assert spec.teacher
    task, dtype, classes = spec.teacher.task, working(spec.finfo).dtype, rows.x.shape[1]
    with np.errstate(all="ignore"):
        x = padded(rows.x, rows.teacher.values.shape[1])
        kept = rows.teacher.stored if task.options.tail == "subset" else None
        s = naive_softmax(x, spec.options, dtype, kept)
        both, share = _compared(task, s, rows.teacher, rows.weight.astype(dtype))
        d = _differences(task, both)
        size = _size(d, s, share)
        if kept is not None:  # of a softmax over all classes something is left in the others
            size = np.where(kept, size, _size(d, naive_softmax(x, spec.options, dtype), share))
        factor = _factor(rows, spec, task).astype(dtype)
        mass = d.pull.sum(axis=1, keepdims=True)
        grad = (_spread(d.pull, share) - s.p * mass) * s.slope * factor
        weight = rows.sample_weight * task.factor
        soft = NaiveTeacher(
            _wide(grad[:, :classes], rows.present),
            _wide((size * s.bend * np.abs(factor))[:, :classes], rows.present),
            _wide(d.value * weight, rows.present),
            _wide(d.size * np.abs(weight), rows.present),
            _wide(d.rounding * np.abs(weight), rows.present),
            (both.q[:, :classes] > 0) & rows.teacher.stored[:, :classes],
        )
        return _with_hard(soft, rows, spec)


def _factor(rows: FloatRows, spec: GradientSpec, task: TeacherTask) -> Array:
    """What multiplies each row's gradient, (n, 1)."""
    row, power = spec.scale.of(rows)
    return np.asarray((np.ldexp(row.high, power) * task.factor)[:, None])


def _size(d: _Slopes, s: NaiveSoftmax, share: Array) -> Array:
    """The size of what ∂L/∂s is made of."""
    mass = d.pull_size.sum(axis=1, keepdims=True)
    return np.asarray(_spread(d.pull_size, share) + s.p * (1 + s.exponent / 2) * mass)


def _wide(values: Array, present: Array) -> Array:
    """Rows in float64, zero where they are ignored."""
    wide = widen(values, NAMES["f64"])
    return np.where(present.reshape(-1, *[1] * (wide.ndim - 1)), wide, 0.0)


def _with_hard(soft: NaiveTeacher, rows: FloatRows, spec: GradientSpec) -> NaiveTeacher:
    """The sum with what alpha leaves of the cross-entropy with the hard targets."""
    hard = hard_spec(spec)
    if hard is None or spec.teacher is None:
        return soft
    share = spec.teacher.task.hard_share
    g, losses = naive_gradient(rows, hard), naive_losses(rows, hard)
    weight = share * float(spec.scale.denominator.high / hard.scale.denominator.high)
    return NaiveTeacher(
        soft.grad + share * g.grad,
        soft.size + share * g.size,
        soft.losses + weight * losses.losses,
        soft.loss_size + abs(weight) * losses.size,
        soft.loss_rounding + abs(weight) * losses.size,
        soft.subtracted | g.subtracted,
    )


def hard_spec(spec: GradientSpec) -> GradientSpec | None:
    """The cross-entropy with the hard targets, if alpha leaves any of it."""
    teacher = spec.teacher
    if teacher is None or not teacher.task.hard_share:
        return None
    return GradientSpec(replace(spec.options, temperature=1.0), teacher.hard_scale, spec.finfo)


def _compared(
    task: TeacherTask, s: NaiveSoftmax, teacher: StoredClasses, weight: Array
) -> tuple[_Compared, Array]:
    """What is compared, and each class's share of the bucket; −1 where it has a term itself."""
    tail, stored, dtype = task.options.tail, teacher.stored, s.p.dtype
    log_q, q, q_size = _stored(task, teacher, dtype)
    r, r_size = _rest(task, teacher, q)
    w = np.ones(stored.shape, dtype)
    w[:, : len(weight)] = weight
    parts = [s.z - s.lse, s.p, log_q, q, w, np.abs(s.z) + np.abs(s.lse), q_size]
    share = np.full(stored.shape, dtype.type(-1))
    if tail == "uniform":
        count = np.maximum((~stored).sum(axis=1, keepdims=True), 1)
        even = np.log(r / count), r / count, w, parts[5], r_size / count
        others = zip(parts[2:], even, strict=True)
        parts[2:] = [np.where(stored, *both).astype(dtype) for both in others]
    if tail in ("bucket", "drop", "subset"):
        parts[1] = np.where(stored, s.p, 0)
    if tail == "drop":
        share = np.where(stored, share, dtype.type(0))
    if tail == "bucket":
        p_r = np.where(stored, 0, s.p).sum(axis=1, keepdims=True)
        share = np.where(stored, share, np.where(p_r > 0, s.p / p_r, 0))
        more = np.log(p_r), p_r, np.log(r), r, np.ones_like(r), np.abs(np.log(p_r)), r_size
        parts = [np.hstack(both).astype(dtype) for both in zip(parts, more, strict=True)]
    return _Compared(*parts), share


def _stored(task: TeacherTask, teacher: StoredClasses, dtype: Any) -> tuple[Array, Array, Array]:
    """ln q and q of the stored classes, 0 for the others; the size of what goes into q."""
    values, stored = teacher.values.astype(dtype), teacher.stored
    if task.kind == "logits":
        options = LossOptions(temperature=task.scalars.teacher_temperature)
        s = naive_softmax(teacher.values, options, dtype, stored)
        log_q, q, size = s.z - s.lse, s.p, s.p * (1 + s.exponent / 2)
    elif task.kind == "log-probs":
        log_q = np.where(stored, values, -np.inf)
        q = np.exp(log_q)
        size = q * (1 + np.where(q > 0, np.abs(values), 0))
    else:
        q = np.where(stored, values, 0)
        q = q / q.sum(axis=1, keepdims=True) if task.kind == "counts" else q
        log_q, size = np.log(q), q
    if task.options.tail in ("subset", "teacher"):
        captured = q.sum(axis=1, keepdims=True)
        q, log_q, size = q / captured, log_q - np.log(captured), size / captured
    return log_q, q, size


def _rest(task: TeacherTask, teacher: StoredClasses, q: Array) -> tuple[Array, Array]:
    """r, (n, 1), and the size of what goes into it."""
    r = 1 - q.sum(axis=1, keepdims=True)
    size = np.ones_like(r)
    if task.has_rest:
        r = teacher.rest[:, None].astype(q.dtype)
        r = size = np.exp(r) if task.kind == "log-probs" else r
    whole = task.kind in ("logits", "counts") or teacher.stored.all(axis=1, keepdims=True)
    return np.where(whole, 0, np.maximum(r, 0)), np.where(whole, 0, size)


def _differences(task: TeacherTask, both: _Compared) -> _Slopes:
    log_p, p, log_q, q, w, log_p_size, q_size = both
    divergence, one = task.options.divergence, p.dtype.type(1)
    lp, lq = (np.where(np.isfinite(a), np.abs(a), 0) for a in (log_p, log_q))
    rounding = np.where(np.isfinite(log_p_size), log_p_size, 0) + lq + one
    if divergence in ("ce", "forward-kl"):
        a, kl = w * q, one * (divergence == "forward-kl")
        cost = log_q - log_p if kl else -log_p
        value = np.where(q == 0, 0, a * cost).sum(axis=1)
        size, round_off = ((np.abs(a) * part).sum(axis=1) for part in (lp + kl * lq, rounding))
        return _Slopes(value, size, round_off, -a, np.abs(w) * q_size)
    if divergence == "reverse-kl":
        x = np.where(p == 0, 0, log_p - log_q)
        size, round_off = ((p * part).sum(axis=1) for part in (lp + lq, rounding))
        pull_size = p * (rounding + round_off[:, None])
        return _Slopes((p * x).sum(axis=1), size, round_off, p * (x + one), pull_size)
    beta = p.dtype.type(task.scalars.beta)
    m = beta * q + (one - beta) * p
    log_m = np.log(m)
    u, v = (np.where(a == 0, 0, b - log_m) for a, b in ((p, log_p), (q, log_q)))
    value = (beta * q * v + (one - beta) * p * u).sum(axis=1)
    lm = np.where(np.isfinite(log_m), np.abs(log_m), 0)
    size, round_off = ((m * (part + lm)).sum(axis=1) for part in (np.maximum(lp, lq), rounding))
    pull_size = p * (rounding + lm + round_off[:, None])
    return _Slopes(value, size, round_off, (one - beta) * p * u, pull_size)


def _spread(a: Array, share: Array) -> Array:
    """What each class has: its own, or its share of the bucket's."""
    own = a[:, : share.shape[1]]
    return np.asarray(np.where(share < 0, own, a[:, -1:] * np.maximum(share, 0)))
