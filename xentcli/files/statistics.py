"""Statistics of the numbers of an array that comes in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, Array, widen
from xentcli.arrays.sums import RunningSum
from xentcli.files.format import Facts


class Statistics:
    """Smallest, largest and mean of the finite numbers, and how many are not finite.

    >>> numbers = Statistics()
    >>> numbers.add(np.array([1.0, 3.0])), numbers.add(np.array([np.nan]))
    (None, None)
    >>> numbers.facts()
    {'min': 1.0, 'max': 3.0, 'mean': 2.0, 'nan': 1, 'inf': 0}
    """

    def __init__(self) -> None:
        self._count, self._nan, self._inf = 0, 0, 0
        self._smallest: list[Any] = []
        self._largest: list[Any] = []
        self._sum = RunningSum()

    def add(self, values: Array) -> None:
        """The next numbers."""
        values = widen(values, NAMES["f32"]) if values.dtype == BF16 else values
        finite = values[np.isfinite(values)]
        self._count += finite.size
        self._nan += int(np.count_nonzero(np.isnan(values)))
        self._inf += int(np.count_nonzero(np.isinf(values)))
        if finite.size:
            self._smallest = [min([*self._smallest, finite.min().item()])]
            self._largest = [max([*self._largest, finite.max().item()])]
            self._sum.add(finite.astype(np.float64))

    def facts(self) -> Facts:
        """What was found; None where there is no number."""
        mean = self._sum.value() / self._count if self._count else math.nan
        return {
            "min": self._smallest[0] if self._count else None,
            "max": self._largest[0] if self._count else None,
            "mean": mean if math.isfinite(mean) else None,
            "nan": self._nan,
            "inf": self._inf,
        }


def statistics(chunks: Iterator[Array]) -> Facts:
    """Statistics of the numbers of an array; of none where its dtype is V2, which has no values."""
    found = Statistics()
    for chunk in chunks:
        if chunk.dtype == BF16 or chunk.dtype.kind != "V":
            found.add(chunk)
    return found.facts()
