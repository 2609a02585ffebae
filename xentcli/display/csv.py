"""The table of a document as CSV, at full precision."""

from __future__ import annotations

from xentcli.display.document import Document
from xentcli.errors import OptionError


def as_text(document: Document, width: int) -> str:
    """The header and one line per row, with the shortest digits that round-trip."""
    if not document.table:
        raise OptionError(
            "format", "this document has no table for csv", "xent examples training has one"
        )
    return "".join(f"{','.join(map(str, line))}\n" for line in document.table)
