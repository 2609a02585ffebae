"""Mistakes that show by where they are: ignored rows, overflow, entries never written."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis.hypothesis_case import capped, softmax
from xentcli.check.diagnosis.sample import SampledRows
from xentcli.check.finding import Finding
from xentcli.check.oracles.rows import GradientSpec
from xentcli.check.statistics import ErrorStatistics
from xentcli.engine.problem import Problem

# exp of more is infinite, and exp of less is 0.
LIMITS = {"float16": (11.09, -17.33), "float32": (88.72, -103.97), "float64": (709.78, -745.13)}


def ignored_rows(sampled: SampledRows, spec: GradientSpec, problem: Problem) -> list[Finding]:
    """What ignored rows hold instead of zeros."""
    which = ~sampled.rows.present & sampled.off.any(axis=1)
    if not which.any():
        return []
    some = sampled.some(np.flatnonzero(which))
    rows = f"{len(some.candidate)} of {np.count_nonzero(~sampled.rows.present)} examined are not"
    if not np.isfinite(some.candidate).all():
        return [Finding("ignored-rows", "ignored rows are not zero", f"{rows}: they hold NaN")]
    return [Finding("ignored-rows", "ignored rows are not zero", rows + _content(some, spec))]


def _content(some: SampledRows, spec: GradientSpec) -> str:
    """What the ignored rows hold, if that is recognised."""
    options, _, finfo = spec[:3]
    p = softmax(capped(some.rows.x, options.temperature, options.softcap))
    classes, target = p.shape[1], options.ignore_index
    wrapped = np.eye(classes)[target % classes]
    contents = {
        "p without a one-hot": p,
        f"the gradient of target {target}, as if it counted": p - wrapped,
        "the gradient of target 0": p - np.eye(classes)[0],
    }
    for words, content in contents.items():
        constant = (some.candidate * content).sum() / (content * content).sum()
        missed = np.abs(some.candidate - constant * content)
        if constant and (missed <= 64 * finfo.epsilon * np.abs(constant)).all():
            return f", and hold {words}"
    return ""


def zeros(sampled: SampledRows) -> list[Finding]:
    """A buffer that was never written."""
    if sampled.candidate.any() or not sampled.exact.any() or len(sampled.candidate) < 1:
        return []
    evidence = f"all entries of {len(sampled.candidate)} rows are 0"
    return [Finding("zeros", "nothing was written", evidence)]


def overflow(sampled: SampledRows, spec: GradientSpec) -> list[Finding]:
    """A softmax without the shift by the maximum: NaN where exp is infinite or all of it is 0."""
    options, _, finfo = spec[:3]
    nan = ~np.isfinite(sampled.candidate).all(axis=1) & np.isfinite(sampled.exact).all(axis=1)
    if not nan.any():
        return []
    top = capped(sampled.rows.x, options.temperature, options.softcap).max(axis=1)
    names = ("float64",) if finfo.name == "float64" else ("float32", "float16")
    for name in names:
        most, least = LIMITS[name]
        if (((top > most) | (top < least)) == nan).all():
            words = f"the softmax does not subtract the maximum: exp overflows in {name}"
            evidence = (
                f"NaN or infinity in the {np.count_nonzero(nan)} rows whose largest logit is above "
                f"{most} or below {least}, and in no other"
            )
            return [Finding("unshifted", words, evidence)]
    return []


def nonfinite(
    sampled: SampledRows, statistics: ErrorStatistics, *, rest_is_right: bool
) -> list[Finding]:
    """NaN and infinities where there should be none, or none where there should be."""
    counts, found = statistics.nonfinite, []
    extra = counts.nan_extra + counts.inf_extra
    if extra:
        bad = ~np.isfinite(sampled.candidate) & np.isfinite(sampled.exact)
        words = f"{extra:,} entries are NaN or infinite" if extra > 1 else "one entry is not finite"
        parts = [_masked(sampled, bad)]
        if bad.any() and bad[bad.any(axis=1)].all():
            parts.append("whole rows")
        parts.append("all other rows examined are right" if rest_is_right else "")
        found.append(Finding("not-finite", words, "; ".join(filter(None, parts)) or _where(bad)))
    if counts.nan_missing + counts.inf_missing:
        words = "rows without a gradient are not NaN: a logit is NaN or +∞, or all are −∞"
        evidence = f"{counts.nan_missing + counts.inf_missing:,} entries are finite"
        found.append(Finding("nan-missing", words, evidence))
    return found


def _masked(sampled: SampledRows, bad: Array) -> str:
    """Whether the rows, or the entries, are just those with a logit of −∞."""
    masked = np.isneginf(sampled.rows.x)
    if masked.any() and (masked == bad).all():
        return "just those whose logit is −∞, where the gradient is 0"
    if masked.any() and (masked.any(axis=1) == bad.any(axis=1)).all():
        return "just in the rows with a logit of −∞"
    return ""


def _where(bad: Array) -> str:
    return f"in {np.count_nonzero(bad.any(axis=1))} of {len(bad)} rows examined"


def unwritten(sampled: SampledRows, statistics: ErrorStatistics) -> list[Finding]:
    """Columns or rows at an end that hold only zeros, while all others are right."""
    for axis, name, ends in (
        (0, "columns", statistics.off_columns),
        (1, "rows", statistics.off_rows),
    ):
        off = np.logical_or.reduce(sampled.off, axis=axis)
        wrong = sampled.candidate[:, off] if axis == 0 else sampled.candidate[off]
        if off.any() and not off.all() and not wrong.any():
            words = f"{name} {ends[0]} to {ends[1]} were not written"
            return [Finding("unwritten", words, "they hold only zeros, and the others are right")]
    return []
