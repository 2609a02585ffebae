"""The exact loss against a teacher, and its gradient, to twice the digits of float64.

It follows the tables of the definitions, and the chain rule through the softmax:

    ce          −Σ w·q·ln p                   f = −w·q / p
    forward-kl  Σ w·q·(ln q − ln p)           f = −w·q / p
    reverse-kl  Σ p·(ln p − ln q)             f = ln p − ln q + 1
    jsd         β·Σ q·(ln q − ln m) + (1 − β)·Σ p·(ln p − ln m)     f = (1 − β)·(ln p − ln m)
    ∂L/∂s_c = p_c·(f_c − Σ p·f)

over the classes, or groups of them, that the tail compares; m = β·q + (1 − β)·p. A class of a
group has the f of the group, and one that is not compared has 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.oracles.dd_arithmetic import (
    LN2,
    Pair,
    add,
    choose,
    constant,
    divide,
    log,
    multiply,
    pair,
    scaled,
    subtract,
    total,
)
from xentcli.check.oracles.double_double import (
    ERROR_BOUND,
    DoubleDoubleOracle,
    PairSoftmax,
    ShiftedLogits,
    pair_softmax,
    shifted,
)
from xentcli.check.oracles.rows import FloatRows, OracleResult, Scale, scatter
from xentcli.check.oracles.teacher_probabilities import TeacherProbabilities, probabilities
from xentcli.check.oracles.teacher_rows import StoredClasses, padded
from xentcli.engine.teacher.task import TeacherTask
from xentcli.options import LossOptions
from xentcli.records import dataclass

LOST = 2.0**-1000  # what is smaller has no second word
LOWEST = -(1 << 20)  # a power of two below all others


class Compared(NamedTuple):
    """What is compared, (n, T): the classes, and a group of others as the last of T = C + 1."""

    log_p: Pair
    p: Pair
    log_q: Pair
    q: Pair
    weight: Array

    def beside(self, other: Compared) -> Compared:
        """These and others."""
        return Compared(
            _joined(self.log_p, other.log_p),
            _joined(self.p, other.p),
            _joined(self.log_q, other.log_q),
            _joined(self.q, other.q),
            np.hstack([self.weight, other.weight]),
        )


def _joined(a: Pair, b: Pair) -> Pair:
    """Columns beside each other."""
    return Pair(np.hstack([a.high, b.high]), np.hstack([a.low, b.low]))


class Differences(NamedTuple):
    """The value of each row, f and w·q; the size of what a value, and each f, is made of."""

    value: Pair
    f: Pair | None  # None where w·q says it all
    pull: Pair
    size: Array
    f_size: Array


@dataclass(frozen=True)
class TeacherOracle:
    """The oracle of a loss against a teacher; `hard` is that of the hard targets, with an alpha."""

    options: LossOptions
    scale: Scale
    task: TeacherTask
    hard: DoubleDoubleOracle | None = None
    name = "double-double"

    def __call__(self, rows: FloatRows) -> OracleResult:
        """Gradient and losses; NaN in rows that have no answer, zero in those that are ignored."""
        assert rows.teacher
        with np.errstate(all="ignore"):
            x = padded(rows.x, rows.teacher.values.shape[1])
            usable = rows.present & self._has_softmax(x) & self._has_q(rows.teacher)
            inner = self._usable(rows.some(usable), x[usable])
            found = scatter(inner, rows, usable)
            return self._with_hard(found, rows) if self.hard else found

    def _has_softmax(self, x: Array) -> Array:
        top = x.max(axis=1, initial=-np.inf)
        return np.asarray(np.isfinite(top) if self.options.softcap is None else ~np.isnan(top))

    def _has_q(self, teacher: StoredClasses) -> Array:
        """Which rows' teachers are a distribution, or part of one."""
        values = np.where(teacher.stored, teacher.values, -np.inf)
        if self.task.kind == "logits":
            return np.asarray(np.isfinite(values.max(axis=1, initial=-np.inf)))
        return np.asarray(~(np.isnan(values) | (values == np.inf)).any(axis=1))

    def _with_hard(self, soft: OracleResult, rows: FloatRows) -> OracleResult:
        """The sum with what alpha leaves of the cross-entropy with the hard targets.

        The losses of both are for the denominator of the first.
        """
        assert self.hard
        hard, share = self.hard(rows), pair(self.task.hard_share)
        ratio = divide(self.scale.denominator, self.hard.scale.denominator)
        size = soft.size + hard.size * share.high
        return soft._replace(
            grad=add(soft.grad, multiply(hard.grad, share)),
            size=size,
            error_bound=soft.error_bound + hard.error_bound,
            losses=_plus(soft.losses, multiply(multiply(hard.losses, share), ratio)),
        )

    def _usable(self, rows: FloatRows, x: Array) -> OracleResult:
        assert rows.teacher
        stored, classes = rows.teacher.stored, rows.x.shape[1]
        logits, s = self._student(x, stored)
        taught = probabilities(self.task, rows.teacher)
        both, share, compared = _compared(self.task, s, taught, (stored, rows.weight))
        d = differences(self.task, both)
        grad, size = _gradient(s, share, d, both, compared)
        scale, power = self.scale.of(rows)
        factor = multiply(multiply(logits.slope, scale.at(..., None)), pair(self.task.factor))
        power = logits.power + power[:, None]
        grad = scaled(multiply(grad, factor), power).at(..., slice(classes))
        size = scaled(pair(size * np.abs(factor.high)), power).high[:, :classes]
        broken = np.isinf(d.value.high)[:, None] & (self.task.options.divergence == "reverse-kl")
        size = np.where(broken, 0.0, size)
        weighted = multiply(multiply(d.value, pair(rows.sample_weight)), pair(self.task.factor))
        losses = d.value.high * rows.sample_weight * self.task.factor
        return OracleResult(
            choose(broken, pair(np.nan), grad),
            size,
            size * ERROR_BOUND + LOST,
            choose(np.isfinite(losses), weighted, pair(losses)),
            scaled(s.rest, s.rest_power).high.min(axis=1, initial=1.0),
        )

    def _student(self, x: Array, stored: Array) -> tuple[ShiftedLogits, PairSoftmax]:
        """The student's softmax: of the stored classes alone where both are renormalised."""
        subset = self.task.options.tail == "subset"
        x = np.where(stored, x, -np.inf) if subset else x
        logits = shifted(x, self.options.temperature, self.options.softcap)
        if subset:
            logits = logits._replace(masked=logits.masked | ~stored)
        return logits, pair_softmax(logits)


