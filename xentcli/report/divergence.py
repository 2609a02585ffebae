"""The comparison of a model's rows with those of a base model."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from xentcli.arrays.dtypes import as_logits
from xentcli.arrays.layout import dense
from xentcli.backends import Scalars, StatisticsBackend
from xentcli.backends.fields import Field
from xentcli.engine.rows import RowPiece
from xentcli.report.scores import Scores, fields_of


class BaseField(IntEnum):
    """The rows of `Scores.base`: one number for each row of logits."""

    NLL = 0
    P_TARGET = 1
    PREDICTION = 2
    LSE = 3
    KL = 4


def with_base(scores: Scores, piece: RowPiece, backend: StatisticsBackend, how: Scalars) -> Scores:
    """The scores of a piece with the comparison to its second array, the base's logits."""
    assert piece.second is not None
    statistics = fields_of(piece, piece.second, backend, how)
    found = np.empty((len(BaseField), piece.layout.rows))
    for mine, theirs in (
        (BaseField.NLL, Field.NLL),
        (BaseField.P_TARGET, Field.P_TARGET),
        (BaseField.PREDICTION, Field.PREDICTION),
        (BaseField.LSE, Field.LSE),
    ):
        found[mine] = statistics[theirs]
    for block in piece.layout.blocks(backend.block):
        model, base = (dense(as_logits(block.of(x))) for x in (piece.logits, piece.second))
        backend.divergence(base, model, how, found[BaseField.KL, block.rows])
    return scores.with_base(found[:, scores.rows - piece.start])
