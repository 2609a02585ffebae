"""Which numbers of a derivation stand in which step, in the order of the argument.

Logits and their maximum, exponentials and their sum, probabilities, target, loss, gradient, the
factors on it, checks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.display.document import NONE, Column, Fact, Formula, Step
from xentcli.errors import plural
from xentcli.explain import Derivation
from xentcli.explain.class_selection import Chosen

READABLE = (1e-6, 1e6)  # exponentials that one would compute by hand

X, Z = Formula("x", "x_c"), Formula("z", "z_c")
P_MINUS_Y = Formula("p - y", "p_c - y_c")
LOSS_IN_X = Formula("dL/dx", r"\partial L/\partial x_c")


def _said(d: Derivation, step: str) -> tuple[str, ...]:
    return tuple(remark.text for remark in d.remarks if remark.step == step)


def of_row(d: Derivation, chosen: Chosen) -> tuple[Step, ...]:
    """All steps of a row that counts."""
    return (
        _logits(d, chosen),
        _exponentials(d, chosen),
        _probabilities(d, chosen),
        _target(d, chosen),
        _loss(d, chosen),
        _gradient(d, chosen),
        _factors(d, chosen),
        _checks(d),
    )


def of_ignored(d: Derivation, chosen: Chosen) -> tuple[Step, ...]:
    """What there is to say of a row that does not."""
    logits = [chosen.column(X, d.logits, summed=False)]
    zeros = [chosen.column(LOSS_IN_X, d.gradient), chosen.directions(d.gradient)]
    return (
        chosen.step("Logits", NONE, logits),
        Step("Target", remarks=_said(d, "target")),
        chosen.step("Gradient", NONE, zeros, remarks=_said(d, "factors")),
    )


def _is_scaled(d: Derivation) -> bool:
    return d.options.temperature != 1 or d.options.softcap is not None


def _is_plain(d: Derivation) -> bool:
    """Whether the target masses are the one-hot row itself."""
    return d.target is not None and bool((d.masses == d.q).all())


def _logits(d: Derivation, chosen: Chosen) -> Step:
    symbol = Z if _is_scaled(d) else X
    columns = [chosen.column(X, d.logits, summed=False)]
    formula = NONE
    if _is_scaled(d):
        formula = _scaling(d)
        columns.append(chosen.column(Z, d.z, summed=False))
    shifted = Formula(f"{symbol.text} - m", f"{symbol.latex} - m")
    columns.append(chosen.column(shifted, d.shifted, summed=False))
    top = Formula(f"m = max {symbol.text}", rf"m = \max_c {symbol.latex}")
    facts = (Fact(top, d.maximum),)
    return chosen.step(
        "Logits, and their maximum", formula, columns, facts=facts, remarks=_said(d, "logits")
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


def _exponentials(d: Derivation, chosen: Chosen) -> Step:
    symbol = Z if _is_scaled(d) else X
    e = Formula("e", "e_c")
    formula = Formula(f"e = exp({symbol.text} - m)", rf"e_c = \exp({symbol.latex} - m)")
    columns = [chosen.column(e, d.exponentials)]
    facts = [Fact(Formula("s = Σ e", r"s = \sum_c e_c"), d.total)]
    low, high = READABLE
    if low <= d.unshifted.min() and d.unshifted.max() <= high:
        by_hand = Formula(f"exp({symbol.text})", rf"\exp({symbol.latex})")
        columns.append(chosen.column(by_hand, d.unshifted))
        total = Formula(f"Σ exp({symbol.text})", rf"\sum_c \exp({symbol.latex})")
        facts.append(Fact(total, d.unshifted_total, "without the shift; p is the same"))
    return chosen.step(
        "Exponentials, and their sum",
        formula,
        columns,
        facts=tuple(facts),
        remarks=_said(d, "exponentials"),
    )


def _probabilities(d: Derivation, chosen: Chosen) -> Step:
    p = chosen.column(Formula("p", "p_c"), d.p, bar="share")
    return chosen.step("Probabilities", Formula("p = e / s", "p_c = e_c / s"), [p])


def _target(d: Derivation, chosen: Chosen) -> Step:
    y = Formula("y", "y_c")
    whole = d.target is not None
    q = d.q.astype(np.int64) if whole else d.q
    columns = [chosen.column(y, q)]
    facts, formula = [], NONE
    if whole and len(chosen.rest):
        columns = [Column(y, (*(int(v) for v in q[chosen.order]), 0))]
    if d.weighted:
        columns.append(chosen.column(Formula("w", "w_c"), d.weight, summed=False))
    if not _is_plain(d) and not ((d.masses == d.q).all()):
        eps = d.options.label_smoothing
        formula = _mass_formula(d, eps)
        columns.append(chosen.column(Formula("a", "a_c"), d.masses))
        facts.append(Fact(Formula("A = Σ a", r"A = \sum_c a_c"), d.mass))
    title = "Target, one-hot" if whole else "Target, probabilities"
    return chosen.step(title, formula, columns, facts=tuple(facts), remarks=_said(d, "target"))


def _mass_formula(d: Derivation, eps: float) -> Formula:
    text, latex = "y", "y_c"
    if eps:
        text = f"{1 - eps:.6g}·y + {eps:g}/{d.classes}"
        latex = rf"{1 - eps:.6g}\,y_c + {eps:g}/{d.classes}"
    if d.weighted:
        text = f"w·({text})" if eps else "w·y"
        latex = rf"w_c\,({latex})" if eps else r"w_c\,y_c"
    return Formula(f"a = {text}", f"a_c = {latex}")


def _loss(d: Derivation, chosen: Chosen) -> Step:
    facts, columns = [], []
    formula = Formula("L = -log p[target]", r"L = -\log p_y")
    if not _is_plain(d):
        mass = Formula("y", "y_c") if (d.masses == d.q).all() else Formula("a", "a_c")
        formula = Formula(f"L = Σ {mass.text}·(-log p)", rf"L = \sum_c {mass.latex}\,(-\log p_c)")
        columns = [
            chosen.column(Formula("-log p", r"-\log p_c"), 0.0 - d.log_p, summed=False),
            chosen.column(Formula(f"{mass.text}·(-log p)", rf"{mass.latex}\,(-\log p_c)"), d.terms),
        ]
    if d.z_loss:
        lse = Formula("lse = m + log s", r"\mathrm{lse} = m + \log s")
        facts.append(Fact(lse, d.lse))
        term = Formula(f"{d.z_loss:.6g}·lse²", rf"{d.z_loss:.6g}\,\mathrm{{lse}}^2")
        facts.append(Fact(term, d.z_term, "the z-loss"))
        formula = Formula(
            f"{formula.text} + {d.z_loss:.6g}·lse²",
            rf"{formula.latex} + {d.z_loss:.6g}\,\mathrm{{lse}}^2",
        )
    if _is_plain(d):
        facts.append(Fact(Formula("p[target]", "p_y"), float(d.p[d.target])))
    facts.append(Fact(Formula("L", "L"), d.row_loss, "the loss of this row, in nats"))
    said: dict[str, Any] = {"facts": tuple(facts), "remarks": _said(d, "loss")}
    if columns:
        return chosen.step("Loss", formula, columns, **said)
    return Step("Loss", formula, **said)


def _gradient(d: Derivation, chosen: Chosen) -> Step:
    symbol = _difference_symbol(d)
    columns = [chosen.column(symbol, d.difference, bar="" if d.z_loss else "pull")]
    variable = "z" if _is_scaled(d) else "x"
    formula = Formula(
        f"dL/d{variable} = {symbol.text}", rf"\partial L/\partial {variable}_c = {symbol.latex}"
    )
    if d.z_loss:
        pull = Formula(f"{2 * d.z_loss:.6g}·lse·p", rf"{2 * d.z_loss:.6g}\,\mathrm{{lse}}\,p_c")
        whole = Formula(f"dL/d{variable}", rf"\partial L/\partial {variable}_c")
        columns += [chosen.column(pull, d.z_pull), chosen.column(whole, d.z_gradient, bar="pull")]
        formula = Formula(f"{formula.text} + {pull.text}", f"{formula.latex} + {pull.latex}")
    columns.append(chosen.directions(d.z_gradient))
    remarks = (_meaning(d), *_said(d, "gradient"))
    return chosen.step("Gradient", formula, columns, remarks=remarks)


def _difference_symbol(d: Derivation) -> Formula:
    if not (d.masses == d.q).all():
        return Formula("A·p - a", r"A\,p_c - a_c")
    return P_MINUS_Y if d.mass == 1 else Formula("A·p - y", r"A\,p_c - y_c")


def _meaning(d: Derivation) -> str:
    if _is_plain(d) and not d.z_loss:
        return "A step against the gradient raises the target's logit and lowers the others."
    return "A step against the gradient raises a logit with a negative entry, lowers the others."


def _factors(d: Derivation, chosen: Chosen) -> Step:
    f = d.factors
    facts = [Fact(Formula("u", "u"), _whole(f.upstream), "the upstream gradient")]
    if d.sample_weighted:
        facts.append(Fact(Formula("v", "v"), _whole(f.row_weight), "the weight of the row"))
    facts.append(Fact(Formula("D", "D"), _whole(f.denominator), _denominator(d)))
    scale = Formula("u·v/D", r"u\,v/D") if d.sample_weighted else Formula("u/D", "u/D")
    facts.append(Fact(scale, _whole(f.scale)))
    facts.append(Fact(Formula("loss", r"\text{loss}"), d.share, _share(d)))
    said = _said(d, "factors")
    columns: list[Column] = []
    if _is_scaled(d) or f.scale != 1:
        columns = _scaled_columns(d, chosen)
    else:
        said = ("The factor is 1, so the gradient stays as it is.", *said)
    title, formula = "Factors: upstream, weight, reduction", _product(d, scale)
    return chosen.step(title, formula, columns, facts=tuple(facts), remarks=said)


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _product(d: Derivation, scale: Formula) -> Formula:
    if not _is_scaled(d):
        return Formula(f"{scale.text} · dL/dx", rf"{scale.latex}\cdot \partial L/\partial x_c")
    return Formula(
        f"{scale.text} · dL/dz · dz/dx",
        rf"{scale.latex}\cdot \partial L/\partial z_c\cdot \partial z_c/\partial x_c",
    )


def _scaled_columns(d: Derivation, chosen: Chosen) -> list[Column]:
    slope = Formula("dz/dx", r"\partial z_c/\partial x_c")
    slopes = [chosen.column(slope, d.slope, summed=False)] if _is_scaled(d) else []
    gradient = chosen.column(Formula("gradient", r"\text{gradient}"), d.gradient, bar="pull")
    return [*slopes, gradient, chosen.directions(d.gradient)]


def _denominator(d: Derivation) -> str:
    if d.options.reduction != "mean":
        return f"reduction {d.options.reduction} divides by nothing"
    if d.options.normalizer is not None:
        return "as --normalizer says"
    rows = plural(d.factors.counted, "row")
    weights = ["v"] * d.sample_weighted + ["w[target]"] * (d.target is not None and d.weighted)
    return f"Σ {'·'.join(weights)} over {rows}" if weights else f"the mean over {rows}"


def _share(d: Derivation) -> str:
    if d.options.reduction == "none":
        return "of this row"
    if d.rows == 1:
        return f"with the reduction {d.options.reduction}"
    return f"what this row adds to the {d.options.reduction}"


def _checks(d: Derivation) -> Step:
    """The sums; what rounding leaves of them differs between machines, and is not shown."""
    symbol = _difference_symbol(d)
    sums = (
        (Formula("Σ p", r"\sum_c p_c"), d.checks.probabilities, 1),
        (Formula(f"Σ ({symbol.text})", rf"\sum_c ({symbol.latex})"), d.checks.gradient, 0),
    )
    within = f"to within {d.checks.tolerance:.1e}"
    facts = tuple(
        Fact(formula, wanted, within)
        if abs(found - wanted) <= d.checks.tolerance < np.inf
        else Fact(formula, found, f"and not {wanted}")
        for formula, found, wanted in sums
    )
    return Step("Checks", facts=facts)
