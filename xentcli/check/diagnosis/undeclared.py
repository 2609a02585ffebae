"""Options that the caller of a check may have forgotten: their values, fitted to the gradient.

A fit has one or two free numbers and has to agree with all entries to the rounding of naive
arithmetic, as every other mistake has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.check.diagnosis.hypothesis_case import Hypothesis, HypothesisCase
from xentcli.check.diagnosis.matching import clear
from xentcli.check.diagnosis.mistakes import Mistake
from xentcli.errors import Setting

SPARE = 6  # entries more than a fit has free numbers, rows adding up to 0 taken off
NEAR = 2.0**-12  # relative: a fitted number this close to a short one may be that one
UNSET = {"temperature": 1.0, "label_smoothing": 0.0, "z_loss": 0.0, "softcap": None}
CAPS = (5.0, 10.0, 15.0, 20.0, 30.0, 50.0)  # softcaps in use
TINY = 2.0**-100  # logarithms of smaller numbers may be those of subnormal ones


def forgotten(case: HypothesisCase) -> Iterator[Mistake]:
    """A mistake for each option that would explain a gradient if it had been given."""
    n, classes = case.candidate.shape
    if classes < 2 or n * (classes - 1) < SPARE:
        return
    yield from temperatures(case)
    yield from smoothing_and_z_loss(case)
    if case.options.softcap is None:
        for cap in CAPS:
            yield with_value(case, "softcap", cap)
    yield from _ignore_index(case)
    yield from _class_weights(case)
    yield from _row_factors(case)


def temperatures(case: HypothesisCase) -> Iterator[Mistake]:
    """The temperature that fits, if it is another than the one given."""
    return _of_values(case, "temperature", _temperature(case))


def smoothing_and_z_loss(case: HypothesisCase) -> Iterator[Mistake]:
    """The label smoothing and the z-loss that fit, if they are not those given."""
    for name in ("label_smoothing", "z_loss"):
        yield from _of_values(case, name, _linear(case, name))


def with_option(case: HypothesisCase, name: str, value: Any) -> HypothesisCase:
    """The same with another value of an option."""
    return replace(case, options=replace(case.options, **{name: value}))


def with_value(case: HypothesisCase, name: str, value: float) -> Mistake:
    """An option of another value as a mistake."""
    called, given = name.replace("_", " "), getattr(case.options, name)
    why = "which was not given" if given in (None, UNSET[name]) else f"not the {given:g} given"
    words = f"it has a {called} of {value:.6g}, {why}"
    make = with_option(case, name, value).make
    slug = f"undeclared-{name.replace('_', '-')}"
    return Mistake(slug, words, lambda _: make(), settings=(Setting(name, float(f"{value:.6g}")),))


def _of_values(case: HypothesisCase, name: str, value: float | None) -> Iterator[Mistake]:
    """The shortest number near the one found, and that one itself."""
    given = getattr(case.options, name)
    if value is None or not np.isfinite(value) or value <= 0:
        return
    if abs(value - given) <= NEAR * max(value, given):
        return
    short = next(s for d in range(17) if abs((s := float(f"{value:.{d}e}")) / value - 1) <= NEAR)
    for found in dict.fromkeys((short, value)):
        if name != "label_smoothing" or found <= 1:
            yield with_value(case, name, found)


def _temperature(case: HypothesisCase) -> float | None:
    """T from log(g_c/g_d) = (x_c − x_d)/T, for classes c, d without target mass."""
    o = case.options
    if o.label_smoothing or o.z_loss or o.softcap is not None:
        return None
    x, size = case.rows.x, np.abs(case.candidate)
    known = (case.rows.q == 0) & (size > TINY) & np.isfinite(x)
    counts = known.sum(axis=1, keepdims=True)
    y = np.where(known, np.log(np.where(known, size, 1.0)), 0.0)
    x = np.where(known, x, 0.0)
    counts = np.maximum(counts, 1)
    x = np.where(known, x - x.sum(axis=1, keepdims=True) / counts, 0.0)
    y = np.where(known, y - y.sum(axis=1, keepdims=True) / counts, 0.0)
    above, below = float((x * x).sum()), float((x * y).sum())
    return above / below if below > 0 else None


def _linear(case: HypothesisCase, name: str) -> float | None:
    """The value of an option that the gradient is linear in, with a free factor on the whole."""
    none, one = (with_option(case, name, value).make().grad for value in (0.0, 1.0))
    step, wanted = (one - none).ravel(), case.candidate.ravel()
    basis = np.stack([none.ravel(), step])
    usable = np.isfinite(basis).all(axis=0)
    matrix = basis[:, usable] @ basis[:, usable].T
    if not step[usable].any() or np.linalg.cond(matrix) > 1 / np.finfo(float).eps:
        return None
    factor, slope = np.linalg.solve(matrix, basis[:, usable] @ wanted[usable])
    return float(slope / factor) if factor else None


def _ignore_index(case: HypothesisCase) -> Iterator[Mistake]:
    """Rows of one target that are all zero, while no other row is."""
    target, (grad, size) = case.rows.target, case.make()
    if target is None:
        return
    zero = ~case.candidate.any(axis=1) & grad.any(axis=1)
    found = np.unique(target[zero])
    if len(found) != 1 or not (zero == (target == found[0])).all() or zero.all():
        return
    words = f"rows with target {found[0]} are ignored, which was not asked for"
    kept = np.where(zero, 0.0, 1.0)[:, None]
    factor = kept * _ratio(grad * kept, case.candidate).sum(keepdims=True)
    hypothesis = Hypothesis(grad * factor, size * np.abs(factor))
    settings = (Setting("ignore_index", int(found[0])),)
    yield Mistake("undeclared-ignore-index", words, lambda _: hypothesis, settings=settings)


def _class_weights(case: HypothesisCase) -> Iterator[Mistake]:
    """One factor for all rows of a target, and different ones for different targets."""
    target = case.rows.target
    if target is None or case.options.label_smoothing or (case.rows.weight != 1).any():
        return
    classes, where, counts = np.unique(target, return_inverse=True, return_counts=True)
    if len(classes) < 2 or np.count_nonzero(counts > 1) < 2 or not _enough(case, where):
        return
    words = "rows with the same target have the same factor: class weights that were not given"
    yield _scaled("undeclared-weight", words, case, where)


def _row_factors(case: HypothesisCase) -> Iterator[Mistake]:
    """One factor for each row."""
    if not _enough(case, np.arange(len(case.candidate))):
        return
    words = "each row has a factor of its own: row weights or upstream that were not given"
    yield _scaled("undeclared-row-factors", words, case, np.arange(len(case.candidate)))


def _enough(case: HypothesisCase, groups: Array) -> bool:
    """Whether a factor for each group leaves entries that could speak against it."""
    right = case.make()
    normal = np.abs(right.grad) > 2.0 ** (case.finfo.smallest + case.finfo.digits)
    spare = np.maximum((clear(case, right) & normal).sum(axis=1) - 1, 0)
    in_groups = np.bincount(groups, weights=spare)
    return bool(np.maximum(in_groups - 1, 0).sum() >= SPARE)


def _scaled(slug: str, words: str, case: HypothesisCase, groups: Array) -> Mistake:
    """The right gradient with a fitted factor for each group of rows."""
    grad, size = case.make()
    factors = _ratio(grad, case.candidate, groups)[groups][:, None]
    hypothesis = Hypothesis(grad * factors, size * np.abs(factors))
    name = "weight" if slug == "undeclared-weight" else "sample_weight"
    return Mistake(slug, words, lambda _: hypothesis, settings=(Setting(name),))


def _ratio(grad: Array, candidate: Array, groups: Array | None = None) -> Array:
    """The factors of groups of rows, least squares; by default of all rows together."""
    groups = np.zeros(len(grad), np.int64) if groups is None else groups
    known = np.isfinite(grad)
    grad = np.where(known, grad, 0.0)
    above, below = (
        np.bincount(groups, weights=np.where(known, values * grad, 0.0).sum(axis=1))
        for values in (candidate, grad)
    )
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)
