"""The logits divided by a temperature, piece by piece."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, as_logits, default_output, narrow, widen
from xentcli.engine.rows import walk
from xentcli.report.calibration_rows import Rows


class ArrayConsumer(Protocol):
    """Takes an array piece by piece, of a shape and dtype that it is told before."""

    def expect(self, shape: tuple[int, ...], dtype: Any, like: str) -> None:
        """The shape, the dtype, and the format of the input."""

    def write(self, values: Array) -> None:
        """The next numbers, flat."""


def write_scaled(rows: Rows, temperature: float, out: ArrayConsumer) -> None:
    """One more pass: the logits divided by T, in their dtype (float32 for 16 bits)."""
    with rows.opener() as source:
        logits = source.logits
        dtype = default_output(as_logits(np.empty(0, logits.dtype)).dtype)
        out.expect(logits.shape, dtype, logits.format)
        for piece in walk(rows.problem, source):
            values = widen(piece.logits.reshape(-1), NAMES["f64"]) / temperature
            out.write(narrow(values, dtype))
