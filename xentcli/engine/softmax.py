"""Softmax and log-softmax from arrays, on the same kernels as the loss."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from xentcli import backends
from xentcli.arrays.device_view import device_array
from xentcli.arrays.dtypes import BF16, NAMES, Array, as_logits, widen
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.arrays.layout import Layout, dense, find
from xentcli.backends import Scalars
from xentcli.engine.cross_entropy import Run
from xentcli.engine.logits_check import LogitsCheck
from xentcli.engine.notes import NonfiniteRows, Note
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import without_targets
from xentcli.engine.rows import RowPiece
from xentcli.options import Backend, LogitsOptions, remembered
from xentcli.records import dataclass

logits_options = remembered(LogitsOptions)


@dataclass(frozen=True)
class Probabilities:
    """The array, the backend that ran, how many entries are not finite, and notes."""

    array: Array | None
    backend: str
    nonfinite: int
    notes: tuple[Note, ...]


class SoftmaxCalculation:
    """Probabilities, or their logarithms, piece by piece.

    Of the options only the temperature, the softcap and the class axis matter.
    """

    def __init__(self, layout: Layout, options: LogitsOptions, run: Run, *, log: bool) -> None:
        self.layout, self.run, self.log = layout, run, log
        self.backend = backends.get(run.backend, prod(layout.shape), run.threads, run.notify)
        self.scalars = Scalars.of(options)
        self.rows, self.entries = 0, 0  # that are done; that are not finite
        self.logits = LogitsCheck(options.softcap)
        self.nonfinite = NonfiniteRows("result")  # a row is all NaN, or has none

    def add(self, piece: RowPiece, result: Destination) -> None:
        """Compute the next rows into `result`, which has their shape."""
        for block in piece.layout.blocks(self.backend.block):
            rows = result.buffer(block)
            x = dense(block.of(piece.logits))
            self.logits.add(x)
            self.backend.softmax(x, self.scalars, self.log, rows)
            values = widen(rows, NAMES["f32"]) if rows.dtype == BF16 else rows
            is_nan = np.isnan(values[:, 0].reshape(-1))
            self.nonfinite.add(np.where(is_nan, np.nan, 0.0))
            self.entries += int(np.count_nonzero(~np.isfinite(values)))
            result.put(block, rows)
            self.rows += block.stop - block.start
            if self.run.progress:
                self.run.progress(self.rows, self.layout.rows)

    def merge(self, other: SoftmaxCalculation) -> None:
        """Take what was counted in the rows that follow, of the same logits."""
        self.nonfinite.merge(other.nonfinite)
        self.logits.merge(other.logits)
        self.rows += other.rows
        self.entries += other.entries

    def result(self, array: Array | None = None) -> Probabilities:
        """The result over all rows; the array if it was kept."""
        notes = (*self.nonfinite.notes(), *self.logits.notes())
        return Probabilities(array, self.backend.name, self.entries, notes)


def probabilities(
    logits: Any, options: LogitsOptions, run: Run, *, log: bool, out: Any = None
) -> Any:
    """Softmax or log-softmax of an array in memory, on the host or on a device."""
    if (there := device_array(logits, "logits")) is not None:
        from xentcli.engine import device

        device.require(run.backend, run.threads)
        return device.softmax(there, options, log=log, out=out)
    return _of_array(as_logits(logits), options, run, log=log, out=out)


@ignoring_float_errors
def _of_array(x: Array, options: LogitsOptions, run: Run, *, log: bool, out: Any) -> Any:
    layout = find(x.shape, None, options.class_axis)
    result = Destination(layout, x, out)
    piece = RowPiece.of_arrays(without_targets(layout), result.unshared(x))
    SoftmaxCalculation(layout, options, run, log=log).add(piece, result)
    return result.finish()


def softmax(  # noqa: PLR0913 (one name for each option)
    logits: Any,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_axis: int = -1,
    out: Any = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Any:
    """Probabilities of the classes.

        p_c = exp(z_c) / Σ_j exp(z_j),   z = logits / temperature, then softcap·tanh(z / softcap)

    Shapes: logits of any shape with the classes on `class_axis`; the result has the same shape
    and the logits' dtype, float32 for float16 and bfloat16, or is `out` (`out=logits`: in
    place). Units: none; each row sums to 1.

    Logits on a CUDA device are used where they are, as `cross_entropy` does it; the result is
    there too.

    Errors: `DataError` (a ValueError) for arrays, `OptionError` (a ValueError) for options.

    >>> softmax([1.0, 2.0, 3.0]).round(4).tolist()
    [0.09, 0.2447, 0.6652]

    Source: Bridle, Probabilistic interpretation of feedforward classification network outputs
    (1990).
    """
    options = logits_options(temperature, softcap, class_axis)
    return probabilities(logits, options, Run(backend, threads), log=False, out=out)


def log_softmax(  # noqa: PLR0913 (one name for each option)
    logits: Any,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_axis: int = -1,
    out: Any = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Any:
    """Logarithms of the probabilities of the classes, without forming the probabilities.

        log p_c = z_c − log Σ_j exp(z_j),   z = logits / temperature, then
                                            softcap·tanh(z / softcap)

    Shapes: logits of any shape with the classes on `class_axis`; the result has the same shape
    and the logits' dtype, float32 for float16 and bfloat16, or is `out` (`out=logits`: in
    place). Units: nats, at most 0.

    Logits on a CUDA device are used where they are, as `cross_entropy` does it; the result is
    there too.

    Errors: `DataError` (a ValueError) for arrays, `OptionError` (a ValueError) for options.

    >>> log_softmax([0.0, 1000.0]).tolist()
    [-1000.0, 0.0]

    Source: Blanchard, Higham, Higham, Accurately computing the log-sum-exp and softmax
    functions, IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.
    """
    options = logits_options(temperature, softcap, class_axis)
    return probabilities(logits, options, Run(backend, threads), log=True, out=out)
