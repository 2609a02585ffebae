"""The methods of calibration, and what they need."""

from __future__ import annotations

from xentcli.arrays.dtypes import Array
from xentcli.errors import DataError, OptionError, plural
from xentcli.options import allowed
from xentcli.report.bias import BiasCalibrator
from xentcli.report.calibration_result import Calibration
from xentcli.report.calibration_rows import Rows
from xentcli.report.fitting import Calibrator
from xentcli.report.options import FOLDS, METHOD, Method


def fit(rows: Rows, method: Method, *, skip_nonfinite: bool = False) -> Calibration:
    """The calibration of some rows by a method."""
    chosen: Method = allowed("method", method, METHOD)
    calibrator = BiasCalibrator if chosen == "bias" else Calibrator
    return calibrator(rows, skip_nonfinite=skip_nonfinite).run()


def fold_count(folds: int | None, rows: int) -> int:
    """The number of folds, 1 for none; an error for one that is not allowed."""
    if folds is None:
        return 1
    count: int = allowed("folds", folds, FOLDS)
    if count > max(2, rows):
        raise OptionError("folds", f"{count} folds of {plural(rows, 'row')}")
    return count


def require_indices(targets: Array | None) -> None:
    """An error for probability targets."""
    if targets is None:
        what = "probabilities; a temperature is fitted to class indices only"
        raise DataError("targets", what, "use the class indices that were observed")