def _compared(
    task: TeacherTask,
    s: PairSoftmax,
    teacher: TeacherProbabilities,
    about: tuple[Array, Array],
) -> tuple[Compared, Pair, Array]:
    """What is compared; what a class is of its group; and which classes are compared at all."""
    (stored, weight), tail = about, task.options.tail
    log_p, p = -s.neg_log_p, scaled(s.p, s.p_power)
    w = np.ones(stored.shape)
    w[:, : len(weight)] = weight
    everything, log_q, q = np.full(stored.shape, True), teacher.log_q, teacher.q
    if tail == "uniform":
        even = divide(teacher.rest, pair(np.maximum((~stored).sum(axis=1), 1.0)[:, None]))
        q = choose(stored, q, even)
        log_q = choose(stored, log_q, log(even))
    both, share = Compared(log_p, p, log_q, q, w), pair(np.zeros(stored.shape))
    if tail not in ("bucket", "drop", "subset"):
        return both, share, everything
    zero = pair(0.0)
    none = pair(-np.inf)
    both = Compared(choose(stored, log_p, none), choose(stored, p, zero), log_q, q, w)
    if tail != "bucket":
        return both, share, stored
    log_mass, mass, share = _group(s, ~stored)
    group = Compared(log_mass, mass, log(teacher.rest), teacher.rest, np.ones((len(stored), 1)))
    return both.beside(group), share, stored


def _group(s: PairSoftmax, others: Array) -> tuple[Pair, Pair, Pair]:
    """ln of the probability of some classes together, that itself, and each one's share of it."""
    top = np.where(others & (s.p.high != 0), s.p_power, LOWEST).max(axis=1, keepdims=True)
    parts = choose(others, scaled(s.p, s.p_power - top), pair(0.0))
    mass = total(parts).at(..., None)
    log_mass = add(log(mass), multiply(constant(LN2), pair(top.astype(np.float64))))
    there = mass.high > 0
    log_mass = choose(there, log_mass, pair(-np.inf))
    return log_mass, scaled(mass, top), choose(there & others, divide(parts, mass), pair(0.0))


