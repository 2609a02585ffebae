"""Compute the derivation of one row.

The steps are those of `backends.reference`, so the gradient is bit for bit that of
`cross_entropy(..., backend="numpy")` for float64 logits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import RunningSum, exact_sum, rounded
from xentcli.backends import Scalars, reference, softmax_steps
from xentcli.engine.problem import Problem
from xentcli.engine.reduction import ReductionPlan, plan
from xentcli.explain.derivation import Checks, Derivation, Factors
from xentcli.explain.remarks import remarks_on
from xentcli.options import LossOptions

# Zero in an ignored row, whatever its logits are.
ZERO_IF_IGNORED = (
    *("q", "masses", "terms", "difference", "z_pull"),
    *("z_gradient", "row_gradient", "gradient"),
)


def derive(
    problem: Problem, options: LossOptions, row: int, x: Array, q: Array | None = None
) -> Derivation:
    """The derivation of row `row` of a problem, from its logits `x`.

        p = softmax(z),  L = Σ_c a_c·(−log p_c),  ∂L/∂z = A·p − a

    Shapes: x (C,) float64; q (C,) the row's target probabilities, None for class indices.
    Units: the loss is in nats. Errors: none; NaN and infinity propagate.

    >>> from xentcli.engine.problem import Extras, build
    >>> from xentcli.engine.targets import Whole
    >>> x, options = np.array([1.0, 2.0, 3.0]), LossOptions()
    >>> d = derive(build((1, 3), Whole(np.array([0])), options, Extras()), options, 0, x)
    >>> d.p.round(4).tolist(), d.gradient.round(4).tolist()
    ([0.09, 0.2447, 0.6652], [-0.91, 0.2447, 0.6652])

    Source: Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.2.2.
    """
    reduction = plan(problem, options)
    with np.errstate(all="ignore"):  # NaN and infinity are valid results
        derivation = _derived(reduction, options, row, (x, q))
        return replace(derivation, remarks=remarks_on(derivation))


def _derived(
    reduction: ReductionPlan, options: LossOptions, row: int, arrays: tuple[Array, Array | None]
) -> Derivation:
    problem, (x, q) = reduction.problem, arrays
    ignored = problem.targets is not None and bool(problem.targets[row] < 0)
    target = None if problem.targets is None or ignored else int(problem.targets[row])
    steps = _forward(x[None, :].astype(np.float64), options)
    steps |= _target(reduction, options, target, q)
    temperature, factors = options.temperature, _factors(reduction, row)
    steps |= _backward(steps.pop("softmax"), steps, reduction, temperature)
    scale = reduction.scale(slice(row, row + 1))[:1]
    gradient = reference.scaled(steps.pop("row_gradient_words"), temperature, scale)[0]
    loss = steps["row_loss"] * factors.row_weight + 0.0
    steps |= {"loss": loss, "share": _share(reduction, loss), "gradient": gradient}
    if ignored:  # set to 0, because 0 times a NaN logit is NaN
        steps |= {name: np.zeros(len(x)) for name in ZERO_IF_IGNORED}
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


def _forward(x: Array, options: LossOptions) -> dict[str, Any]:
    """From the logits to the probabilities."""
    s = softmax_steps.softmax(x, Scalars.of(options))
    z = _scaled_logits(x[0], options)
    unshifted = np.exp(z)
    return {
        "softmax": s,
        "logits": x[0],
        "z": z,
        "maximum": float(np.where(np.isnan(s.top), np.nan, z[s.best])[0, 0]),
        "shifted": 0.0 - s.gap.high[0],
        "exponentials": softmax_steps.lowered(s.e)[0],
        "total": float(s.total.high[0, 0]),
        "unshifted": unshifted,
        "unshifted_total": float(exact_sum(unshifted)),
        "p": softmax_steps.lowered(s.p)[0],
        "log_p": 0.0 - s.neg_log_p.high[0],
        "lse": float(s.lse[0]),
        "slope": s.dz_dx(options.temperature)[0],
    }


def _scaled_logits(x: Array, options: LossOptions) -> Array:
    """z, divided by the temperature and capped."""
    z = x / options.temperature
    return z if options.softcap is None else options.softcap * np.tanh(z / options.softcap)


def _target(
    reduction: ReductionPlan, options: LossOptions, target: int | None, q: Array | None
) -> dict[str, Any]:
    """The target probabilities q, and the weights a on each −log p."""
    problem = reduction.problem
    if q is None:
        q = np.zeros(problem.layout.classes)
        if target is not None:
            q[target] = 1.0
    a = reference.masses(q[None, :], reduction.kernel_weight, float(options.label_smoothing))
    return {"q": q, "weight": problem.class_weight, "kernel_masses": a}


def _backward(
    s: softmax_steps.SoftmaxSteps,
    steps: dict[str, Any],
    reduction: ReductionPlan,
    temperature: float,
) -> dict[str, Any]:
    """Loss and gradient of the row, before the reduction."""
    a, z_loss = steps.pop("kernel_masses"), float(reduction.terms.z_loss)
    g = reference.gradient(s, a, z_loss)
    difference = softmax_steps.lowered(reference.difference(s, a))[0] + 0.0
    z_pull = reference.z_pull(s, z_loss)[0] if z_loss else 0.0 * difference
    results = {
        "masses": a[0],
        "mass": exact_sum(a)[0],
        "terms": reference.terms(s, a).high[0],
        "z_loss": z_loss,
        "z_term": reference.z_term(s, z_loss)[0] if z_loss else 0.0,
        "row_loss": reference.loss(s, a, z_loss)[0],
        "difference": difference,
        "z_pull": z_pull,
        "z_gradient": difference + z_pull,
        "row_gradient": reference.scaled(g, temperature, np.ones(1))[0],
    }
    for name, value in results.items():
        value = np.ldexp(value, reduction.terms.weight_power)
        results[name] = value if value.ndim else float(value)
    return {**results, "row_gradient_words": g}


def _share(reduction: ReductionPlan, loss: float) -> float:
    """What this row adds to the reduced loss."""
    total = RunningSum()
    total.add(np.array([loss]))
    return reduction.plain.reduce(total)


def _factors(reduction: ReductionPlan, row: int) -> Factors:
    problem = reduction.problem
    upstream, weight = problem.upstream, problem.sample_weight
    return Factors(
        upstream=float(upstream if upstream.ndim == 0 else upstream[row]),
        row_weight=1.0 if weight is None else float(weight[row]),
        denominator=rounded(reduction.terms.denominator),
        scale=float(reduction.plain.scale(slice(row, row + 1))[0]),
        counted=problem.layout.rows - problem.ignored,
    )


def _checks(steps: dict[str, Any]) -> Checks:
    p, gradient = (float(exact_sum(steps[name])) for name in ("p", "difference"))
    # Each entry has a rounding error of a few units in its last place.
    size = float(np.abs(steps["masses"]).sum())
    tolerance = 4 * float(np.finfo(np.float64).eps) * max(1.0, size)
    holds = abs(p - 1) <= tolerance < np.inf and abs(gradient) <= tolerance
    return Checks(p, gradient, tolerance, bool(holds))
