"""Softmax cross-entropy loss and its gradient with respect to the logits.

The functions, `Teacher`, their result and the errors are loaded when they are first used, so that
`import xentcli` costs next to nothing and never imports numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from xentcli.engine.cross_entropy import cross_entropy
    from xentcli.engine.result import CrossEntropy
    from xentcli.engine.softmax import log_softmax, softmax
    from xentcli.engine.teacher.arrays import Teacher
    from xentcli.errors import (
        DataError,
        FileError,
        OptionError,
        UnavailableError,
        XentError,
    )

__all__ = [
    "CrossEntropy",
    "DataError",
    "FileError",
    "OptionError",
    "Teacher",
    "UnavailableError",
    "XentError",
    "__version__",
    "cross_entropy",
    "log_softmax",
    "softmax",
]

_HOME = {
    "CrossEntropy": "engine.result",
    "cross_entropy": "engine.cross_entropy",
    "log_softmax": "engine.softmax",
    "softmax": "engine.softmax",
    "Teacher": "engine.teacher.arrays",
    **{name: "errors" for name in __all__ if name.endswith("Error")},
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'xentcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"xentcli.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
