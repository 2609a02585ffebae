"""The oracle of losses against a teacher: one row in mpmath, from the tables of the definitions.

It imports nothing of the package. The gradient is a central difference of the value with 80 digits,
which is right to about 40 of them and knows no formula of a derivative.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mpmath

mp = mpmath.mp
DIGITS = 110
STEP = 45  # the difference is taken over 10⁻⁴⁵; its error is of the order of 10⁻⁹⁰


class Case(NamedTuple):
    """A row's teacher: what it stores by class, and the options by their names."""

    stored: dict[int, float]
    kind: str
    divergence: str
    tail: str | None = None
    beta: float | None = None
    temperature: float = 1.0
    teacher_temperature: float = 1.0
    rest: float | None = None
    weight: tuple[float, ...] | None = None


class Exact(NamedTuple):
    """A value, its gradient by the logits, and the sums of the sizes of what they are made of."""

    value: Any
    gradient: list[Any]
    size: Any
    sizes: list[Any]


KNOWN: dict[Any, Exact] = {}


def softmax(z):
    top = max(z)
    e = [mp.exp(v - top) for v in z]
    return [v / mp.fsum(e) for v in e]


def masses(case):
    """q by class, of the classes that are stored."""
    values = {c: mp.mpf(v) for c, v in case.stored.items()}
    if case.kind == "logits":
        q = softmax([v / mp.mpf(case.teacher_temperature) for v in values.values()])
        return dict(zip(values, q, strict=True))
    if case.kind == "log-probs":
        return {c: mp.exp(v) for c, v in values.items()}
    if case.kind == "counts":
        return {c: v / mp.fsum(values.values()) for c, v in values.items()}
    return values


def pairs(x, case):
    """(p, q, weight) of each thing that is compared."""
    p = softmax([mp.mpf(v) / mp.mpf(case.temperature) for v in x])
    w = [mp.mpf(v) for v in case.weight] if case.weight else [mp.mpf(1)] * len(x)
    q = masses(case)
    others = [c for c in range(len(x)) if c not in q]
    sum_q = mp.fsum(q.values())
    rest = 1 - sum_q if case.rest is None else mp.mpf(case.rest)
    if case.tail == "subset":
        sum_p = mp.fsum(p[c] for c in q)
        return [(p[c] / sum_p, q[c] / sum_q, w[c]) for c in q]
    if case.tail == "teacher":
        return [(p[c], q[c] / sum_q if c in q else mp.mpf(0), w[c]) for c in range(len(x))]
    if case.tail == "drop":
        return [(p[c], q[c], w[c]) for c in q]
    if case.tail == "uniform":
        share = rest / len(others) if others else 0
        return [(p[c], q.get(c, share), w[c]) for c in range(len(x))]
    if case.tail == "bucket" and others:
        return [(p[c], q[c], w[c]) for c in q] + [(mp.fsum(p[c] for c in others), rest, mp.mpf(1))]
    return [(p[c], q.get(c, mp.mpf(0)), w[c]) for c in range(len(x))]


def terms(p, q, w, case):
    """The summands of the value for one pair."""
    if case.divergence == "ce":
        return [-w * q * mp.log(p)] if q else []
    if case.divergence == "forward-kl":
        return [w * q * mp.log(q), -w * q * mp.log(p)] if q else []
    if case.divergence == "reverse-kl":
        return [p * mp.log(p), -p * mp.log(q)] if p else []
    b = mp.mpf(case.beta)
    m = b * q + (1 - b) * p
    found = [b * q * mp.log(q), -b * q * mp.log(m)] if q else []
    return found + ([(1 - b) * p * mp.log(p), -(1 - b) * p * mp.log(m)] if p else [])


def value(x, case):
    return mp.fsum(t for pair in pairs(x, case) for t in terms(*pair, case))


def exact(x, case) -> Exact:
    """The row's value and gradient, computed once for every backend; p is above 0."""
    key = tuple(map(float, x)), repr(case)
    if key not in KNOWN:
        KNOWN[key] = _exact(x, case)
    return KNOWN[key]


def _exact(x, case):
    with mp.workdps(DIGITS):
        x = [mp.mpf(float(v)) for v in x]
        h = mp.mpf(10) ** -STEP
        gradient = []
        for c in range(len(x)):
            up, down = ([*x[:c], x[c] + s * h, *x[c + 1 :]] for s in (1, -1))
            gradient.append((value(up, case) - value(down, case)) / (2 * h))
        size = mp.fsum(abs(t) for pair in pairs(x, case) for t in terms(*pair, case))
        return Exact(value(x, case), gradient, size, gradient_sizes(x, case, size))


def gradient_sizes(x, case, size):
    """Per class the sizes of p, q and what multiplies p, for a bound that is relative to them."""
    t = mp.mpf(case.temperature)
    p, q = softmax([v / t for v in x]), masses(case)
    sum_q, others = mp.fsum(q.values()), [c for c in range(len(x)) if c not in q]
    inside = mp.fsum(p[c] for c in q) if case.tail == "subset" else 1
    sizes = []
    for c in range(len(x)):
        own = q.get(c, mp.mpf(0))
        if case.tail in ("subset", "teacher"):
            own = own / sum_q
        if c in others and case.tail == "uniform":
            own = abs(1 - sum_q) / len(others)
        if c in others and case.tail == "bucket":
            own = abs(1 - sum_q) * p[c] / mp.fsum(p[o] for o in others)
        if case.divergence in ("ce", "forward-kl"):
            w = max(case.weight) if case.weight else 1
            sizes.append(w * (p[c] / inside + own) / t)
            continue
        log_q = abs(mp.log(own)) if own else mp.mpf(0)
        sizes.append(p[c] / inside * (abs(mp.log(p[c] / inside)) + log_q + size + 1) / t)
    return sizes
