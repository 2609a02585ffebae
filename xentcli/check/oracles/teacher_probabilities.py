"""The teacher's probabilities as oracles have them, to twice the digits of float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.oracles.dd_arithmetic import (
    Pair,
    choose,
    divide,
    exp,
    log,
    pair,
    scaled,
    subtract,
    total,
)
from xentcli.check.oracles.double_double import pair_softmax, shifted
from xentcli.check.oracles.teacher_rows import StoredClasses
from xentcli.engine.teacher.task import TeacherTask


class TeacherProbabilities(NamedTuple):
    """ln q and q by class, −∞ and 0 where none is stored, and r, (n, 1)."""

    log_q: Pair
    q: Pair
    rest: Pair


def probabilities(task: TeacherTask, teacher: StoredClasses) -> TeacherProbabilities:
    """The teacher's probabilities of the stored classes, and of all others."""
    values, stored, rest = teacher
    log_q, q = _stored(task, values, stored)
    captured, tail = total(q).at(..., None), task.options.tail
    if tail in ("subset", "teacher"):
        finite = np.isfinite(log_q.high)
        log_q = choose(finite, subtract(log_q, log(captured)), log_q)
        q = divide(q, captured)
    r = pair(np.zeros((len(q.high), 1)))
    if task.top and task.kind in ("log-probs", "probs") and tail in ("bucket", "uniform"):
        r = subtract(pair(1.0), captured)
        if task.has_rest:
            r = pair(rest[:, None])
            r = scaled(*exp(r)) if task.kind == "log-probs" else r
        r = choose((r.high > 0) & ~stored.all(axis=1, keepdims=True), r, pair(0.0))
    return TeacherProbabilities(choose(stored, log_q, pair(-np.inf)), q, r)


def _stored(task: TeacherTask, values: Array, stored: Array) -> tuple[Pair, Pair]:
    """ln q and q by their kind; 0 where none is stored."""
    if task.kind == "logits":
        z = np.where(stored, values, -np.inf)
        s = pair_softmax(shifted(z, task.scalars.teacher_temperature, None))
        return -s.neg_log_p, scaled(s.p, s.p_power)
    if task.kind == "log-probs":
        q = scaled(*exp(pair(np.where(stored, values, -np.inf))))
        return pair(values), choose(stored, q, pair(0.0))
    q = pair(np.where(stored, values, 0.0))
    if task.kind == "counts":
        q = divide(q, total(q).at(..., None))
    return log(q), q
