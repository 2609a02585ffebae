"""Writing JSON, which has no NaN: numbers that are not finite become null and are counted."""

from __future__ import annotations

import json
import math
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array, name_of, widen
from xentcli.files.sink import Writable
from xentcli.files.text.printing import PIECE, digits


class JsonWriter:
    """One object with the shape, the dtype, the numbers in nested lists, and last the count of
    those that are not finite."""

    def __init__(
        self,
        stream: Writable,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        decimals: int | None,
    ) -> None:
        self._stream, self._decimals = stream, decimals
        self._lengths = [prod(shape[axis:]) for axis in range(len(shape))]  # of the lists, flat
        self._done, self._nonfinite = 0, 0
        head = json.dumps({"shape": list(shape), "dtype": name_of(dtype)}).removesuffix("}")
        empty = json.dumps(np.empty(shape).tolist()) if 0 in shape else ""
        stream.write(f'{head}, "data": {empty}'.encode())

    def write(self, values: Array) -> None:
        """The next numbers, whole lines of the last axis."""
        values = widen(values, np.dtype(np.float32)) if values.dtype == BF16 else values
        self._nonfinite += int(np.count_nonzero(~np.isfinite(values)))
        width = self._lengths[-1] if self._lengths else 1
        lines = values.reshape(-1, width)
        at_once = max(1, PIECE // width)  # for short lines each call of `digits` would cost most
        for first in range(0, len(lines), at_once):
            shortest = [float(number) for number in digits(lines[first : first + at_once], None)]
            for start in range(0, len(shortest), width):
                self._write_line(shortest[start : start + width])

    def _write_line(self, numbers: list[float]) -> None:
        """One line of the last axis, with the brackets that open before and close after it."""
        text = json.dumps(plain(numbers, self._decimals), allow_nan=False)[1:-1]
        opened = "[" * sum(self._done % length == 0 for length in self._lengths)
        comma = ", " if self._done else ""
        self._done += len(numbers)
        closed = "]" * sum(self._done % length == 0 for length in self._lengths)
        self._stream.write(f"{comma}{opened}{text}{closed}".encode())

    def finish(self) -> None:
        """Write the count and the end of the object."""
        self._stream.write(f', "nonfinite": {self._nonfinite}}}\n'.encode())


def dumps(value: dict[str, Any]) -> str:
    """An object as one line of strict JSON."""
    return json.dumps(value, allow_nan=False) + "\n"


def plain(value: Any, decimals: int | None = None) -> Any:
    """Arrays and numbers as lists and floats, with None where they are not finite.

    >>> plain(np.array([[1.0, np.nan]]))
    [[1.0, None]]
    """
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), decimals)
    if isinstance(value, list):
        return [plain(item, decimals) for item in value]
    if not math.isfinite(value):
        return None
    return value if decimals is None else round(value, decimals)
