"""Examples as documents: a single example, the list, and the comparison of all figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.display.document import Column, Document, Formula, Step
from xentcli.errors import plural
from xentcli.examples.example import By, ComputedExample, Example
from xentcli.explain.class_selection import DisplayOptions
from xentcli.explain.document import to_document

MAX_CLASSES = 16  # inputs with more classes are not printed
FOLDER = "xent-examples"
BY: dict[By, str] = {
    "exact": "exact arithmetic",
    "article": "as the article",
    "statement": "statement",
}


def example_document(computed: ComputedExample, decimals: int) -> Document:
    """One example: inputs, derivation, extra steps, and published and computed figures."""
    e = computed.example
    display = DisplayOptions(e.names, e.top, decimals)
    rows = [to_document(computed.derivation(row), display) for row in e.rows]
    steps = [_inputs(e)]
    for row, document in zip(e.rows, rows, strict=True):
        prefix = f"Row {row}: " if len(e.logits) > 1 else ""
        if len(rows) > 1 and document.result:
            steps.append(replace(document.result, title=_prefixed(prefix, document.result.title)))
        steps += [replace(step, title=_prefixed(prefix, step.title)) for step in document.steps]
    steps += e.extra_steps(computed) if e.extra_steps else ()
    steps.append(_figures(computed))
    return Document(
        title=f"{e.name}: {e.description}",
        intro=(f"Source: {e.source}.",),
        result=rows[0].result if len(rows) == 1 else None,
        steps=tuple(steps),
        decimals=decimals,
        commands=(command_anywhere(e),),
        data=_data(computed, [document.data for document in rows]),
        table=e.table(computed) if e.table else (),
    )


def _prefixed(prefix: str, title: str) -> str:
    return prefix + title[0].lower() + title[1:] if prefix else title


def command(example: Example, folder: str) -> str:
    """The command line for the example's files in a folder."""
    return example.command.format(folder=f"{folder}/{example.name}")


def command_anywhere(example: Example) -> str:
    """The same, which first writes the files."""
    written = f"xent examples {example.name} --write {FOLDER}"
    return f"{written} && {command(example, FOLDER)}"


def _inputs(e: Example) -> Step:
    rows, classes = e.logits.shape
    if classes > MAX_CLASSES:
        size = f"{plural(rows, 'row')} of {plural(classes, 'class')}"
        files = f"xent examples --write DIR writes them ({', '.join(e.files)})."
        return Step("Inputs", remarks=(f"{size}, which are not printed; {files}",))
    columns = [
        Column(Formula.in_words(name), tuple(e.logits[:, c].tolist()))
        for c, name in enumerate(e.names or map(str, range(classes)))
    ]
    remarks = []
    if e.targets.ndim == 1:
        columns.append(Column(Formula.in_words("target"), tuple(e.targets.tolist())))
    else:
        remarks.append(f"The target is the distribution {_listed(e.targets[0])}.")
    if e.weight is not None:
        remarks.append(f"Class weights: {_listed(e.weight)}.")
    labels = tuple(map(str, range(rows)))
    return Step(
        "Inputs", heading="row", labels=labels, columns=tuple(columns), remarks=tuple(remarks)
    )


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in np.asarray(values).tolist())


def _figures(computed: ComputedExample) -> Step:
    """Published and computed figures, and whether they are the same."""
    figures = computed.comparisons
    columns = {
        "published": [figure.published for figure in figures],
        "computed": [figure.computed for figure in figures],
        "places": ["" if figure.decimals is None else str(figure.decimals) for figure in figures],
        "same": ["yes" if figure.same else "NO" for figure in figures],
        "by": [BY[figure.by] for figure in figures],
        "exact": [_full(figure.exact) for figure in figures],
    }
    notes = [published.note for published in computed.example.published if published.note]
    all_or_not = "All" if computed.reproduced else "NOT all"
    return Step(
        "Published and computed figures",
        heading="figure",
        labels=tuple(figure.what for figure in figures),
        columns=_word_columns(columns),
        remarks=(*notes, f"{all_or_not} figures are reproduced."),
    )


def _full(exact: Any) -> str:
    return exact if isinstance(exact, str) else f"{exact:.10g}"


def _word_columns(columns: dict[str, list[str]]) -> tuple[Column, ...]:
    return tuple(Column(Formula.in_words(title), tuple(v)) for title, v in columns.items())


def list_document(examples: list[Example]) -> Document:
    """All examples: name, source, description, and whether they are reproduced."""
    computed = [ComputedExample(e) for e in examples]
    columns = {
        "exactly": [_exactly(c) for c in computed],
        "description": [e.description for e in examples],
        "source": [e.source for e in examples],
    }
    step = Step(
        "Published worked examples",
        heading="name",
        labels=tuple(e.name for e in examples),
        columns=_word_columns(columns),
        remarks=(
            "'exactly' counts the published numbers that exact arithmetic reproduces; 'article': "
            "some need the article's own rounding, or a start fitted to its figures.",
            "xent examples NAME shows one, xent examples --check compares all figures.",
        ),
    )
    about = [_listing(c) for c in computed]
    return Document("Examples", (), (step,), data={"examples": about})


def _listing(c: ComputedExample) -> dict[str, Any]:
    about = {"name": c.example.name, "source": c.example.source, "shows": c.example.description}
    return {**about, "reproduced": c.reproduced, **{by: c.count(by) for by in BY}}


def check_document(examples: list[Example]) -> tuple[Document, list[str]]:
    """All figures of the examples, and the names of those that differ."""
    computed = [ComputedExample(e) for e in examples]
    steps = tuple(replace(_figures(c), title=c.example.name) for c in computed)
    figures = [(c.example.name, figure) for c in computed for figure in c.comparisons]
    different = [f"{name} {figure.what}" for name, figure in figures if not figure.same]
    intro = _headlines(computed)
    data = {"examples": [_data(c, []) for c in computed], "different": different}
    return Document("Published and computed figures", intro, steps, data=data), different


def _exactly(c: ComputedExample) -> str:
    """How the figures of an example are reproduced, in few characters."""
    if not c.reproduced:
        return "NO"
    numbers = c.count("exact") + c.count("article")
    if not numbers:
        return "statement"
    return f"{c.count('exact')} of {numbers}" + (", article" if c.count("article") else "")


def _headlines(computed: list[ComputedExample]) -> tuple[str, ...]:
    """What was published as a number and follows from exact arithmetic; all else apart."""
    figures = [figure for c in computed for figure in c.comparisons]
    numbers = [figure for figure in figures if figure.by != "statement"]
    exact, article, statement = [sum(c.count(by) for c in computed) for by in BY]
    lines = [
        f"{exact} of {plural(len(numbers), 'published number')} reproduced by exact arithmetic"
    ]
    if article:
        how = "with its own rounding, or a start fitted to its figures"
        lines.append(f"{article} more only as the article computed: {how}")
    statements = len(figures) - len(numbers)
    if statements:
        lines.append(f"{statement} of {plural(statements, 'statement')} without a number hold")
    return tuple(lines)


def _data(computed: ComputedExample, derivations: list[dict[str, Any]]) -> dict[str, Any]:
    e = computed.example
    return {
        "name": e.name,
        "source": e.source,
        "shows": e.description,
        "reproduced": computed.reproduced,
        "command": command_anywhere(e),
        "figures": [figure._asdict() for figure in computed.comparisons],
        **({"derivations": derivations} if derivations else {}),
        **(e.extra_data(computed) if e.extra_data and derivations else {}),
    }
