"""What a user should be told about a result that is right and may surprise all the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xentcli.dtypes import HALVES, NAMES, Array, native, widen
from xentcli.errors import plural


class Note(NamedTuple):
    """One sentence about an argument, and whether `--strict` makes it an error."""

    where: str
    text: str
    strict: bool


class ProbabilityCheck:
    """Looks for probabilities that are negative or do not sum to 1; keeps the worst row.

    >>> check = ProbabilityCheck(np.dtype("f8"))
    >>> check.add(np.array([[0.5, 0.5], [0.75, 0.75]]))
    >>> check.notes()[0].text
    '1 of 2 rows is no distribution; the worst: row 1 sums to 1.5'
    """

    def __init__(self, dtype: np.dtype[np.generic]) -> None:
        # Four printed digits are enough to pass, and so is what a half type can hold.
        self.tolerance = 1e-2 if native(dtype) in HALVES else 1e-3
        self.rows = 0
        self.wrong = 0
        self.worst = (0.0, 0, "")

    def add(self, q: Array) -> None:
        """Look at the next rows, the classes on axis 1. float32 is precise enough for this."""
        values = widen(q, NAMES["f32"]) if q.dtype in HALVES else q
        with np.errstate(all="ignore"):
            sums, smallest = values.sum(axis=1).reshape(-1), values.min(axis=1).reshape(-1)
            error = np.maximum(np.abs(sums - 1), np.where(smallest < 0, 1 - smallest, 0.0))
        error[np.isnan(error)] = np.inf
        self.wrong += int(np.count_nonzero(error > self.tolerance))
        row = int(np.argmax(error)) if len(error) else 0
        if len(error) and error[row] > max(self.worst[0], self.tolerance):
            what = (
                f"has the entry {smallest[row]:.6g}"
                if smallest[row] < 0
                else f"sums to {sums[row]:.6g}"
            )
            self.worst = (float(error[row]), self.rows + row, what)
        self.rows += len(sums)

    def notes(self) -> list[Note]:
        """What was found."""
        if not self.wrong:
            return []
        _, row, what = self.worst
        verb = "is" if self.wrong == 1 else "are"
        text = (
            f"{self.wrong} of {plural(self.rows, 'row')} {verb} no distribution; "
            f"the worst: row {row} {what}"
        )
        return [Note("targets", text, strict=True)]


def nonfinite_rows(values: Array, what: str) -> list[Note]:
    """A note that counts the rows whose value is NaN or infinite.

    >>> nonfinite_rows(np.array([1.0, np.inf]), "loss")[0].text
    'the loss of 1 of 2 rows is not finite; first: row 1 is inf'
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    text = (
        f"the {what} of {np.count_nonzero(bad)} of {plural(values.size, 'row')} is not finite; "
        f"first: row {row} is {values[row]:g}"
    )
    return [Note("logits", text, strict=True)]
