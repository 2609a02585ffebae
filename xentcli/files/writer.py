"""Arrays that are written from beginning to end, some numbers at a time.

A writer gets the shape and the dtype first. It takes numbers in the C order of the shape, whole
lines of the last axis at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xentcli.arrays.dtypes import Array


class Writer(Protocol):
    """One array as the module docstring describes it."""

    def write(self, values: Array) -> None:
        """Write the next numbers, flat."""

    def finish(self) -> None:
        """Write what comes after the last number."""


class Written:
    """The writer of an array that others write."""

    def write(self, values: Array) -> None:
        """Nothing is left to write."""

    def finish(self) -> None:
        """Nothing follows."""
