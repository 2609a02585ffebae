"""Rows that are kept for the diagnosis: a bounded number, wherever they are."""

from __future__ import annotations

from xentcli.check.rows import Rows
from xentcli.dtypes import Array
from xentcli.layout import Layout


class Sample:
    def __init__(self, layout: Layout) -> None:
        pass

    def add(self, rows: Rows, theirs: Array, exact: Array, off: Array) -> None:
        pass
