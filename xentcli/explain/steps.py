"""The steps of a derivation as a document, in the order of the computation.

Logits and their maximum, exponentials and their sum, probabilities, target, loss, gradient, the
factors of the reduction, and checks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.display.document import NO_FORMULA, Column, Fact, Formula, Step
from xentcli.errors import plural
from xentcli.explain.class_selection import ClassSelection
from xentcli.explain.derivation import Derivation, Remark

BY_HAND = (1e-6, 1e6)  # exp(x) in this range is shown without subtracting m, too

X, Z = Formula("x", "x_c"), Formula("z", "z_c")
Y, A = Formula("y", "y_c"), Formula("a", "a_c")
LOSS_IN_X = Formula("dL/dx", r"\partial L/\partial x_c")


def _remarks(d: Derivation, step: str, shown: ClassSelection) -> tuple[str, ...]:
    return tuple(_named(remark, shown) for remark in d.remarks if remark.step == step)


def _named(remark: Remark, shown: ClassSelection) -> str:
    """A remark with the name of the class that it is about."""
    c = remark.of_class
    return remark.text if c is None else remark.text.replace(f"class {c}", shown.name(c), 1)


def row_steps(d: Derivation, shown: ClassSelection) -> tuple[Step, ...]:
    """All steps of a row that is not ignored."""
    return (
        _logits(d, shown),
        _exponentials(d, shown),
        _probabilities(d, shown),
        _target(d, shown),
        _loss(d, shown),
        _gradient(d, shown),
        _factors(d, shown),
        _checks(d),
    )


def ignored_row_steps(d: Derivation, shown: ClassSelection) -> tuple[Step, ...]:
    """The steps of an ignored row: its logits, and zeros."""
    logits = [shown.column(X, d.logits, summed=False)]
    zeros = [shown.column(LOSS_IN_X, d.gradient), shown.directions(d.gradient)]
    return (
        shown.step("Logits", NO_FORMULA, logits),
        Step("Target", remarks=_remarks(d, "target", shown)),
        shown.step("Gradient", NO_FORMULA, zeros, remarks=_remarks(d, "factors", shown)),
    )


def _logits(d: Derivation, shown: ClassSelection) -> Step:
    symbol = Z if d.logits_scaled else X
    columns = [shown.column(X, d.logits, summed=False)]
    formula = NO_FORMULA
    if d.logits_scaled:
        formula = _scaling(d)
        columns.append(shown.column(Z, d.z, summed=False))
    shifted = Formula(f"{symbol.text} - m", f"{symbol.latex} - m")
    columns.append(shown.column(shifted, d.shifted, summed=False))
    top = Formula(f"m = max {symbol.text}", rf"m = \max_c {symbol.latex}")
    facts = (Fact(top, d.maximum),)
    return shown.step(
        "Logits and their maximum",
        formula,
        columns,
        facts=facts,
        remarks=_remarks(d, "logits", shown),
    )


def _scaling(d: Derivation) -> Formula:
    t, cap = d.options.temperature, d.options.softcap
    inner, latex = ("x", "x_c") if t == 1 else (f"x/{t:g}", f"x_c/{t:g}")
    if cap is None:
        return Formula(f"z = {inner}", f"z_c = {latex}")
    over = inner if t == 1 else f"({inner})"
    return Formula(
        f"z = {cap:g}·tanh({over}/{cap:g})", rf"z_c = {cap:g}\tanh\bigl(({latex})/{cap:g}\bigr)"
    )


def _exponentials(d: Derivation, shown: ClassSelection) -> Step:
    symbol = Z if d.logits_scaled else X
    e = Formula("e", "e_c")
    formula = Formula(f"e = exp({symbol.text} - m)", rf"e_c = \exp({symbol.latex} - m)")
    columns = [shown.column(e, d.exponentials)]
    facts = [Fact(Formula("s = Σ e", r"s = \sum_c e_c"), d.total)]
    low, high = BY_HAND
    if low <= d.unshifted.min() and d.unshifted.max() <= high:
        by_hand = Formula(f"exp({symbol.text})", rf"\exp({symbol.latex})")
        columns.append(shown.column(by_hand, d.unshifted))
        total = Formula(f"Σ exp({symbol.text})", rf"\sum_c \exp({symbol.latex})")
        facts.append(Fact(total, d.unshifted_total, "without subtracting m; p is the same"))
    return shown.step(
        "Exponentials and their sum",
        formula,
        columns,
        facts=tuple(facts),
        remarks=_remarks(d, "exponentials", shown),
    )


def _probabilities(d: Derivation, shown: ClassSelection) -> Step:
    p = shown.column(Formula("p", "p_c"), d.p, bar="fraction")
    return shown.step("Probabilities", Formula("p = e / s", "p_c = e_c / s"), [p])


def _target(d: Derivation, shown: ClassSelection) -> Step:
    is_index = d.target is not None
    q = d.q.astype(np.int64) if is_index else d.q
    columns, facts, formula = [shown.column(Y, q)], [], NO_FORMULA
    if is_index and len(shown.others):  # 0 instead of a floating-point sum
        columns = [Column(Y, (*q[shown.indices].tolist(), 0))]
    if d.class_weighted:
        columns.append(shown.column(Formula("w", "w_c"), d.weight, summed=False))
    if not d.masses_are_q:
        formula = _mass_formula(d, d.options.label_smoothing)
        columns.append(shown.column(A, d.masses))
        facts.append(Fact(Formula("A = Σ a", r"A = \sum_c a_c"), d.mass))
    title = "Target, one-hot" if is_index else "Target, probabilities"
    return shown.step(
        title, formula, columns, facts=tuple(facts), remarks=_remarks(d, "target", shown)
    )


def _mass_formula(d: Derivation, eps: float) -> Formula:
    text, latex = "y", "y_c"
    if eps:
        text = f"{1 - eps:.6g}·y + {eps:g}/{d.classes}"
        latex = rf"{1 - eps:.6g}\,y_c + {eps:g}/{d.classes}"
    if d.class_weighted:
        text = f"w·({text})" if eps else "w·y"
        latex = rf"w_c\,({latex})" if eps else r"w_c\,y_c"
    return Formula(f"a = {text}", f"a_c = {latex}")


def _loss(d: Derivation, shown: ClassSelection) -> Step:
    columns: list[Column] = []
    facts: list[Fact] = []
    formula = Formula("L = -log p[target]", r"L = -\log p_y")
    if not d.is_one_hot:
        formula, columns = _loss_terms(d, shown)
    if d.z_loss:
        facts.append(Fact(Formula("lse = m + log s", r"\mathrm{lse} = m + \log s"), d.lse))
        term = Formula(f"{d.z_loss:.6g}·lse²", rf"{d.z_loss:.6g}\,\mathrm{{lse}}^2")
        facts.append(Fact(term, d.z_term, "the z-loss"))
        formula = Formula(f"{formula.text} + {term.text}", f"{formula.latex} + {term.latex}")
    if d.is_one_hot:
        facts.append(Fact(Formula("p[target]", "p_y"), float(d.p[d.target])))
    facts.append(Fact(Formula("L", "L"), d.row_loss, "the loss of this row, in nats"))
    more: dict[str, Any] = {"facts": tuple(facts), "remarks": _remarks(d, "loss", shown)}
    return (
        shown.step("Loss", formula, columns, **more) if columns else Step("Loss", formula, **more)
    )


def _loss_terms(d: Derivation, shown: ClassSelection) -> tuple[Formula, list[Column]]:
    """The loss as a sum over the classes, and its terms."""
    mass = Y if d.masses_are_q else A
    term = Formula(f"{mass.text}·(-log p)", rf"{mass.latex}\,(-\log p_c)")
    columns = [
        shown.column(Formula("-log p", r"-\log p_c"), 0.0 - d.log_p, summed=False),
        shown.column(term, d.terms),
    ]
    return Formula(f"L = Σ {term.text}", rf"L = \sum_c {term.latex}"), columns


def _gradient(d: Derivation, shown: ClassSelection) -> Step:
    symbol = _difference_symbol(d)
    columns = [shown.column(symbol, d.difference, bar="" if d.z_loss else "signed")]
    variable = "z" if d.logits_scaled else "x"
    formula = Formula(
        f"dL/d{variable} = {symbol.text}", rf"\partial L/\partial {variable}_c = {symbol.latex}"
    )
    if d.z_loss:
        z_part = Formula(f"{2 * d.z_loss:.6g}·lse·p", rf"{2 * d.z_loss:.6g}\,\mathrm{{lse}}\,p_c")
        whole = Formula(f"dL/d{variable}", rf"\partial L/\partial {variable}_c")
        columns += [shown.column(z_part, d.z_pull), shown.column(whole, d.z_gradient, bar="signed")]
        formula = Formula(f"{formula.text} + {z_part.text}", f"{formula.latex} + {z_part.latex}")
    columns.append(shown.directions(d.z_gradient))
    remarks = (*_descent(d), *_remarks(d, "gradient", shown))
    return shown.step("Gradient", formula, columns, remarks=remarks)


def _difference_symbol(d: Derivation) -> Formula:
    if not d.masses_are_q:
        return Formula("A·p - a", r"A\,p_c - a_c")
    return Formula("p - y", "p_c - y_c") if d.mass == 1 else Formula("A·p - y", r"A\,p_c - y_c")


def _descent(d: Derivation) -> tuple[str, ...]:
    """What a step does; one that cannot help says why in the result."""
    if not np.isfinite(d.z_gradient).all() or not d.z_gradient.any():
        return ()
    if d.is_one_hot and not d.z_loss:
        return ("A gradient descent step raises the target's logit and lowers the others.",)
    return (
        "A gradient descent step raises logits with a negative gradient and lowers the others.",
    )


def _factors(d: Derivation, shown: ClassSelection) -> Step:
    f = d.factors
    facts = [Fact(Formula("u", "u"), _as_integer(f.upstream), "the upstream gradient")]
    if d.sample_weighted:
        facts.append(Fact(Formula("v", "v"), _as_integer(f.row_weight), "the sample weight"))
    facts.append(Fact(Formula("D", "D"), _as_integer(f.denominator), _denominator(d)))
    scale = Formula("u·v/D", r"u\,v/D") if d.sample_weighted else Formula("u/D", "u/D")
    facts.append(Fact(scale, _as_integer(f.scale)))
    facts.append(Fact(Formula.in_words("loss"), d.share, _share(d)))
    remarks = _remarks(d, "factors", shown)
    columns: list[Column] = []
    if d.logits_scaled or f.scale != 1:
        columns = _scaled_columns(d, shown)
    else:
        remarks = ("The factor is 1, so the gradient does not change.", *remarks)
    title, formula = "Factors: upstream, weight, reduction", _product(d, scale)
    return shown.step(title, formula, columns, facts=tuple(facts), remarks=remarks)


def _as_integer(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _product(d: Derivation, scale: Formula) -> Formula:
    if not d.logits_scaled:
        return Formula(f"{scale.text} · dL/dx", rf"{scale.latex}\cdot \partial L/\partial x_c")
    return Formula(
        f"{scale.text} · dL/dz · dz/dx",
        rf"{scale.latex}\cdot \partial L/\partial z_c\cdot \partial z_c/\partial x_c",
    )


def _scaled_columns(d: Derivation, shown: ClassSelection) -> list[Column]:
    slope = Formula("dz/dx", r"\partial z_c/\partial x_c")
    slopes = [shown.column(slope, d.slope, summed=False)] if d.logits_scaled else []
    gradient = shown.column(Formula.in_words("gradient"), d.gradient, bar="signed")
    return [*slopes, gradient, shown.directions(d.gradient)]


def _denominator(d: Derivation) -> str:
    if d.options.reduction != "mean":
        return f"no division with reduction {d.options.reduction}"
    if d.options.normalizer is not None:
        return "the given normalizer"
    rows = plural(d.factors.counted, "row")
    weights = ["v"] * d.sample_weighted + ["w[target]"] * (
        d.target is not None and d.class_weighted
    )
    return f"Σ {'·'.join(weights)} over {rows}" if weights else f"the mean over {rows}"


def _share(d: Derivation) -> str:
    if d.options.reduction == "none":
        return "the loss of this row"
    if d.rows == 1:
        return f"with reduction {d.options.reduction}"
    return f"what this row adds to the {d.options.reduction}"


def _checks(d: Derivation) -> Step:
    """The sums; their rounding errors differ between machines, so they are not shown."""
    symbol = _difference_symbol(d)
    sums = (
        (Formula("Σ p", r"\sum_c p_c"), d.checks.probabilities, 1),
        (Formula(f"Σ ({symbol.text})", rf"\sum_c ({symbol.latex})"), d.checks.gradient, 0),
    )
    within = f"within {d.checks.tolerance:.1e}"
    facts = tuple(
        Fact(formula, wanted, within)
        if abs(found - wanted) <= d.checks.tolerance < np.inf
        else Fact(formula, found, f"expected {wanted}")
        for formula, found, wanted in sums
    )
    return Step("Checks", facts=facts)
