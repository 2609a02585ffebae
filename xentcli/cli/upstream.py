"""An upstream gradient on the command line: a number, or the path of a file."""

from __future__ import annotations

import math
import os
import re

from xentcli.errors import OptionError

NUMBER = r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|infinity)"


def number_of(text: str | None) -> float | None:
    """An upstream that is a number; None if it is a path."""
    if text is None or not re.fullmatch(NUMBER, text):
        return None
    value = float(text)
    if not math.isfinite(value):
        raise OptionError("upstream", f"{text} is not allowed; expected a finite number or a file")
    if os.path.lexists(text):
        what = f"{text} is a number, and there is a file of that name"
        raise OptionError("upstream", what, f"./{text} is the file; write the number another way")
    return value
