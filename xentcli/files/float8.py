"""The 8-bit floats of the OCP specification, read through a table of their 256 values.

Source: OCP 8-bit Floating Point Specification (OFP8), 2023: E4M3 has no infinities and a NaN of
each sign, E5M2 is the upper half of a float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import Words
from xentcli.files.contiguous import ContiguousReader
from xentcli.files.reader import chunks


def e4m3() -> Array:
    """The values of float8_e4m3fn as float32.

    >>> e4m3()[[0x01, 0x38, 0x7E, 0xC0]].tolist()
    [0.001953125, 1.0, 448.0, -2.0]
    """
    bits = np.arange(128)
    exponent, fraction = bits >> 3, (bits & 7) / 8
    normal = np.ldexp(1 + fraction, exponent - 7)
    values = np.where(exponent == 0, np.ldexp(fraction, -6), normal)
    values[127] = np.nan
    return np.concatenate([values, -values]).astype(np.float32)


def e5m2() -> Array:
    """The values of float8_e5m2 as float32.

    >>> e5m2()[[0x01, 0x3C, 0x7B, 0xFC]].tolist()
    [1.52587890625e-05, 1.0, 57344.0, -inf]
    """
    return (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)


class Float8Reader:
    """Numbers of 8 bits as float32."""

    unit = best_count = 1
    remarks: tuple[Words, ...] = ()

    def __init__(self, bytes: ContiguousReader, values: Array) -> None:
        self._bytes, self._values = bytes, values
        self.name, self.format, self.shape = bytes.name, bytes.format, bytes.shape
        self.dtype: np.dtype[Any] = values.dtype

    def make_buffer(self, count: int) -> None:
        """None: the values are new anyway."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next numbers."""
        return self._values[self._bytes.read(count)]

    def skip(self, count: int) -> None:
        """Skip the next numbers."""
        self._bytes.skip(count)

    def finish(self) -> None:
        """Check that the rest is as long as the header says."""
        self._bytes.finish()

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array at once."""
        return self._values[self._bytes.whole()]
