"""Mistakes that show by where they are: ignored rows, overflow, and what nobody wrote."""

from __future__ import annotations

import numpy as np

from xentcli.check.diagnosis.hypothesis_case import capped, softmax
from xentcli.check.diagnosis.sample import Kept
from xentcli.check.oracles.rows import Scale
from xentcli.check.oracles.ulp import Kind
from xentcli.check.report import Finding
from xentcli.check.statistics import Statistics
from xentcli.engine.problem import Problem
from xentcli.options import LossOptions

How = tuple[LossOptions, Scale, Kind]
# exp of more is infinite, and exp of less is 0.
LIMITS = {"float16": (11.09, -17.33), "float32": (88.72, -103.97), "float64": (709.78, -745.13)}


def ignored_rows(kept: Kept, how: How, problem: Problem) -> list[Finding]:
    """What ignored rows hold instead of zeros."""
    which = ~kept.rows.present & kept.off.any(axis=1)
    if not which.any():
        return []
    some = kept.some(np.flatnonzero(which))
    rows = f"{len(some.theirs)} of {np.count_nonzero(~kept.rows.present)} looked at are not"
    if not np.isfinite(some.theirs).all():
        return [Finding("ignored-rows", "ignored rows are not zero", f"{rows}: they hold NaN")]
    return [Finding("ignored-rows", "ignored rows are not zero", rows + _content(some, how))]


def _content(some: Kept, how: How) -> str:
    """What stands there, if it is a gradient of some sort."""
    options, _, kind = how
    p = softmax(capped(some.rows.x, options.temperature, options.softcap))
    classes, target = p.shape[1], options.ignore_index
    wrapped = np.eye(classes)[target % classes]
    contents = {
        "p without a one-hot": p,
        f"the gradient of target {target}, as if it counted": p - wrapped,
        "the gradient of target 0": p - np.eye(classes)[0],
    }
    for words, content in contents.items():
        constant = (some.theirs * content).sum() / (content * content).sum()
        missed = np.abs(some.theirs - constant * content)
        if constant and (missed <= 64 * kind.epsilon * np.abs(constant)).all():
            return f", and hold {words}"
    return ""


def zeros(kept: Kept) -> list[Finding]:
    """A buffer that nobody wrote to."""
    if kept.theirs.any() or not kept.exact.any() or len(kept.theirs) < 1:
        return []
    evidence = f"all entries of {len(kept.theirs)} rows are 0"
    return [Finding("zeros", "nothing was written", evidence)]


def overflow(kept: Kept, how: How) -> list[Finding]:
    """A softmax without the shift by the maximum: NaN where exp is infinite or all of it is 0."""
    options, _, kind = how
    nan = ~np.isfinite(kept.theirs).all(axis=1) & np.isfinite(kept.exact).all(axis=1)
    if not nan.any():
        return []
    top = capped(kept.rows.x, options.temperature, options.softcap).max(axis=1)
    names = ("float64",) if kind.name == "float64" else ("float32", "float16")
    for name in names:
        most, least = LIMITS[name]
        if (((top > most) | (top < least)) == nan).all():
            words = f"a softmax of unshifted logits: exp overflows in {name}"
            evidence = (
                f"NaN or infinity in the {np.count_nonzero(nan)} rows whose largest logit is above "
                f"{most} or below {least}, and in no other"
            )
            return [Finding("unshifted", words, evidence)]
    return []


def unwritten(kept: Kept, statistics: Statistics) -> list[Finding]:
    """Columns or rows at an end that hold only zeros, while all others are right."""
    for axis, name, ends in (
        (0, "columns", statistics.off_columns),
        (1, "rows", statistics.off_rows),
    ):
        off = np.logical_or.reduce(kept.off, axis=axis)
        wrong = kept.theirs[:, off] if axis == 0 else kept.theirs[off]
        if off.any() and not off.all() and not wrong.any():
            words = f"{name} {ends[0]} to {ends[1]} were not written"
            return [Finding("unwritten", words, "they hold only zeros, and others are right")]
    return []
