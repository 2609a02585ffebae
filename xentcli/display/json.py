"""The data of a document as one line of strict JSON, at full precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xentcli.display.document import Document
from xentcli.files.json import dumps, plain


def as_text(document: Document, width: int) -> str:
    """One object; NaN and infinity become null, and are counted unless the data do it."""
    counted = [0]
    data = _strict(document.data, counted)
    return dumps({**data, "nonfinite": data.get("nonfinite", counted[0])})


def _strict(value: Any, counted: list[int]) -> Any:
    if isinstance(value, dict):
        return {name: _strict(item, counted) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        bad = int(np.count_nonzero(~np.isfinite(value)))
        counted[0] += bad
        return plain(value) if bad else value.tolist()
    if isinstance(value, list | tuple):
        return [_strict(item, counted) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        counted[0] += 1
        return None
    return value
