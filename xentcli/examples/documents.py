"""Examples as documents: one of them, the list, and the table of all figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.display.document import Column, Document, Formula, Step
from xentcli.errors import plural
from xentcli.examples.model import Example, Figure, Worked
from xentcli.explain.class_selection import View
from xentcli.explain.document import tell

WIDE = 16  # numbers in a row; longer rows are not printed
FOLDER = "sample_data"


def show(worked: Worked, decimals: int) -> Document:
    """One example: inputs, derivation, what goes beyond it, published beside computed figures."""
    e = worked.example
    rows = [tell(worked.derivation(row), View(e.names, e.top, decimals)) for row in e.rows]
    steps = [_inputs(e)]
    for row, document in zip(e.rows, rows, strict=True):
        prefix = f"Row {row}: " if len(e.logits) > 1 else ""
        steps += [replace(step, title=_capital(prefix, step.title)) for step in document.steps]
    steps += e.more(worked) if e.more else ()
    steps.append(_figures(worked))
    return Document(
        title=f"{e.name}: {e.shows}",
        lead=(f"Published in: {e.source}.",),
        steps=tuple(steps),
        decimals=decimals,
        commands=(command(e, FOLDER),),
        data=_data(worked, [document.data for document in rows]),
        table=e.table(worked) if e.table else (),
    )


def _capital(prefix: str, title: str) -> str:
    return prefix + title[0].lower() + title[1:] if prefix else title


def command(example: Example, folder: str) -> str:
    """The ordinary command line on the example's files in a folder."""
    return example.command.format(folder=f"{folder}/{example.name}")


def _inputs(e: Example) -> Step:
    if e.logits.shape[1] > WIDE:
        words = (
            f"{plural(len(e.logits), 'row')} of {plural(e.logits.shape[1], 'class')}: "
            f"{', '.join(e.files)}, as xent examples --write DIR writes them."
        )
        return Step("Inputs", remarks=(words,))
    names = e.names or tuple(map(str, range(e.logits.shape[1])))
    columns = [
        Column(Formula(name, rf"\text{{{name}}}"), tuple(e.logits[:, c].tolist()))
        for c, name in enumerate(names)
    ]
    remarks = []
    if e.targets.ndim == 1:
        columns.append(Column(Formula("target", r"\text{target}"), tuple(e.targets.tolist())))
    else:
        remarks.append(f"The target is the distribution {_listed(e.targets[0])}.")
    if e.weight is not None:
        remarks.append(f"The classes have the weights {_listed(e.weight)}.")
    labels = tuple(map(str, range(len(e.logits))))
    return Step(
        "Inputs", label="row", labels=labels, columns=tuple(columns), remarks=tuple(remarks)
    )


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in np.asarray(values).tolist())


def _columns(figures: tuple[Figure, ...]) -> tuple[Column, ...]:
    def column(title: str, values: list[Any]) -> Column:
        return Column(Formula(title, rf"\text{{{title}}}"), tuple(values))

    return (
        column("published", [figure.published for figure in figures]),
        column("computed", [figure.computed for figure in figures]),
        column("places", ["" if f.decimals is None else str(f.decimals) for f in figures]),
        column("same", ["yes" if figure.same else "NO" for figure in figures]),
        column("exact", [_digits(figure.exact) for figure in figures]),
    )


def _digits(exact: Any) -> str:
    return exact if isinstance(exact, str) else f"{exact:.10g}"


def _figures(worked: Worked) -> Step:
    figures, claims = worked.figures, worked.example.claims
    how = tuple(claim.how for claim in claims if claim.how)
    words = "All are reproduced." if worked.reproduced else "NOT all are reproduced."
    return Step(
        "Published and computed figures",
        label="figure",
        labels=tuple(figure.what for figure in figures),
        columns=_columns(figures),
        remarks=(*how, words),
    )


def listing(examples: list[Example]) -> Document:
    """All examples: name, source, what each shows, whether it is reproduced."""
    worked = [Worked(e) for e in examples]
    columns = (
        Column(
            Formula("reproduced", r"\text{reproduced}"),
            tuple("yes" if w.reproduced else "NO" for w in worked),
        ),
        Column(Formula("what it shows", r"\text{what it shows}"), tuple(e.shows for e in examples)),
        Column(Formula("published in", r"\text{published in}"), tuple(e.source for e in examples)),
    )
    step = Step(
        "Published worked examples",
        label="name",
        labels=tuple(e.name for e in examples),
        columns=columns,
        remarks=("xent examples NAME shows one, xent examples --check compares all figures.",),
    )
    about = [
        {"name": w.example.name, "source": w.example.source, "shows": w.example.shows}
        | {"reproduced": w.reproduced}
        for w in worked
    ]
    return Document("Examples", (), (step,), data={"examples": about})


def checked(examples: list[Example]) -> tuple[Document, list[str]]:
    """Every figure of the examples, and the names of those that differ."""
    worked = [Worked(e) for e in examples]
    steps = tuple(replace(_figures(w), title=w.example.name) for w in worked)
    wrong = [
        f"{w.example.name} {figure.what}" for w in worked for figure in w.figures if not figure.same
    ]
    count = sum(len(w.figures) for w in worked)
    lead = f"{count - len(wrong)} of {plural(count, 'published figure')} reproduced"
    data = {"examples": [_data(w, []) for w in worked], "different": wrong}
    return Document("Published and computed figures", (lead,), steps, data=data), wrong


def _data(worked: Worked, derivations: list[dict[str, Any]]) -> dict[str, Any]:
    e = worked.example
    return {
        "name": e.name,
        "source": e.source,
        "shows": e.shows,
        "reproduced": worked.reproduced,
        "command": command(e, FOLDER),
        "figures": [figure._asdict() for figure in worked.figures],
        **({"derivations": derivations} if derivations else {}),
        **(e.data(worked) if e.data and derivations else {}),
    }
