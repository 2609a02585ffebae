"""The golden renders: what is drawn in each form, at a fixed width, as files beside this one.

Run it after a change that is meant, and look at the difference: `python tests/golden/make.py`.
"""

from pathlib import Path

import numpy as np

from xentcli.display import as_text
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.examples import all_examples, find
from xentcli.examples.documents import listing, show
from xentcli.examples.model import Worked
from xentcli.explain import derive
from xentcli.explain.class_selection import View
from xentcli.explain.document import tell
from xentcli.options import LossOptions

ALL, NONE = View(), Extras()
HERE = Path(__file__).parent
ENDINGS = {"rich": "rich.txt", "plain": "txt", "markdown": "md", "latex": "tex"}


def document(x, targets, view=ALL, row=0, extras=NONE, **options):
    """The document of one row."""
    x, targets = np.asarray(x, float), np.asarray(targets)
    chosen = LossOptions(**options)
    problem = build(x.shape, Whole(targets), chosen, extras)
    q = targets[row] if problem.probs else None
    return tell(derive(problem, chosen, row, x[row], q), view)


def cat():
    """The smallest one."""
    return document([[1, 2, 3]], [0], View(("cat", "dog", "bird")))


def everything():
    """Every option at once, an ignored row, and an upstream gradient that turns things round."""
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
    """A vocabulary, of which only a few classes matter."""
    x = np.linspace(-1000, 1000, 128_256)
    return document([x], [128_255], View((), 3))


def probabilities():
    """A target that is a distribution."""
    return document([[0.5, -0.5]], [[0.25, 0.75]], View(decimals=12))


def left_out():
    """A row that does not count."""
    return document([[np.nan, 1.0]], [-100])


def renders():
    """Every file's name and what belongs in it."""
    cases = {
        "cat": (cat, (40, 80, 140)),
        "everything": (everything, (40, 80)),
        "extreme": (extreme, (80,)),
        "probabilities": (probabilities, (40, 80)),
        "left-out": (left_out, (80,)),
        "training": (lambda: show(Worked(find("training")), 4), (60,)),
        "list": (lambda: listing(all_examples()), (40, 100, 140)),
    }
    for name, (make, widths) in cases.items():
        made = make()
        for width in widths:
            for form in ("rich", "plain"):
                yield f"{name}-{width}.{ENDINGS[form]}", as_text(made, form, width)
        for form in ("markdown", "latex"):
            yield f"{name}.{ENDINGS[form]}", as_text(made, form)
    yield "cat.html", as_text(cat(), "html")


if __name__ == "__main__":
    for file, text in renders():
        (HERE / file).write_text(text, encoding="utf-8")
