"""JSON, for output: JSON has no NaN, so numbers that are not finite become null and are counted."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from xentcli.dtypes import BF16, Array, name_of, widen
from xentcli.formats.digits import digits
from xentcli.formats.sink import Writable


def write(stream: Writable, array: Array, decimals: int | None = None) -> None:
    """An array with its shape and dtype as one object."""
    name = name_of(array.dtype)
    values = widen(array, np.dtype(np.float32)) if array.dtype == BF16 else array
    head = {"shape": list(array.shape), "dtype": name}
    bad = int(np.count_nonzero(~np.isfinite(values)))
    shortest = [float(number) for number in digits(values.reshape(-1), None)]
    data = plain(np.reshape(shortest, array.shape), decimals)
    stream.write(dumps({**head, "nonfinite": bad, "data": data}).encode())


def dumps(value: dict[str, Any]) -> str:
    """One line of strict JSON."""
    return json.dumps(value, allow_nan=False) + "\n"


def plain(value: Any, decimals: int | None = None) -> Any:
    """Arrays and numbers as lists and floats, with null for what is not finite.

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
