"""Arrays that are written from beginning to end, some numbers at a time.

A writer gets the shape and the dtype first. It takes numbers in the C order of the shape, whole
lines of the last axis at a time.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files import registry
from xentcli.files.options import WriteOptions
from xentcli.files.sink import Writable


class Writer(Protocol):
    """One array as the module docstring describes it."""

    def write(self, values: Array) -> None:
        """Write the next numbers, flat."""

    def finish(self) -> None:
        """Write what comes after the last number."""


def create_writer(
    stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], options: WriteOptions
) -> Writer:
    """The writer of a format; an OptionError for one that cannot be written."""
    format = registry.get_writable(options.format)
    assert format.create_writer
    return format.create_writer(stream, shape, dtype, options)


def save(stream: Writable, array: Array, options: WriteOptions) -> None:
    """Write a whole array."""
    writer = create_writer(stream, array.shape, array.dtype, options)
    if array.size:
        writer.write(array.reshape(-1))
    writer.finish()
