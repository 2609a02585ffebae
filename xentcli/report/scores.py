"""What is computed of each row, piece by piece: the rows that count, with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array, as_logits
from xentcli.arrays.layout import dense
from xentcli.backends import Scalars, StatisticsBackend
from xentcli.backends.fields import FIELDS, Field
from xentcli.engine.rows import RowPiece
from xentcli.engine.targets import IGNORED
from xentcli.records import dataclass


@dataclass(frozen=True)
class Scores:
    """The quantities of some rows that are not ignored.

    `rows` are their numbers, `fields` (FIELDS, n) as in `backends.fields`; `targets` is
    None for probabilities, `weights` for ones, `group` for independent rows. `base` (5, n) is the
    comparison with another model's logits: see `report.divergence`.
    """

    rows: Array
    fields: Array
    targets: Array | None = None
    weights: Array | None = None
    group: Array | None = None
    base: Array | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, field: Field) -> Array:
        found: Array = self.fields[field]
        return found

    def share(self, k: int) -> Array:
        """Whether the target is among the k largest: for a tie the share of its ranks that are."""
        above, ties = self[Field.ABOVE], self[Field.TIES]
        return np.asarray(np.clip((k - above) / (ties + 1), 0.0, 1.0))

    @property
    def correct(self) -> Array:
        """Whether the prediction is the target."""
        return np.asarray(self[Field.PREDICTION] == self.targets)

    def chosen(self, which: Array | slice) -> Scores:
        """Some of the rows: a mask, their places, or from one to another."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays: dict[str, Any] = {
            name: None if array is None else array[..., which] for name, array in given.items()
        }
        return Scores(**arrays)

    def with_base(self, base: Array) -> Scores:
        """The same with the comparison to a base."""
        return replace(self, base=base)

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Rows that follow each other."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {}
        for item in fields(cls):
            arrays = [getattr(part, item.name) for part in parts]
            joined[item.name] = None if arrays[0] is None else np.concatenate(arrays, axis=-1)
        return cls(**joined)


def fields_of(
    piece: RowPiece, logits: Array, backend: StatisticsBackend, scalars: Scalars
) -> Array:
    """The fields (FIELDS, n) of a piece's rows, of its own logits or of others of their shape."""
    found = np.empty((FIELDS, piece.layout.rows))
    for block in piece.layout.blocks(backend.block):
        x = dense(as_logits(block.of(logits)))
        if piece.probs is not None:
            targets = dense(as_logits(block.of(piece.probs), "targets"))
        else:
            assert piece.problem.targets is not None
            targets = np.asarray(piece.problem.targets[block.rows], np.int64)
        backend.statistics(x, targets, scalars, found[:, block.rows])
    return found


def scores_of(
    piece: RowPiece, backend: StatisticsBackend, scalars: Scalars, group: Array | None
) -> Scores:
    """The quantities of a piece's rows; `group` holds that of every row of the whole."""
    targets = piece.targets
    scores = Scores(
        np.arange(piece.rows.start, piece.rows.stop),
        fields_of(piece, piece.logits, backend, scalars),
        targets,
        piece.problem.sample_weight,
        None if group is None else group[piece.rows],
    )
    if targets is None or not piece.problem.ignored:
        return scores
    return scores.chosen(targets != IGNORED)
