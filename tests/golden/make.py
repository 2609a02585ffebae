"""The golden files: documents in each format, at fixed widths.

After an intended change run `python tests/golden/make.py`, and read the diff.
"""

from pathlib import Path

import numpy as np

from xentcli.display import as_text
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.examples import all_examples, find
from xentcli.examples.documents import example_document, list_document
from xentcli.examples.example import ComputedExample
from xentcli.explain import derive
from xentcli.explain.class_selection import DisplayOptions
from xentcli.explain.document import to_document
from xentcli.options import LossOptions
from xentcli.report import calibrate, report
from xentcli.report.calibration_document import to_document as calibration_document
from xentcli.report.document import to_document as report_document

DEFAULT, NONE = DisplayOptions(), Extras()
HERE = Path(__file__).parent
ENDINGS = {"rich": "rich.txt", "plain": "txt", "markdown": "md", "latex": "tex"}


def document(x, targets, display=DEFAULT, row=0, extras=NONE, **options):
    """The document of one row."""
    x, targets = np.asarray(x, float), np.asarray(targets)
    chosen = LossOptions(**options)
    problem = build(x.shape, Whole(targets), chosen, extras)
    q = targets[row] if problem.probs else None
    return to_document(derive(problem, chosen, row, x[row], q), display)


def cat():
    """The smallest one."""
    return document([[1, 2, 3]], [0], DisplayOptions(("cat", "dog", "bird")))


def everything():
    """Every option at once, an ignored row, and a negative upstream gradient."""
    return document(
        [[1, 2, 3], [40, 3, 0], [0, 0, 0]],
        [0, 1, -100],
        row=1,
        extras=Extras([1.0, 2.0, 3.0], [1.0, 2.0, 1.0], -2.0),
        label_smoothing=0.1,
        temperature=0.5,
        softcap=30.0,
        z_loss=0.1,
    )


def extreme():
    """A vocabulary, where only a few classes matter."""
    x = np.linspace(-1000, 1000, 128_256)
    return document([x], [128_255], DisplayOptions((), 3))


def probabilities():
    """Target probabilities."""
    return document([[0.5, -0.5]], [[0.25, 0.75]], DisplayOptions(decimals=12))


def ignored():
    """An ignored row."""
    return document([[np.nan, 1.0]], [-100])


def logits_and_targets():
    """Rows that are mostly right, one of them a tie."""
    x = np.round(np.sin(np.arange(120.0) ** 2).reshape(40, 3) * 8) / 4
    y = np.where(np.arange(40) % 5 == 0, np.arange(40) % 3, x.argmax(axis=1))
    return x, y


def report_on_rows():
    """A report with everything in it."""
    x, y = logits_and_targets()
    found = report(
        *(x, y),
        base=x * 0.9,
        group=np.arange(40) // 5,
        bytes=70,
        words=9,
        bins=5,
        confusion=3,
        worst=3,
    )
    return report_document(found, ("cat", "dog", "bird"))


def calibration():
    """A calibration, cross-fitted."""
    return calibration_document(calibrate(*logits_and_targets(), folds=2))


def renders():
    """The name and the content of each file."""
    cases = {
        "cat": (cat, (40, 80, 140)),
        "everything": (everything, (40, 80)),
        "extreme": (extreme, (80,)),
        "probabilities": (probabilities, (40, 80)),
        "ignored": (ignored, (80,)),
        "training": (lambda: example_document(ComputedExample(find("training")), 4), (60,)),
        "report": (report_on_rows, (40, 80, 140)),
        "calibration": (calibration, (80,)),
        "list": (lambda: list_document(all_examples()), (40, 100, 140)),
    }
    for name, (build_document, widths) in cases.items():
        made = build_document()
        for width in widths:
            for form in ("rich", "plain"):
                yield f"{name}-{width}.{ENDINGS[form]}", as_text(made, form, width)
        for form in ("markdown", "latex"):
            yield f"{name}.{ENDINGS[form]}", as_text(made, form)
    yield "cat.html", as_text(cat(), "html")


if __name__ == "__main__":
    for file, text in renders():
        (HERE / file).write_text(text, encoding="utf-8")
