"""Every number on the way from one row of logits to its gradient, as the reference computes it.

Nothing is computed a second time: the steps are those of `kernels.reference`, so the last one is
bit for bit what `cross_entropy(..., backend="numpy")` gives for float64 logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Block
from xentcli.arrays.sums import exact_sum
from xentcli.backends import Scalars, reference
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import Reduction, plan
from xentcli.explain import remarks
from xentcli.explain.remarks import Remark
from xentcli.options import LossOptions

# What is 0 in a row that is left out.
OF_THE_TARGET = (
    *("q", "masses", "terms", "difference", "z_pull"),
    *("z_gradient", "row_gradient", "gradient"),
)


class Factors(NamedTuple):
    """What the row's loss and gradient are multiplied by: scale = upstream·row_weight/denominator.

    `counted` rows make up the mean.
    """

    upstream: float
    row_weight: float
    denominator: float
    scale: float
    counted: int


class Checks(NamedTuple):
    """Sums that have to be 1 and 0, and how far off rounding may leave them."""

    probabilities: float
    gradient: float
    tolerance: float
    holds: bool


@dataclass(frozen=True)
class Derivation:
    """The steps of one row, in their order; arrays hold one number per class.

    `target` is the class index, or None for probabilities and for a row that is left out.
    `z_loss` is the coefficient that goes with the reduction.
    """

    row: int
    rows: int
    options: LossOptions
    target: int | None
    ignored: bool
    sample_weighted: bool
    logits: Array
    z: Array  # divided by the temperature, capped
    maximum: float
    shifted: Array  # z − maximum
    exponentials: Array
    total: float  # their sum
    unshifted: Array  # exp(z), as one would do it by hand
    unshifted_total: float
    p: Array
    log_p: Array
    lse: float
    q: Array  # one-hot, or the probabilities given
    weight: Array
    masses: Array  # a_c = w_c·((1 − ε)·q_c + ε/C)
    mass: float  # A, their sum
    terms: Array  # a_c·(−log p_c)
    z_loss: float
    z_term: float  # z_loss·lse²
    row_loss: float  # Σ terms + z_term
    difference: Array  # A·p − a
    z_pull: Array  # the gradient of z_term
    z_gradient: Array  # difference + z_pull
    slope: Array  # dz/dx
    row_gradient: Array  # z_gradient·slope
    factors: Factors
    loss: float  # row_loss·row_weight, as with the reduction none
    share: float  # what of it enters the reduced loss
    gradient: Array  # row_gradient·scale
    checks: Checks
    remarks: tuple[Remark, ...] = ()

    @property
    def classes(self) -> int:
        """C."""
        return len(self.logits)

    @property
    def weighted(self) -> bool:
        """Whether the classes have weights that change anything."""
        return bool((self.weight != 1).any())


def derive(
    problem: Problem, options: LossOptions, row: int, x: Array, q: Array | None = None
) -> Derivation:
    """The derivation of row `row`, whose logits are `x` (C,), of a problem.

        p = softmax(z),  L = Σ_c a_c·(−log p_c),  ∂L/∂z = A·p − a

    Shapes: x (C,) float64; q (C,) the row's probabilities where the targets are such. Units: the
    loss is in nats. Errors: none of its own; what is not finite comes out as such.

    >>> from xentcli.engine.problem import Extras, build
    >>> from xentcli.engine.targets import Whole
    >>> x, options = np.array([1.0, 2.0, 3.0]), LossOptions()
    >>> d = derive(build((1, 3), Whole(np.array([0])), options, Extras()), options, 0, x)
    >>> d.p.round(4).tolist(), d.gradient.round(4).tolist()
    ([0.09, 0.2447, 0.6652], [-0.91, 0.2447, 0.6652])

    Source: Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.2.2.
    """
    reduction = plan(problem, options)
    with np.errstate(all="ignore"):  # NaN and infinity are answers here
        return remarks.with_remarks(_derived(reduction, options, row, (x, q)))


def _derived(
    reduction: Reduction, options: LossOptions, row: int, arrays: tuple[Array, Array | None]
) -> Derivation:
    problem, (x, q) = reduction.problem, arrays
    ignored = problem.targets is not None and bool(problem.targets[row] < 0)
    target = None if problem.targets is None or ignored else int(problem.targets[row])
    steps = _forward(x[None, :].astype(np.float64), options)
    steps |= _target(problem, options, target, q)
    steps |= _backward(steps.pop("softmax"), steps, reduction)
    factors = _factors(reduction, row)
    steps |= _reduced(steps, reduction, row, factors)
    if ignored:  # set, not multiplied: the logits may hold anything
        steps |= {name: np.zeros(len(x)) for name in OF_THE_TARGET}
        steps |= dict.fromkeys(("z_term", "row_loss", "loss", "share", "mass"), 0.0)
    return Derivation(
        row=row,
        rows=problem.layout.rows,
        options=options,
        target=target,
        ignored=ignored,
        sample_weighted=problem.sample_weight is not None,
        factors=factors,
        checks=_checks(steps),
        **steps,
    )


def _scalars(options: LossOptions) -> Scalars:
    softcap = np.inf if options.softcap is None else float(options.softcap)
    return Scalars(temperature=float(options.temperature), softcap=softcap)


def _forward(x: Array, options: LossOptions) -> dict[str, Any]:
    """From the logits to the probabilities."""
    s = reference.softmax(x, _scalars(options))
    z = s.z[0] / s.divisor
    unshifted = np.exp(z)
    return {
        "softmax": s,
        "logits": x[0],
        "z": z,
        "maximum": float(s.top[0, 0] / s.divisor),
        "shifted": 0.0 - s.gap[0],
        "exponentials": s.e[0],
        "total": float(s.total[0, 0]),
        "unshifted": unshifted,
        "unshifted_total": float(exact_sum(unshifted)),
        "p": s.p[0],
        "log_p": 0.0 - s.neg_log_p[0],
        "lse": float(s.lse[0]),
        "slope": s.slope[0],
    }


def _target(
    problem: Problem, options: LossOptions, target: int | None, q: Array | None
) -> dict[str, Any]:
    """What the row should be."""
    classes = problem.layout.classes
    if q is None:
        q = np.zeros(classes) if target is None else _one_hot(target, classes)
    a = reference.masses(q[None, :], problem.class_weight, float(options.label_smoothing))
    mass = float(exact_sum(a)[0])
    return {"q": q, "weight": problem.class_weight, "masses": a[0], "mass": mass}


def _one_hot(target: int, classes: int) -> Array:
    row: Array = reference.one_hot(np.array([target]), classes)[0]
    return row


def _backward(
    s: reference.SoftmaxSteps, steps: dict[str, Any], reduction: Reduction
) -> dict[str, Any]:
    """Loss and gradient of the row by itself."""
    a, z_loss = steps["masses"][None, :], float(reduction.z_loss)
    difference = reference.difference(s, a)[0] + 0.0
    z_pull = reference.z_pull(s, z_loss)[0] if z_loss else np.zeros_like(difference)
    return {
        "terms": reference.terms(s, a)[0],
        "z_loss": z_loss,
        "z_term": float(reference.z_term(s, z_loss)[0]) if z_loss else 0.0,
        "row_loss": float(reference.loss(s, a, z_loss)[0]),
        "difference": difference,
        "z_pull": z_pull,
        "z_gradient": difference + z_pull,
        "row_gradient": reference.gradient(s, a, z_loss)[0],
    }


def _block(row: int) -> Block:
    return Block(row, row + 1, slice(row, row + 1), slice(0, 1))


def _factors(reduction: Reduction, row: int) -> Factors:
    problem = reduction.problem
    upstream, weight = problem.upstream, problem.sample_weight
    return Factors(
        upstream=float(upstream if upstream.ndim == 0 else upstream[row]),
        row_weight=1.0 if weight is None else float(weight[row]),
        denominator=float(reduction.denominator),
        scale=float(reduction.scale(_block(row))[0]),
        counted=problem.layout.rows - problem.ignored,
    )


def _reduced(
    steps: dict[str, Any], reduction: Reduction, row: int, factors: Factors
) -> dict[str, Any]:
    """What the row becomes in the loss of all rows."""
    loss = float(reduction.weigh(np.array([steps["row_loss"]]), _block(row))[0])
    gradient = reference.scaled(steps["row_gradient"][None, :], np.array([factors.scale]))[0]
    return {"loss": loss, "share": reduction.reduce(loss), "gradient": gradient}


def _checks(steps: dict[str, Any]) -> Checks:
    p, gradient = (float(exact_sum(steps[name])) for name in ("p", "difference"))
    # Every entry is rounded by itself, to a few units in its last place.
    size = float(np.abs(steps["masses"]).sum())
    tolerance = 4 * float(np.finfo(np.float64).eps) * max(1.0, size)
    holds = abs(p - 1) <= tolerance < np.inf and abs(gradient) <= tolerance
    return Checks(p, gradient, tolerance, bool(holds))
