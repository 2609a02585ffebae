"""What logits and targets say about a model: perplexity, accuracy, calibration, with errors.

`xent report` and `xent calibrate` are the same for files.
"""

from __future__ import annotations

from typing import Any

from xentcli.arrays.dtypes import as_logits
from xentcli.engine.cross_entropy import Run
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.rows import RowSource
from xentcli.engine.targets import Whole, as_targets
from xentcli.errors import ShapeError
from xentcli.options import TargetKind
from xentcli.report.bins import Bin
from xentcli.report.classes import ClassResult, Confusion
from xentcli.report.compute import Groups, ReportCalculation, compute
from xentcli.report.options import Binning, ReportOptions, ScoreOptions
from xentcli.report.result import Report
from xentcli.report.statistic import Statistic
from xentcli.report.worst import WorstRow

__all__ = [
    "Bin",
    "ClassResult",
    "Confusion",
    "Report",
    "Statistic",
    "WorstRow",
    "report",
]


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
        problem, (scoring, what), Run(), groups, base=source.second is not None
    )
    return compute(calculation, source)


def _arrays(
    logits: Any, targets: Any, base: Any, sample_weight: Any, scoring: ScoreOptions
) -> tuple[Problem, RowSource]:
    """Arrays in memory, checked against each other, and as a source of rows."""
    x, t = as_logits(logits), as_targets(targets)
    problem = build(x.shape, Whole(t), scoring.loss(), Extras(sample_weight=sample_weight))
    second = None if base is None else as_logits(base, "base")
    if second is not None and second.shape != x.shape:
        raise ShapeError("base", f"shape {second.shape} does not fit logits of shape {x.shape}")
    return problem, RowSource.of_arrays(x, t if problem.probs else None, second)
