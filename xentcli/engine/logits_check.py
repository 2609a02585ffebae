"""Notes on logits that were probably meant otherwise."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import BF16, HALVES, NAMES, Array, bits, widen
from xentcli.engine.notes import Note, all_right, tolerance_of
from xentcli.errors import Setting, Words, plural

LARGEST = 1.01  # of a probability, with what rounding to 16 bits adds
LOOKED_AT = 8  # entries of the first row that tell at once that logits are no probabilities
KIND_OF_LOGITS = Setting("logits_kind", "probs", in_python="logits are their logarithms")


class LogitsCheck:
    """Looks for logits that are probabilities: all rows are in [0, 1] and sum to 1; and counts
    logits of −inf, which masked classes have, where a softcap makes them finite.

    Rows of zeros and a single one are also common as logits, and pass.

    >>> check = LogitsCheck()
    >>> check.add(np.array([[[0.5], [0.5]], [[0.75], [0.25]]]))
    >>> check.notes()[0].text
    'all rows are in [0, 1] and sum to 1, as probabilities do; logits are their logarithms'
    >>> check = LogitsCheck(softcap=30.0)
    >>> check.add(np.array([[[1.0], [-np.inf]]]))
    >>> check.notes()[0].text
    'softcap=30.0 makes 1 logit of -inf finite, so that masked classes get a probability'
    """

    rows = masked = 0  # logits of −inf are counted with a softcap
    all_alike = True  # so far
    fractions = False  # whether there is an entry between 0 and 1

    def __init__(
        self, softcap: float | None = None, where: str = "logits", kind: Setting = KIND_OF_LOGITS
    ) -> None:
        self.softcap, self.where, self.kind = softcap, where, kind

    def add(self, logits: Array) -> None:
        """Check the next rows, a box (outer, C, inner); usually the first row settles it."""
        self.rows += logits.shape[0] * logits.shape[2]
        if self.softcap is not None and logits.size:
            self.masked += _count_masked(logits)
        if not self.all_alike or not logits.size:
            return
        if not _may_be_probabilities(logits):
            self.all_alike = False
            return
        tolerance = tolerance_of(logits.dtype)
        with np.errstate(all="ignore"):
            for box in (logits[:1, :, :1], logits):
                if not self.all_alike:
                    return
                values = widen(box, NAMES["f32"]) if box.dtype in HALVES else box
                self.all_alike = all_right(values, tolerance)
                self.fractions |= self.all_alike and bool(np.any((values > 0) & (values < 1)))

    def merge(self, other: LogitsCheck) -> None:
        """Take what was found in the rows that follow."""
        self.rows += other.rows
        self.masked += other.masked
        self.all_alike = self.all_alike and other.all_alike
        self.fractions |= other.fractions

    def notes(self) -> list[Note]:
        """What was found."""
        found: list[Words] = []
        if self.rows and self.all_alike and self.fractions:
            what = "all rows are in [0, 1] and sum to 1, as probabilities do; "
            found.append((what, self.kind))
        if self.masked:
            what = f" makes {plural(self.masked, 'logit')} of -inf finite, so that masked classes "
            found.append((Setting("softcap", self.softcap), f"{what}get a probability"))
        return [Note(self.where, words, strict=True) for words in found]


def _may_be_probabilities(logits: Array) -> bool:
    """Whether the first entries may be, which settles it for most logits."""
    if logits.dtype.kind == "f" and not 0 <= logits.item(0) <= LARGEST:
        return False
    first = logits[0, :LOOKED_AT, 0]
    values = widen(first, NAMES["f32"]) if first.dtype == BF16 else first
    return all(0 <= value <= LARGEST for value in values.tolist())


def _count_masked(logits: Array) -> int:
    """How many logits are −inf."""
    if logits.dtype in HALVES:  # NumPy compares their bits faster
        most_negative = 0xFF80 if logits.dtype == BF16 else 0xFC00
        return int(np.count_nonzero(bits(logits).view(np.uint16) == most_negative))
    least = logits.min()
    return 0 if np.isfinite(least) else int(np.count_nonzero(logits == -np.inf))
