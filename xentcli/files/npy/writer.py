"""Writing .npy files: version 1.0, C order, little-endian."""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array
from xentcli.files.contiguous import little_endian
from xentcli.files.npy.header import MAGIC
from xentcli.files.sink import Writable


class NpyWriter:
    """An .npy file or stream."""

    def __init__(self, stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._stream = stream
        stream.write(_header_bytes(shape, dtype))

    def write(self, values: Array) -> None:
        """The next numbers."""
        self._stream.write(little_endian(values))

    def finish(self) -> None:
        """Nothing follows the data."""


def _header_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of an array in C order; bfloat16, which NumPy lacks, is the dtype V2."""
    descr = np.dtype("V2") if dtype == BF16 else dtype.newbyteorder("<")
    text = f"{{'descr': '{descr.str}', 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(len(MAGIC) + 4 + len(text) + 1) % 64  # the data start aligned
    header = (text + " " * padding + "\n").encode("latin-1")
    return MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header
