"""The reference's terms of a loss against a teacher, as `teacher` defines them, in two words.

A term has ln p, ln q, p and q, a value, and h, which is its derivative by ln p.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.softmax_steps import LIFT, SoftmaxSteps, softmax
from xentcli.backends.teacher import Divergence, Kind, TeacherScalars
from xentcli.backends.two_words import (
    TwoWords,
    add,
    choose,
    divide,
    exp_minus,
    log,
    log1p,
    multiply,
    one_word,
    total,
)

LARGE = 2.0**150  # a factor beyond which a product has no second word: p is lifted by 2^800


class Terms(NamedTuple):
    """The terms of some rows, (n, T); p and q are 2^LIFT times as large.

    Where a column is no term in a row, ln p and ln q are −∞.
    """

    log_p: TwoWords
    log_q: TwoWords
    p: TwoWords
    q: TwoWords

    def beside(self, other: Terms) -> Terms:
        """These terms and others."""
        pairs = zip(self, other, strict=True)
        return Terms(*(TwoWords(*map(joined, a, b)) for a, b in pairs))


def joined(a: Array, b: Array) -> Array:
    """Columns beside each other."""
    return np.concatenate([a, b], axis=-1)


def evaluate(t: Terms, how: TeacherScalars, weight: Array) -> tuple[TwoWords, TwoWords]:
    """The values of the terms; and h, which is 2^LIFT times as large."""
    has_p, has_q = t.log_p.high != -np.inf, t.log_q.high != -np.inf
    if how.divergence == Divergence.JSD:
        return _jsd(t, how.beta, has_p, has_q)
    if how.divergence == Divergence.REVERSE_KL:
        x = _plus(t.log_p, -t.log_q)
        h = where(has_p, _times(t.p, _plus(x, one_word(1.0))))
        return where(has_p, _unless_infinite(t.p.times(2.0**-LIFT), x)), h
    cost = -t.log_p if how.divergence == Divergence.CE else _plus(t.log_q, -t.log_p)
    a = _times(one_word(weight), where(has_q, t.q))
    each = _unless_infinite(a.times(2.0**-LIFT), cost)
    return where(has_q & (weight != 0), each), -a


def _jsd(t: Terms, beta: float, has_p: Array, has_q: Array) -> tuple[TwoWords, TwoWords]:
    """With x = ln p − ln q and d = |x|, m over the larger of p and q is 1 − w, where w is
    β·(1 − exp(−d)) for p ≥ q, and (1 − β)·(1 − exp(−d)) for p < q."""
    of_q, of_p = one_word(beta), add(one_word(1.0), one_word(-beta))
    x = _plus(t.log_p, -t.log_q)
    up = x.high >= 0
    d = choose(up, x, -x)
    share = choose(up, of_q, of_p)
    w = multiply(share, add(one_word(1.0), -exp_minus(d)))
    larger = log1p(divide(w, add(one_word(1.0), -w)))  # −ln(1 − w) = ln(1 + w/(1 − w))
    smaller = _plus(larger, -d)
    u, of_teacher = choose(up, larger, smaller), choose(up, smaller, larger)
    h = multiply(of_p, where(has_p, _times(t.p, u)))
    value = multiply(of_q, where(has_q, _times(t.q.times(2.0**-LIFT), of_teacher)))
    return add(value, h.times(2.0**-LIFT)), h


def where(there: Array, a: TwoWords) -> TwoWords:
    """The numbers where a mask is true, else 0."""
    return choose(there, a, one_word(0.0))


def exclude(there: Array, logs: TwoWords) -> TwoWords:
    """Logarithms, −∞ where a mask is true."""
    return choose(there, one_word(-np.inf), logs)


def log_of_lifted(mass: TwoWords) -> TwoWords:
    """The logarithm of what is 2^LIFT times as large."""
    return _plus(log(mass), -log(one_word(2.0**LIFT)))


def _plus(a: TwoWords, b: TwoWords) -> TwoWords:
    """a + b, which may be infinite."""
    high = a.high + b.high
    return choose(np.isfinite(high), add(a, b), one_word(high))


def _times(a: TwoWords, b: TwoWords) -> TwoWords:
    """a·b, where b may be infinite or huge."""
    return choose(np.abs(b.high) < LARGE, multiply(a, b), one_word(a.high * b.high))


def _unless_infinite(a: TwoWords, b: TwoWords) -> TwoWords:
    """a·b of an a that is 0 only by underflow: where it is, a b of +∞ stays."""
    return choose((a.high == 0) & (b.high == np.inf), b, _times(a, b))


def value(each: TwoWords, excess: TwoWords) -> Array:
    """The sum of the terms' values, less an excess."""
    finite = np.isfinite(each.high)
    infinite = np.where(finite, 0.0, each.high).sum(axis=-1)
    result: Array = add(total(where(finite, each)), -excess).high[:, 0] + infinite + 0.0
    return result


def log_p_and_p(s: SoftmaxSteps) -> tuple[TwoWords, TwoWords]:
    """ln p and p of each class."""
    return -s.neg_log_p, s.p


def log_q_and_q(values: Array, how: TeacherScalars) -> tuple[TwoWords, TwoWords]:
    """ln q and q of each class."""
    if how.kind == Kind.LOGITS:
        return log_p_and_p(softmax(values, how.of_teacher))
    if how.kind == Kind.PROBS:
        return log(one_word(values)), one_word(values * 2.0**LIFT)
    return one_word(values), exp_lifted(values)


def exp_lifted(values: Array) -> TwoWords:
    """exp, 2^LIFT times as large; NaN for infinity."""
    small = exp_minus(one_word(np.maximum(-values, 0.0)), LIFT)
    large = divide(one_word(2.0**LIFT), exp_minus(one_word(np.maximum(values, 0.0))))
    found = choose(values > 0, large, small)
    return choose(values < np.inf, found, one_word(np.nan))
