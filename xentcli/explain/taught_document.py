"""One row against a teacher, as a document."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from xentcli.backends.teacher import Divergence, Tail
from xentcli.display.document import NO_FORMULA, Column, Document, Fact, Formula, Step
from xentcli.errors import plural
from xentcli.explain.class_selection import ClassSelection, DisplayOptions, require_names
from xentcli.explain.taught import TaughtRow

X, P, Q = Formula("x", "x_c"), Formula("p", "p_c"), Formula("q", "q_c")
REST, P_REST = Formula("r", "r"), Formula("p_r", "p_r")
GRADIENT = Formula.in_words("gradient")

LOSSES: dict[int, Formula] = {
    Divergence.CE: Formula("-Σ q·ln p", r"-\sum q\ln p"),
    Divergence.FORWARD_KL: Formula("Σ q·(ln q - ln p)", r"\sum q\,(\ln q - \ln p)"),
    Divergence.REVERSE_KL: Formula("Σ p·(ln p - ln q)", r"\sum p\,(\ln p - \ln q)"),
    Divergence.JSD: Formula(
        "β·Σ q·(ln q - ln m) + (1-β)·Σ p·(ln p - ln m), m = β·q + (1-β)·p",
        r"\beta\sum q\,(\ln q - \ln m) + (1-\beta)\sum p\,(\ln p - \ln m),"
        r"\ m = \beta q + (1-\beta)p",
    ),
}
P_MINUS_Q = Formula("p - q", "p_c - q_c")
WITH_MASS = Formula("(Σ q)·p - q", r"(\sum q)\,p_c - q_c")
GRADIENTS: dict[int, Formula] = {
    Divergence.CE: P_MINUS_Q,
    Divergence.FORWARD_KL: P_MINUS_Q,
    Divergence.REVERSE_KL: Formula("p·(ln p - ln q - L)", r"p_c\,(\ln p_c - \ln q_c - L)"),
    Divergence.JSD: Formula(
        "(1-β)·p·(u - Σ p·u), u = ln p - ln m",
        r"(1-\beta)\,p_c\,(u_c - \sum p u),\ u = \ln p - \ln m",
    ),
}
TAILS: dict[int, str] = {
    Tail.BUCKET: "The classes that are not stored are one class, with r and p_r; their gradients "
    "are in proportion to their p.",
    Tail.UNIFORM: "The classes that are not stored share r evenly.",
    Tail.SUBSET: "Only the stored classes count: p and q are renormalised on them, and the "
    "gradient of the others is 0.",
    Tail.TEACHER: "Only q is renormalised on the stored classes; it is 0 elsewhere.",
    Tail.DROP: "The sum is over the stored classes; nothing is renormalised, so it is no "
    "divergence, and may be negative.",
}

OF_BUCKET = "Of a class that is not stored it is p / p_r times that of the bucket, of p_r and r."


def to_document(d: TaughtRow, display: DisplayOptions) -> Document:
    """The document of a row; raises `OptionError` unless there is a name per class."""
    require_names(display, d.classes)
    shown = ClassSelection(d, display)
    soft = d.task.options
    temperature = f", temperature {d.options.temperature:g}" * (d.options.temperature != 1)
    tail = f", tail {soft.tail}" * (soft.tail is not None)
    intro = f"{plural(d.classes, 'class')}; {soft.divergence} against a teacher{tail}{temperature}"
    return Document(
        title=f"The gradient of row {d.row} of {d.rows}",
        intro=(intro,),
        result=_result(d, shown),
        steps=_ignored(d, shown) if d.ignored else _steps(d, shown),
        decimals=display.decimals,
        data=_data(d, display.names),
    )


def _data(d: TaughtRow, names: tuple[str, ...]) -> dict[str, Any]:
    data = {item.name: getattr(d, item.name) for item in fields(d) if item.name != "task"}
    data["options"] = {**vars(d.options), **vars(d.task.options)}
    return {**data, "factor": d.task.factor, "names": list(names) or None}


def _result(d: TaughtRow, shown: ClassSelection) -> Step:
    columns = [shown.column(X, d.logits, summed=False)]
    if not d.ignored:
        columns += [shown.column(P, d.p), shown.column(Q, d.q)]
    columns += [shown.column(GRADIENT, d.gradient, bar="signed"), shown.directions(d.gradient)]
    facts = [Fact(Formula.in_words("loss"), d.loss, "of this row, in nats")]
    if d.rows > 1 and d.options.reduction != "none":
        facts.append(Fact(Formula.in_words("share"), d.share, f"in the {d.options.reduction}"))
    sentence = _sentence(d)
    return shown.step("Result", NO_FORMULA, columns, facts=tuple(facts), remarks=(sentence,))


def _sentence(d: TaughtRow) -> str:
    if d.ignored:
        return "The row is ignored: its loss and gradient are 0."
    if not np.isfinite(d.gradient).all():
        return "The gradient is not finite, so no step can help."
    up, down = (int(np.count_nonzero(which)) for which in (d.gradient < 0, d.gradient > 0))
    if not up + down:
        return "The gradient is 0, so a step changes nothing."
    return (
        f"A gradient descent step raises the logits of {plural(up, 'class')} and lowers those of "
        f"{plural(down, 'class')}."
    )


def _ignored(d: TaughtRow, shown: ClassSelection) -> tuple[Step, ...]:
    return (shown.step("Logits", NO_FORMULA, [shown.column(X, d.logits, summed=False)]),)


def _steps(d: TaughtRow, shown: ClassSelection) -> tuple[Step, ...]:
    return (_student(d, shown), _teacher(d, shown), _loss(d, shown), *_gradients(d, shown))


def _student(d: TaughtRow, shown: ClassSelection) -> Step:
    t = d.options.temperature
    inside = ("x", "x_c") if t == 1 else (f"x/{t:g}", f"x_c/{t:g}")
    formula = Formula(f"p = softmax({inside[0]})", rf"p = \mathrm{{softmax}}({inside[1]})")
    columns = [shown.column(X, d.logits, summed=False), shown.column(P, d.p, bar="fraction")]
    return shown.step("Student", formula, columns)


def _teacher(d: TaughtRow, shown: ClassSelection) -> Step:
    columns = [shown.column(Q, d.q, bar="fraction")]
    facts = [Fact(Formula("Σ q", r"\sum q"), d.captured, "what the teacher's numbers hold")]
    remarks: tuple[str, ...] = ()
    if d.task.top:
        stored = ["yes" if here else "no" for here in d.stored[shown.indices]]
        rest = (None,) if len(shown.others) else ()
        columns.append(Column(Formula.in_words("stored"), (*stored, *rest)))
        facts.append(Fact(REST, d.rest, "the teacher's probability of the classes not stored"))
        facts.append(Fact(P_REST, d.p_rest, "the student's probability of the same classes"))
        remarks = (TAILS[d.task.scalars.tail],)
    return shown.step("Teacher", NO_FORMULA, columns, facts=tuple(facts), remarks=remarks)


def _loss(d: TaughtRow, shown: ClassSelection) -> Step:
    facts = [Fact(Formula("L", "L"), d.value, "in nats")]
    if d.bucket:
        facts.insert(0, Fact(Formula.in_words("bucket"), d.bucket, "the term of r and p_r"))
    columns = [shown.column(Formula.in_words("term"), d.terms)]
    formula = LOSSES[d.task.scalars.divergence]
    return shown.step("Loss", formula, columns, facts=tuple(facts))


def _gradients(d: TaughtRow, shown: ClassSelection) -> tuple[Step, Step]:
    t, soft = d.options.temperature, d.task.options
    formula = GRADIENTS[d.task.scalars.divergence]
    sums_to_1 = d.task.kind == "logits" or d.task.scalars.tail not in (Tail.ALL, Tail.DROP)
    if formula == P_MINUS_Q and not sums_to_1:
        formula = WITH_MASS
    if t != 1:
        formula = Formula(f"({formula.text}) / {t:g}", rf"\bigl({formula.latex}\bigr)/{t:g}")
    own = shown.column(Formula("dL/dx", r"\partial L/\partial x_c"), d.row_gradient, bar="signed")
    bucket = d.task.scalars.tail == Tail.BUCKET and not d.stored.all()
    columns, remarks = [own, shown.directions(d.row_gradient)], (OF_BUCKET,) * bucket
    first = shown.step("Gradient", formula, columns, remarks=remarks)
    facts = []
    if soft.scale_t2:
        facts.append(Fact(Formula("τ²", r"\tau^2"), t * t, "the squared temperature"))
    if soft.alpha != 1:
        facts.append(Fact(Formula("α", r"\alpha"), soft.alpha, "of the loss against the teacher"))
        facts.append(Fact(Formula.in_words("cross-entropy"), d.hard_loss, "with the target"))
    facts.append(Fact(Formula.in_words("loss"), d.loss, "of this row"))
    columns = [shown.column(GRADIENT, d.gradient, bar="signed"), shown.directions(d.gradient)]
    if soft.alpha != 1:
        hard = Formula.in_words("of the target")
        columns.insert(0, shown.column(hard, d.hard_gradient))
    title = "Factors: temperature, alpha, weight, reduction"
    return first, shown.step(title, NO_FORMULA, columns, facts=tuple(facts))
