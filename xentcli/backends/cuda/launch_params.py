"""The numbers that a launch passes to its kernels."""

from __future__ import annotations

from typing import NamedTuple

from xentcli.backends.elementary import EXP_FOR_FLOAT32, PER_LN2, ROUND

# float32 exponentials are multiplied by 2⁴⁸, so that the smallest are normal.
SINGLE_SCALE_BITS = 48
UNSCALE = 2.0**-SINGLE_SCALE_BITS


class ExpConstants(NamedTuple):
    """The constants of `exp_float32`. As arguments of a kernel they are operands of its
    instructions; as literals each took an instruction of its own, a fifth of the inner loop."""

    per_ln2: float = PER_LN2
    round: float = ROUND + SINGLE_SCALE_BITS  # so that n includes the scale
    ln2: float = 0.6931471805599453
    c6: float = EXP_FOR_FLOAT32[0]
    c5: float = EXP_FOR_FLOAT32[1]
    c4: float = EXP_FOR_FLOAT32[2]
    c3: float = EXP_FOR_FLOAT32[3]
    c2: float = EXP_FOR_FLOAT32[4]
    c1: float = EXP_FOR_FLOAT32[5]


class LaunchParams(NamedTuple):
    """The numbers of a launch; strides count elements.

    A row's classes are cut into `parts` of `size`, one for each block of threads. `kind` is the
    kind of targets: INDEX, PROBS or NONE; `mode` what is written: GRADIENT, SOFTMAX or LOG.
    `x_phase` and `g_phase` are the alignment of the first element, as an index modulo 4.
    `capped` has one number with a softcap and none without, so that its type says which it is.
    """

    rows: int
    classes: int
    inner: int
    parts: int
    size: int
    kind: int
    mode: int
    max_polls: int  # how often a block checks whether the row's other blocks are ready
    x_outer: int
    x_inner: int
    x_step: int
    x_phase: int
    q_outer: int
    q_inner: int
    q_step: int
    g_outer: int
    g_inner: int
    g_step: int
    g_phase: int
    kept: float  # 1 − label_smoothing
    uniform: float  # label_smoothing / classes
    temperature: float
    softcap: float
    limit: float  # with a softcap, the largest logit with another tanh than those above it
    z_loss: float
    scale_error: float  # each row's scale is scale·(1 + scale_error), for float64 results
    capped: tuple[float, ...]
    exp: ExpConstants


INDEX, PROBS, NONE = 0, 1, 2
GRADIENT, SOFTMAX, LOG = 0, 1, 2
