"""Soft targets from a teacher: what the engine hands to a backend, and what it gets back.

A backend has two functions over a box of logits, an array (outer, C, inner) whose n = outer·inner
rows are numbered in C order, as for `rows` in `backends`:

    teacher_dense(logits, teacher, targets, scalars, scale, results, grad)
    teacher_top(logits, top, targets, scalars, scale, results, grad)

`teacher` is a box of the same shape in one of the four float dtypes: logits, log-probabilities or
probabilities of all classes. `top` is a `TopK`: K classes of each row, brought to one form.
`targets` is int64 (n,), below 0 where a row is ignored; nothing else about it matters. `scale`,
(n,) or (1,), multiplies each row's gradient and not its value. `results`, float64 (2, n), gets the
values and the log-sum-exps of s; `grad` is a box like the logits, or None, or `logits` itself.
Ignored rows get value 0, log-sum-exp NaN and gradient +0.0, whatever their arrays hold.

    s_c = x_c / temperature, with a softcap κ·tanh(x_c / (temperature·κ));    p = softmax(s)
    q   = softmax(teacher / teacher_temperature), or exp(teacher), or teacher, by `Kind`

The terms i are classes, or groups of classes, of which the tail says what the classes are that a
row does not store, its others; r = `rest`, k = the number of stored classes:

    ALL, TEACHER   every class; q_c = 0 for the others
    UNIFORM        every class; q_c = r / (C − k) for the others
    BUCKET         the stored classes, and one more: q = r, p = Σ p of the others, added from them
    SUBSET         the stored classes; p is softmax over these alone
    DROP           the stored classes

With x_i = ln p_i − ln q_i, m_i = β·q_i + (1 − β)·p_i, u_i = ln p_i − ln m_i, the value L of a row
and h_i = ∂L/∂ ln p_i are

    CE             −Σ q·ln p                                        h = −q
    FORWARD_KL     −Σ q·x                                           h = −q
    REVERSE_KL     Σ p·x                                            h = p·(x + 1)
    JSD            Σ β·q·(ln q − ln m) + (1 − β)·p·u                h = (1 − β)·p·u

    ∂L/∂s_c = p_c·(h_i/p_i − Σ h)       i is the term of class c, and h_i is 0 where it has none
    ∂L/∂x_c = ∂L/∂s_c · sech²(x_c / (temperature·κ)) / temperature

which on stored classes is (Σq)·p − q for the first two. With SUBSET classes that are not stored
get +0.0. Where p_i is 0, p_c/p_i counts as 0 in a bucket and as 1 in a class of its own.

Zeros: p or q is 0 where its logarithm is −∞, and 0·ln 0 is 0. q_i > 0 where p_i = 0 makes the
first two infinite, and their gradient is finite. p_i > 0 where q_i = 0 makes REVERSE_KL infinite,
and its gradient NaN in the whole row. Value and gradient are NaN where a logit is NaN or +∞ or all
are −∞, or q is NaN or infinite.

No digits are lost where p and q are close: Σ q·(ln q − ln p) is Σ q·(y + expm1(−y)), y = ln q − ln
p, where Σ q and Σ p over the terms are equal; `surplus` says by how much they are not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.scalars import Scalars


class Divergence(IntEnum):
    """What is computed of p and q."""

    CE = 0
    FORWARD_KL = 1
    REVERSE_KL = 2
    JSD = 3


class Tail(IntEnum):
    """What the classes are that a row does not store; ALL where a row stores every class."""

    ALL = 0
    BUCKET = 1
    UNIFORM = 2
    SUBSET = 3
    TEACHER = 4
    DROP = 5


class Kind(IntEnum):
    """What a dense teacher's numbers are."""

    LOGITS = 0
    LOG_PROBS = 1
    PROBS = 2


class TeacherScalars(NamedTuple):
    """What the options become in a kernel. A softcap of inf is none.

    `kind` and `teacher_temperature` are for dense teachers; for top-k they are applied already.
    """

    divergence: int
    tail: int = Tail.ALL
    kind: int = Kind.LOGITS
    beta: float = 0.5
    temperature: float = 1.0
    teacher_temperature: float = 1.0
    softcap: float = float("inf")

    @property
    def of_student(self) -> Scalars:
        """What makes s of the logits."""
        return Scalars()._replace(temperature=self.temperature, softcap=self.softcap)

    @property
    def of_teacher(self) -> Scalars:
        """The same for the teacher's logits."""
        return Scalars()._replace(temperature=self.teacher_temperature)


class TopK(NamedTuple):
    """The K stored classes of n rows, as a kernel gets them: C-contiguous, in native byte order.

    Each class stands in a row once. q and log q are finite and of the same size for a class, or
    both NaN; where the tail is SUBSET or TEACHER, q sums to 1 over the stored classes.
    """

    classes: Array  # int64 (n, K): ascending, then −1 for empty slots
    q: Array  # float64 (n, K); 0 in empty slots
    log_q: Array  # float64 (n, K): ln q; −∞ in empty slots
    rest: Array  # float64 (n,): r, the teacher's mass of the others; 0 where the tail ignores it
    surplus: (
        Array  # float64 (n,): Σ q + r − 1, the terms' mass of the teacher less that of a softmax
    )


def spread(top: TopK, rows: slice, shape: tuple[int, int, int]) -> Array:
    """The probabilities of all classes of some rows, `rest` evenly among the others, as a box."""
    outer, classes, inner = shape
    stored = top.classes[rows]
    there = stored >= 0
    each = top.rest[rows] / np.maximum(classes - there.sum(axis=1), 1)
    q = np.repeat(each[:, None], classes, axis=1)
    row, slot = np.nonzero(there)
    q[row, stored[row, slot]] = top.q[rows][row, slot]
    return np.ascontiguousarray(q.reshape(outer, inner, classes).transpose(0, 2, 1))


class TeacherBackend(Protocol):
    """The interface that the module docstring describes."""

    name: str
    block: int  # about how many logits to pass at a time
    slabs: int  # how many slabs of a stream to pass at a time

    def teacher_dense(
        self,
        logits: Array,
        teacher: Array,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Values, log-sum-exps and gradients against a teacher of all classes."""

    def teacher_top(
        self,
        logits: Array,
        top: TopK,
        targets: Array,
        scalars: TeacherScalars,
        scale: Array,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Values, log-sum-exps and gradients against the classes that are stored."""
