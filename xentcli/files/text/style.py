"""How text is read and written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextStyle:
    """How text is read and written. Without a delimiter the format's own is used."""

    delimiter: str | None = None
    header: bool = False
    decimals: int | None = None

    def between(self, format: str) -> str:
        """The delimiter for `csv` or `tsv`."""
        return self.delimiter or ("\t" if format == "tsv" else ",")
