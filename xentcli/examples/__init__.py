"""Worked examples from published articles, recomputed and compared with the printed figures.

An `Example` has the inputs and the figures as published. They are compared digit by digit, with no
tolerance beyond the printed digits. Where an article continued with rounded numbers, the comparison
does the same and says so.
"""

from __future__ import annotations

import difflib
from importlib import import_module

from xentcli.errors import OptionError, visible
from xentcli.examples.example import Example

# The module of each example, in the order of the list.
MODULES = {
    "three-class": "basic",
    "tie": "basic",
    "four-class": "basic",
    "cat-dog-bird": "basic",
    "perfect": "overflow",
    "batch-mean": "basic",
    "class-weights": "basic",
    "overflow": "overflow",
    "training": "training",
    "upstream": "calculus",
    "jacobian": "calculus",
    "information": "information",
}


def find(name: str) -> Example:
    """The example of that name; an unknown name is an error that suggests the closest.

    >>> find("tie").logits.tolist()
    [[0.0, 0.0]]
    >>> find("three-clas")
    Traceback (most recent call last):
    xentcli.errors.OptionError: NAME: no example named 'three-clas' (did you mean three-class?)
    """
    if name not in MODULES:
        close = difflib.get_close_matches(name.lower(), MODULES, 1, 0.4)
        hint = f"did you mean {close[0]}?" if close else f"available: {', '.join(MODULES)}"
        raise OptionError("NAME", f"no example named '{visible(name)}'", hint)
    module = import_module(f"xentcli.examples.{MODULES[name]}")
    found: Example = module.EXAMPLES[name]
    return found


def all_examples() -> list[Example]:
    """Every example."""
    return [find(name) for name in MODULES]