def differences(task: TeacherTask, both: Compared) -> Differences:
    """The value, and what the gradient is made of."""
    log_p, p, log_q, q, w = both
    divergence, zero = task.options.divergence, pair(0.0)
    has_p, has_q = (np.isfinite(a.high) for a in (log_p, log_q))
    size_p, size_q = (np.where(np.isfinite(a.high), np.abs(a.high), 0.0) for a in (log_p, log_q))
    if divergence in ("ce", "forward-kl"):
        a, kl = multiply(q, pair(w)), divergence == "forward-kl"
        cost = subtract(log_q, log_p) if kl else -log_p
        value = _sum(a, cost, ~has_p & (a.high != 0))
        size = (np.abs(a.high) * (size_p + kl * size_q)).sum(axis=1)
        return Differences(value, None, a, size, np.zeros_like(w))
    if divergence == "reverse-kl":
        x = choose(has_p & has_q, subtract(log_p, log_q), zero)
        endless = np.any(has_p & ~has_q, axis=1)
        value = choose(np.asarray(endless), pair(np.inf), total(multiply(p, x)))
        size = (p.high * (size_p + size_q)).sum(axis=1)
        f = choose(has_p, add(x, pair(1.0)), zero)
        return Differences(value, f, zero, size, size_p + size_q + 1 + size[:, None])
    return _jsd(both, pair(task.scalars.beta), (size_p, size_q))


def _jsd(both: Compared, of_q: Pair, sizes: tuple[Array, Array]) -> Differences:
    """The same for jsd."""
    log_p, p, log_q, q, _ = both
    (size_p, size_q), zero = sizes, pair(0.0)
    of_p = subtract(pair(1.0), of_q)
    a, b = multiply(of_q, q), multiply(of_p, p)
    m = add(a, b)
    log_m = choose(m.high > 0, log(m), zero)
    u = choose(p.high != 0, subtract(log_p, log_m), zero)
    v = choose(q.high != 0, subtract(log_q, log_m), zero)
    value = add(total(multiply(a, v)), total(multiply(b, u)))
    size_m = np.abs(log_m.high)
    size = (a.high * (size_q + size_m) + b.high * (size_p + size_m)).sum(axis=1)
    return Differences(value, multiply(of_p, u), zero, size, size_p + size_q + 1 + size[:, None])


def _sum(a: Pair, b: Pair, endless: Array) -> Pair:
    """Σ a·b, infinite where b is."""
    infinite = np.where(endless, a.high * np.inf, 0.0).sum(axis=1)
    value = total(choose(endless | (a.high == 0), pair(0.0), multiply(a, b)))
    return choose(infinite != 0, pair(infinite), value)


def _gradient(
    s: PairSoftmax, share: Pair, d: Differences, both: Compared, compared: Array
) -> tuple[Pair, Array]:
    """∂L/∂s and the size of its terms."""
    classes, zero = compared.shape[1], pair(0.0)
    p = scaled(s.p, s.p_power)
    grouped = both.p.high.shape[1] > classes

    def spread(a: Pair, times: Pair) -> Pair:
        """What each class has: its own, or of its group's."""
        own = choose(compared, Pair(*np.broadcast_arrays(*a)).at(..., slice(classes)), zero)
        if not grouped:
            return own
        return choose(compared, own, multiply(a.at(..., slice(classes, None)), times))

    if d.f is not None:
        mean = total(multiply(both.p, d.f)).at(..., None)
        f = spread(d.f, pair(np.ones_like(p.high)))
        last = d.f_size[:, -1:] if grouped else 1.0
        f_size = np.where(compared, d.f_size[:, :classes], last)
        return multiply(p, subtract(f, mean)), p.high * f_size
    mass = total(d.pull).at(..., None)
    pull = spread(d.pull, share)
    size = p.high * np.abs(d.pull.high).sum(axis=1, keepdims=True) + np.abs(pull.high)
    return subtract(multiply(p, mass), pull), size


def _plus(a: Pair, b: Pair) -> Pair:
    """a + b, which may be infinite."""
    high = a.high + b.high
    return choose(np.isfinite(high), add(a, b), pair(high))
