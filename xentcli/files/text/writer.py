"""Writing numbers as text: the shortest digits for the same bits, or rounded to some decimals."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import BF16, Array, widen
from xentcli.files.sink import Writable
from xentcli.files.text.printing import encode
from xentcli.files.text.style import TextStyle


class TextWriter:
    """Lines of numbers; an array of one axis has one number on each line."""

    def __init__(
        self, stream: Writable, shape: tuple[int, ...], style: TextStyle, delimiter: str
    ) -> None:
        self._stream, self._decimals = stream, style.decimals
        self._delimiter = style.delimiter or delimiter
        self._width = shape[-1] if len(shape) == 2 else 1

    def write(self, values: Array) -> None:
        """The next lines."""
        table = values.reshape(-1, self._width)
        write_table(self._stream, table, self._delimiter, self._decimals)

    def finish(self) -> None:
        """Nothing follows the last line."""


def write_table(
    stream: Writable, array: Array, delimiter: str = ",", decimals: int | None = None
) -> None:
    """An array of 2 axes as lines, of 1 axis as one number per line."""
    if array.dtype == BF16:
        array = widen(array, np.dtype(np.float32))
    table = array if array.ndim == 2 else array.reshape(-1, 1)
    if array.dtype.kind in "iu":
        lines = (delimiter.join(map(str, row)) for row in table.tolist())
        stream.write("".join(f"{line}\n" for line in lines).encode("ascii"))
        return
    for part in encode(table, delimiter.encode(), decimals):
        stream.write(part)
