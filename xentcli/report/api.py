"""`report` and `calibrate` of arrays in memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from xentcli.arrays.dtypes import as_logits
from xentcli.engine.cross_entropy import Run
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.rows import RowSource
from xentcli.engine.targets import Whole, as_targets
from xentcli.options import Backend, TargetKind
from xentcli.report.calibration_result import Calibration
from xentcli.report.calibration_rows import Rows
from xentcli.report.compute import Groups, ReportCalculation, compute, require_base
from xentcli.report.methods import fit, fold_count, require_indices
from xentcli.report.options import Binning, Method, ReportOptions, ScoreOptions
from xentcli.report.result import Report


def report(  # noqa: PLR0913 (one name for each option)
    logits: Any,
    targets: Any,
    *,
    base: Any = None,
    sample_weight: Any = None,
    group: Any = None,
    ignore_index: int = -100,
    target_kind: TargetKind = "auto",
    temperature: float = 1.0,
    softcap: float | None = None,
    class_axis: int | None = None,
    bytes: int | None = None,
    words: int | None = None,
    top: tuple[int, ...] = (1, 5),
    bins: int = 15,
    binning: Binning = "width",
    confusion: int = 0,
    worst: int = 0,
    skip_nonfinite: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Report:
    """Statistics of logits and targets, each mean with its standard error.

        nll        = mean of −log p_y,  perplexity = exp(nll)
        x̄ = Σ v·x / Σ v,  se² = n/(n−1)·Σ v²(x−x̄)² / (Σ v)²,  interval x̄ ± 1.96·se

    and accuracy, top-k, Brier score, entropy, confidence, calibration errors, quantiles, results
    per class. `group`, one label per row, gives clustered errors: rows of one document are not
    independent. `base`, logits of another model for the same rows, adds the difference of the
    losses, KL(base‖model) and more. `bytes` and `words` are the size of the text.

    Shapes: logits and targets as in `cross_entropy`; base that of the logits; sample_weight and
    group one per row.

    Units: nll, entropy and KL in nats; shares and probabilities from 0 to 1.

    Errors: `DataError` (a ValueError) where shapes do not match, or a target is not a class;
    `OptionError` (a ValueError) for an option out of range.

    >>> import numpy as np
    >>> r = report(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1])
    >>> round(r["nll"].value, 4), round(r["nll"].se, 4), r["accuracy"].value
    (0.4904, 0.2027, 0.75)
    >>> r["perplexity"].definition
    'exp(mean nll)'

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks (2017); Kumar,
    Liang, Ma, Verified uncertainty calibration (2019); Wilson, Probable inference (1927).
    """
    scoring = ScoreOptions(ignore_index, target_kind, temperature, softcap, class_axis)
    what = ReportOptions(tuple(top), bins, binning, confusion, worst, skip_nonfinite, bytes, words)
    problem, source = _arrays(logits, targets, base, sample_weight, scoring)
    groups = Groups.of(group, problem)
    calculation = ReportCalculation(
        problem,
        (scoring, what),
        Run(backend, threads),
        groups,
        base=source.second is not None,
    )
    return compute(calculation, source)


def calibrate(  # noqa: PLR0913 (one name for each option)
    logits: Any,
    targets: Any,
    *,
    sample_weight: Any = None,
    group: Any = None,
    ignore_index: int = -100,
    class_axis: int | None = None,
    method: Method = "temperature",
    folds: int | None = None,
    skip_nonfinite: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Calibration:
    """The temperature that minimises the mean loss, with its 95 % interval.

        f(β) = mean(lse(β·z) − β·z_y),   T = 1/β at its minimum
        se(β)² = Σ g_i² / (Σ h_i)²,      g = E_p z − z_y,  h = Var_p z,  se(T) = se(β)/β²

    with p = softmax(β·z), row weights in g and h, and errors that are clustered by `group`. With
    `folds` the numbers after calibration are those of rows that the fit has not seen: row i, or
    group i, is in fold i mod K. The method "bias" also fits a bias for each class, which is added
    to logits / T.

    Shapes: logits and targets (class indices) as in `cross_entropy`; sample_weight and group one
    per row.

    Units: T has none; logits are divided by it. nll in nats.

    Errors: `DataError` (a ValueError) where no finite T > 0 is best: where every row is right, or
    the rows are no better than chance; where a loss is not finite, unless `skip_nonfinite`.

    >>> logits = [[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0]]
    >>> r = calibrate(logits, [0, 1, 0, 0])
    >>> round(r.temperature, 6), round(r["nll_before"].value, 4), round(r["nll_after"].value, 4)
    (2.730718, 0.7986, 0.5623)

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks (2017); White,
    Maximum likelihood estimation of misspecified models (1982).
    """
    scoring = ScoreOptions(ignore_index=ignore_index, class_axis=class_axis)
    problem, source = _arrays(logits, targets, None, sample_weight, scoring)
    require_indices(problem.targets)
    groups = Groups.of(group, problem)
    rows = Rows(
        problem,
        lambda: nullcontext(RowSource.of_arrays(source.logits.whole())),
        Run(backend, threads),
        groups.index if groups else None,
        groups.count if groups else 0,
        fold_count(folds, problem.layout.rows),
    )
    return fit(rows, method, skip_nonfinite=skip_nonfinite)


def _arrays(
    logits: Any, targets: Any, base: Any, sample_weight: Any, scoring: ScoreOptions
) -> tuple[Problem, RowSource]:
    """Arrays in memory, checked against each other, and as a source of rows."""
    x, t = as_logits(logits), as_targets(targets)
    problem = build(x.shape, Whole(t), scoring.loss(), Extras(sample_weight=sample_weight))
    second = None if base is None else as_logits(base, "base")
    if second is not None:
        require_base(second.shape, problem.layout)
    return problem, RowSource.of_arrays(x, t if problem.probs else None, second)
