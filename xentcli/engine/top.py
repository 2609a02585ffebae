"""The K largest probabilities of each row, with their classes, and the mass of the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow
from xentcli.arrays.layout import Layout, dense
from xentcli.arrays.sums import exact_sum
from xentcli.engine.cross_entropy import Run
from xentcli.engine.output_buffer import Destination
from xentcli.engine.rows import RowPiece, float_rows
from xentcli.engine.softmax import Probabilities, SoftmaxCalculation
from xentcli.errors import OptionError
from xentcli.options import LogitsOptions

TOGETHER = 1 << 20  # logits at a time, whose float64 copies take 8 MiB


class TopArrays(NamedTuple):
    """Values from the largest down, of equal ones the lowest class first; the others' sum or None.

    Shapes: that of the logits with K in place of C, and without the class axis for `rest`.
    """

    values: Any
    indices: Any
    rest: Any


class TopCalculation:
    """The largest probabilities, or their logarithms, piece by piece; the arrays are kept."""

    def __init__(
        self, layout: Layout, options: LogitsOptions, run: Run, k: int, *, log: bool, rest: bool
    ) -> None:
        if k > layout.classes:
            raise OptionError("top", f"{k} is more than the logits' {layout.classes} classes")
        self.k, self.log, self.rest = k, log, rest
        self.softmax = SoftmaxCalculation(layout, options, run, log=log)
        self._parts: list[TopArrays] = []

    def add(self, piece: RowPiece, dtype: np.dtype[Any]) -> None:
        """Compute the next rows."""
        parts = [self._of(part, dtype) for part in piece.split(TOGETHER)]
        outer, _, inner = piece.layout.box
        values, indices, rest = (_joined(arrays) for arrays in zip(*parts, strict=True))
        values, indices = (
            a.reshape(outer, inner, self.k).transpose(0, 2, 1) for a in (values, indices)
        )
        self._parts.append(TopArrays(values, indices, rest))

    def _of(self, piece: RowPiece, dtype: np.dtype[Any]) -> TopArrays:
        """The arrays of a block, in rows."""
        x = dense(piece.logits)
        result = Destination(piece.layout, x, np.empty(x.shape, dtype))
        self.softmax.add(piece, result)
        chosen = largest(float_rows(x), self.k)
        rows = result.finish().transpose(0, 2, 1).reshape(-1, piece.layout.classes)
        values, rest = np.take_along_axis(rows, chosen, axis=-1), None
        if self.rest:
            rest = self._rest(x, chosen, NAMES["f64" if dtype == NAMES["f64"] else "f32"])
        small = piece.layout.classes <= np.iinfo(np.int32).max
        return TopArrays(values, chosen.astype(np.int32 if small else np.int64), rest)

    def _rest(self, x: Array, chosen: Array, dtype: np.dtype[Any]) -> Array:
        """The sum of the probabilities that are not chosen, from those themselves."""
        p = np.empty(x.shape, NAMES["f64"])
        self.softmax.backend.softmax(x, self.softmax.scalars, False, p)
        others = float_rows(p)
        np.put_along_axis(others, chosen, 0.0, axis=-1)
        broken = np.isnan(others).any(axis=-1)
        total = np.where(broken, np.nan, exact_sum(others))
        return narrow(np.log(total) if self.log else total, dtype)

    def result(self) -> tuple[TopArrays, Probabilities]:
        """The arrays of all rows, and what is said about them."""
        layout, axis = self.softmax.layout, self.softmax.layout.class_axis
        shape = (*layout.shape[:axis], self.k, *layout.shape[axis + 1 :])
        values, indices, rest = (_joined(arrays) for arrays in zip(*self._parts, strict=True))
        if rest is not None:
            rest = rest.reshape(layout.row_shape)
        arrays = TopArrays(values.reshape(shape), indices.reshape(shape), rest)
        return arrays, self.softmax.result()


def _joined(arrays: Iterable[Any]) -> Any:
    given = [array for array in arrays if array is not None]
    return np.concatenate(given) if given else None


def largest(rows: Array, k: int) -> Array:
    """The classes of the k largest numbers of each row, from the largest down.

    Of equal numbers the lowest class comes first; a row with a NaN has its first k classes.

    >>> largest(np.array([[1.0, 3.0, 2.0, 3.0], [0.0, np.nan, 2.0, 3.0]]), 2).tolist()
    [[1, 3], [0, 1]]
    """
    broken = np.isnan(rows).any(axis=-1, keepdims=True)
    x = np.where(broken, 0.0, rows)
    least = np.partition(x, x.shape[1] - k, axis=-1)[:, x.shape[1] - k, None]
    above, equal = x > least, x == least
    missing = k - np.count_nonzero(above, axis=-1)[:, None]
    chosen = above | (equal & (np.cumsum(equal, axis=-1) <= missing))
    classes = np.nonzero(chosen)[1].reshape(len(x), k)
    order = np.argsort(-np.take_along_axis(x, classes, axis=-1), axis=-1, kind="stable")
    return np.asarray(np.take_along_axis(classes, order, axis=-1))
