"""A mistake that would explain a gradient, and numbers as reports write them."""

from __future__ import annotations

from typing import NamedTuple

from xentcli.errors import Setting, Speak, Words, worded


class Finding(NamedTuple):
    """A mistake that would explain the gradient: its name, a description, and the evidence."""

    name: str
    words: str
    evidence: Words

    def text(self, speak: Speak = Setting.python) -> str:
        """The description and the evidence, with options written by `speak`."""
        return f"{self.words}: {worded(self.evidence, speak)}"

    def facts(self, speak: Speak = Setting.python) -> dict[str, str]:
        """The finding for JSON."""
        return {**self._asdict(), "evidence": worded(self.evidence, speak)}


def short(value: float) -> str:
    """An error to three digits.

    >>> short(0.123456), short(1234567.0)
    ('0.123', '1.23e+06')
    """
    return f"{value:.3g}"


def number(value: float, dtype: str) -> str:
    """A number with all the digits that its dtype has, and no more."""
    digits = {"float64": 17, "float32": 9}.get(dtype, 6)
    return f"{value:.{digits}g}"
