"""The logits after calibration, piece by piece."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, as_logits, default_output, narrow, widen
from xentcli.engine.rows import walk
from xentcli.report.calibration_result import Calibration
from xentcli.report.calibration_rows import Rows


class ArrayConsumer(Protocol):
    """Takes an array piece by piece, of a shape and dtype that it is told before."""

    def expect(self, shape: tuple[int, ...], dtype: Any, like: str) -> None:
        """The shape, the dtype, and the format of the input."""

    def write(self, values: Array) -> None:
        """The next numbers, flat."""


def write_scaled(rows: Rows, result: Calibration, out: ArrayConsumer) -> None:
    """One more pass: logits / T + b, in the dtype of the logits (float32 for 16 bits)."""
    biases = np.asarray(result.biases or 0.0).reshape(1, -1, 1)
    with rows.opener() as source:
        logits = source.logits
        dtype = default_output(as_logits(np.empty(0, logits.dtype)).dtype)
        out.expect(logits.shape, dtype, logits.format)
        for piece in walk(rows.problem, source):
            scaled = widen(piece.logits, NAMES["f64"]) / result.temperature + biases
            out.write(narrow(scaled.reshape(-1), dtype))
