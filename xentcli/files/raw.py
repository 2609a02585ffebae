"""Numbers without a header, as `tofile` and C programs write them, in a layout that is given."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import BF16
from xentcli.errors import FormatError
from xentcli.files.contiguous import ContiguousReader, Extent
from xentcli.files.reader import Reader
from xentcli.files.source import Source
from xentcli.records import dataclass

DTYPES = {"f16": np.dtype("<f2"), "bf16": BF16, "f32": np.dtype("<f4"), "f64": np.dtype("<f8")}
DTYPES |= {f"{kind}{8 * n}": np.dtype(f"<{kind}{n}") for kind in "iu" for n in (1, 2, 4, 8)}


@dataclass(frozen=True)
class RawLayout:
    """Dtype by name, shape, and bytes before the numbers, which are little-endian in C order."""

    dtype: str
    shape: tuple[int, ...]
    offset: int = 0


def open_raw(source: Source, layout: RawLayout) -> Reader:
    """The reader of numbers in a layout, which must be as long as the file."""
    dtype = DTYPES[layout.dtype]
    extent = Extent(shape=layout.shape, dtype=dtype, start=layout.offset)
    if extent.is_too_large:
        raise FormatError(source.name, f"shape {layout.shape} is larger than the address space")
    skipped = source.skip(layout.offset) if source.size is None else layout.offset
    if skipped < layout.offset or (source.size is not None and layout.offset > source.size):
        raise FormatError(source.name, f"ends before byte {layout.offset}, where the numbers begin")
    if source.size is not None:
        source.seek(layout.offset)
    return ContiguousReader(source, extent, "npy")  # results have that format by default
