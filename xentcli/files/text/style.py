"""How text is read and written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextStyle:
    """How text is read and written; without a `delimiter`, that of the format."""

    delimiter: str | None = None
    header: bool = False
    decimals: int | None = None
