"""The summary line, notes and JSON object of a result."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

from xentcli.cli.console import inform, note
from xentcli.cli.session import as_flag, current
from xentcli.errors import StrictError, plural, worded

if TYPE_CHECKING:
    from xentcli.engine.notes import Note
    from xentcli.engine.result import CrossEntropy
    from xentcli.options import LossOptions

WORTH_A_RATE = 10_000_000, 1.0  # bytes, seconds; with less most of the time is start-up


class Work:
    """Elapsed time, and bytes of large arrays that were moved."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.nbytes = 0
        self.seconds = 0.0

    def done(self, *arrays: Any) -> None:
        """Stop the clock; `arrays` are readers and outputs, or None."""
        self.seconds = time.perf_counter() - self._start
        self.nbytes = sum(map(nbytes, filter(None, arrays)))


def nbytes(array: Any) -> int:
    """The size of a reader's or an output's array."""
    return int(prod(array.shape) * array.dtype.itemsize)


def emit_notes(notes: Iterable[Note], *, strict: bool) -> None:
    """Print the notes; with `strict` the first that is serious is an error."""
    for item in notes:
        if strict and item.strict:
            raise StrictError(item.where, item.words, "without --strict this is only a note")
        note(note_text(item))


def note_text(item: Note) -> str:
    """A note as the command line words it."""
    return f"{current().called(item.where)}: {worded(item.words, as_flag)}"


def loss_words(result: CrossEntropy, reduction: str) -> list[str]:
    """The loss, the rows it is taken over, and how much of a teacher's probability is stored."""
    ignored = f", {result.ignored} ignored" if result.ignored else ""
    words = plural(result.rows, "loss") + ignored
    if reduction != "none":
        counted = plural(result.rows - result.ignored, "row")
        words = f"loss {result.loss:.9g} ({reduction} over {counted}{ignored})"
    if not result.captured:
        return [words]
    mean, least, row = result.captured
    return [
        words,
        f"teacher stores {mean:.6g} of its probability, at least {least:.6g} (row {row})",
    ]


def summary(parts: list[str], backend: str, work: Work) -> None:
    """Write the summary line to stderr; with the rate of work that took long."""
    seconds = work.seconds
    rated = work.nbytes >= WORTH_A_RATE[0] and seconds >= WORTH_A_RATE[1]
    rate = f", {work.nbytes / seconds / 1e9:.3g} GB/s" if rated else ""
    inform("; ".join([*parts, f"{backend}, {seconds:.3f} s{rate}"]))


def loss_json(
    result: CrossEntropy, loss: Any, options: LossOptions, decimals: int | None, seconds: float
) -> dict[str, Any]:
    """The result as an object; `loss` is the one of all rows, or that of each."""
    import numpy as np

    from xentcli.files.json import plain

    captured = result.captured and {k: plain(v) for k, v in result.captured._asdict().items()}
    return {
        "loss": plain(loss, decimals),
        "nonfinite": int(np.count_nonzero(~np.isfinite(loss))),
        "reduction": options.reduction,
        "rows": result.rows,
        "ignored": result.ignored,
        **({"captured": captured} if captured else {}),
        "backend": result.backend,
        "seconds": round(seconds, 6),
        "notes": [note_text(item) for item in result.notes],
    }
