"""The methods of calibration, and what they need."""

from __future__ import annotations

from typing import get_args

from xentcli.arrays.dtypes import Array
from xentcli.errors import DataError, OptionError
from xentcli.report.bias import BiasCalibrator
from xentcli.report.calibration_result import Calibration
from xentcli.report.calibration_rows import Rows
from xentcli.report.fitting import Calibrator
from xentcli.report.options import Method


def fit(rows: Rows, method: Method, *, skip_nonfinite: bool = False) -> Calibration:
    """The calibration of some rows by a method."""
    if method not in get_args(Method):
        what = f"{method!r} is not allowed; expected {' or '.join(get_args(Method))}"
        raise OptionError("method", what)
    calibrator = BiasCalibrator if method == "bias" else Calibrator
    return calibrator(rows, skip_nonfinite=skip_nonfinite).run()


def fold_count(folds: int | None, rows: int) -> int:
    """The number of folds, 1 for none; an error for one that is not allowed."""
    if folds is None:
        return 1
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= max(2, rows):
        what = f"{folds!r} is not allowed; expected an integer from 2 to the number of rows"
        raise OptionError("folds", what)
    return folds


def require_indices(targets: Array | None) -> None:
    """An error for probability targets."""
    if targets is None:
        what = "probabilities; a temperature is fitted to class indices only"
        raise DataError("targets", what, "use the class indices that were observed")
