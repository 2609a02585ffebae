"""The terms of a teacher's divergences, for one number at a time: see `cpu.teacher_formulas`.

A term has the student's p, the teacher's q and y = ln q − ln p; with φ(x) = x + expm1(−x) it is
q·φ(y), p·φ(−y), or β·q·φ(y + u) + (1 − β)·p·φ(u) with u = −ln(1 + β·expm1(y)).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cuda.formulas import UNIT, exponential, log1p
from xentcli.backends.cuda.primitives import device, polynomial
from xentcli.backends.cuda.two_words import difference, divide_by
from xentcli.backends.teacher import Divergence, Kind, Tail

CE, FORWARD_KL = int(Divergence.CE), int(Divergence.FORWARD_KL)
REVERSE_KL, JSD = int(Divergence.REVERSE_KL), int(Divergence.JSD)
ALL, BUCKET, SUBSET = int(Tail.ALL), int(Tail.BUCKET), int(Tail.SUBSET)
UNIFORM, TEACHER, DROP = int(Tail.UNIFORM), int(Tail.TEACHER), int(Tail.DROP)
LOGITS, LOG_PROBS, PROBS = int(Kind.LOGITS), int(Kind.LOG_PROBS), int(Kind.PROBS)
FAR = 300.0  # |y| from which exp(−|y|) does not count beside β

# φ(x) / x² in powers of −x, up to the last that matters for |x| < 1.
excess_series = polynomial(tuple(1.0 / math.factorial(j + 2) for j in range(17, -1, -1)))


class TeacherParams(NamedTuple):
    """The numbers of a launch; strides count elements."""

    rows: int
    classes: int
    inner: int
    slots: int  # stored classes of each row; 0 for a dense teacher
    writes: int  # whether there is a gradient
    x_outer: int
    x_inner: int
    x_step: int
    t_outer: int
    t_inner: int
    t_step: int
    g_outer: int
    g_inner: int
    g_step: int
    divergence: int
    tail: int
    kind: int
    beta: float
    log_beta: float
    log_other: float  # ln(1 − β)
    temperature: float
    teacher_temperature: float


class Norm(NamedTuple):
    """What makes probabilities of logits: the largest, and the sum of exponentials less 1."""

    peak: Any
    others: Any
    log_sum: Any


@device
def scaled_gap(peak, x, temperature):
    """(max x − x) / temperature in two words; the second word of inf is 0."""
    high, low = difference(peak, x)
    if temperature > 1.0 and high == math.inf:  # although the quotient may be finite
        high, low = difference(0.5 * peak, 0.5 * x)
        temperature = 0.5 * temperature
    if not high < math.inf:
        low = 0.0
    return divide_by(high, low, temperature)


@device
def norm_of(peak, ones, others, temperature):
    """The norm of a row: how many are the largest, and the others' exponentials in two words."""
    rest = (ones - 1.0) + (others[0] + others[1]) * UNIT
    return Norm(peak, rest, log1p(rest))


@device
def exp_of(x):
    """exp x."""
    if x > 0.0:
        return 1.0 / (exponential(x, 0.0)[0] * UNIT)
    return exponential(-x, 0.0)[0] * UNIT


@device
def log(x):
    """ln x; −∞ of 0, NaN of less."""
    if x > 0.0 and x < math.inf:
        return math.log(x)
    if x == 0.0:
        return -math.inf
    if x < 0.0:
        return math.nan
    return x


@device
def ratio(a, b):
    """a / b of numbers that are not negative."""
    if b != 0.0:
        return a / b
    if a > 0.0:
        return math.inf
    return math.nan


@device
def times_or_infinite(w, x):
    """w·x; where w is 0, 0 unless x is +∞."""
    if x == math.inf:
        return x
    if w == 0.0:
        return 0.0
    return w * x


@device
def times_or_zero(p, u):
    """p·u, and 0 where p is 0, whatever u is."""
    if p == 0.0:
        return 0.0
    return p * u


@device
def weighted_excess(w, v, x):
    """w·φ(x), given v = w·exp(−x)."""
    if abs(x) < 1.0:
        return w * (x * x * excess_series(-x))
    return times_or_infinite(w, x - 1.0) + v


@device
def log_of_mixture(y, beta, log_beta):
    """ln(1 + β·expm1(y)) = ln(β·q + (1 − β)·p) − ln p."""
    if y > FAR:
        return y + log_beta
    if y > 0.0:
        return log1p(beta * math.expm1(y))
    if y != y:
        return y
    down = -beta * math.expm1(y)
    return -log1p(down / (1.0 - down))


@device
def term(params, p, q, y):
    """The value of a term, and x = −y or u of which the gradient is made."""
    if params.divergence == CE:
        return times_or_infinite(q, y), 0.0
    if params.divergence == FORWARD_KL:
        if params.tail == DROP:
            return times_or_infinite(q, y), 0.0
        return weighted_excess(q, p, y), 0.0
    if params.divergence == REVERSE_KL:
        if params.tail == DROP:
            return times_or_infinite(p, -y), -y
        return weighted_excess(p, q, -y), -y
    u = -log_of_mixture(y, params.beta, params.log_beta)
    a = -log_of_mixture(-y, 1.0 - params.beta, params.log_other)
    m = params.beta * q + (1.0 - params.beta) * p
    value = params.beta * weighted_excess(q, m, a)
    return value + (1.0 - params.beta) * weighted_excess(p, m, u), u


@device
def mass_correction(params, surplus, others):
    """What a sum of terms lacks: Σ q − Σ p over them, or the reverse."""
    if params.tail == DROP or params.divergence == CE or params.divergence == JSD:
        return 0.0
    if params.divergence == REVERSE_KL:
        return -surplus
    if params.tail == TEACHER:
        return surplus + others
    return surplus
