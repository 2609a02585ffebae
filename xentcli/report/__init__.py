"""What logits and targets say about a model: perplexity, accuracy, calibration, with errors.

    from xentcli.report import calibrate, report

`xent report` and `xent calibrate` are the same for files. The functions and their results are
loaded when they are first used, so that the help of the command line loads no NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xentcli.report.api import calibrate, report
    from xentcli.report.bins import Bin
    from xentcli.report.calibration_result import Calibration
    from xentcli.report.classes import ClassResult, Confusion
    from xentcli.report.result import Report
    from xentcli.report.statistic import Statistic
    from xentcli.report.worst import WorstRow

__all__ = [
    "Bin",
    "Calibration",
    "ClassResult",
    "Confusion",
    "Report",
    "Statistic",
    "WorstRow",
    "calibrate",
    "report",
]

_HOME = {
    "Bin": "bins",
    "Calibration": "calibration_result",
    "ClassResult": "classes",
    "Confusion": "classes",
    "Report": "result",
    "Statistic": "statistic",
    "WorstRow": "worst",
    "calibrate": "api",
    "report": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'xentcli.report' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"xentcli.report.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
