"""The number that stands for what no chunk holds: zarr's `fill_value`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array, narrow
from xentcli.errors import FormatError, shown

WORDS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


def fill_value(document: Mapping[str, Any], dtype: np.dtype[Any] | None, where: str) -> Array:
    """The fill value as an array of one number; 0 where the metadata have none.

    >>> fill_value({"fill_value": "NaN"}, np.dtype("f4"), "x").tolist()
    [nan]
    >>> fill_value({"fill_value": "0x3f80"}, BF16, "x").tolist()
    [(16256,)]
    """
    value = document.get("fill_value")
    if dtype is None or value is None:
        return np.zeros(1, dtype or np.uint8)
    try:
        return _converted(value, dtype)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise FormatError(where, f"fill_value {shown(value)} is no {dtype.name}") from error


def _converted(value: Any, dtype: np.dtype[Any]) -> Array:
    if isinstance(value, str) and value not in WORDS:
        if value.startswith("0x"):
            bits = int(value, 16).to_bytes(dtype.itemsize, "little")
            return np.frombuffer(bits, np.uint8).view(_little(dtype)).astype(dtype)
        raw = base64.b64decode(value, validate=True)
        return np.frombuffer(raw, np.uint8).view(dtype).reshape(1).copy()
    number = WORDS.get(value, value) if isinstance(value, str) else value
    if dtype == BF16:
        return narrow(np.array([float(number)], np.float32), BF16)
    if dtype.kind == "V":
        return np.array([int(number)], np.uint16).view(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.array([number]).astype(dtype)
    if dtype.kind != "f" and found[0] != number:
        raise ValueError
    return found


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.kind == "V" else dtype.newbyteorder("<")
