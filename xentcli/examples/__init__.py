"""The worked examples of published articles: what was printed there, reproduced.

An `Example` has the inputs, and `Claim`s: the published figures, each with what it is the rounded
value of. Comparison is by the published digits, never wider. Where an article went on computing
with rounded numbers, the claim does the same, and says so.
"""

from __future__ import annotations

import difflib
from importlib import import_module

from xentcli.errors import OptionError, visible
from xentcli.examples.model import Example

# In the order of the listing; the module that holds each.
HOMES = {
    "three-class": "articles",
    "tie": "articles",
    "four-class": "articles",
    "cat-dog-bird": "articles",
    "perfect": "overflow",
    "batch-mean": "articles",
    "class-weights": "articles",
    "overflow": "overflow",
    "training": "training",
    "upstream": "calculus",
    "jacobian": "calculus",
    "information": "information",
}


def find(name: str) -> Example:
    """The example of that name; an error names the nearest.

    >>> find("tie").logits.tolist()
    [[0.0, 0.0]]
    >>> find("three-clas")
    Traceback (most recent call last):
    xentcli.errors.OptionError: NAME: there is no example 'three-clas' (did you mean three-class?)
    """
    if name not in HOMES:
        near = difflib.get_close_matches(name.lower(), HOMES, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(HOMES)}"
        raise OptionError("NAME", f"there is no example '{visible(name)}'", hint)
    module = import_module(f"xentcli.examples.{HOMES[name]}")
    found: Example = module.EXAMPLES[name]
    return found


def all_examples() -> list[Example]:
    """Every example."""
    return [find(name) for name in HOMES]
