"""The numbers that a kernel needs in addition to its arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

from xentcli.options import LogitsOptions, LossOptions


class Scalars(NamedTuple):
    """What the options of the loss become in a kernel. A softcap of inf is none."""

    label_smoothing: float = 0.0
    temperature: float = 1.0
    softcap: float = math.inf
    z_loss: float = 0.0

    @classmethod
    def of(cls, options: LossOptions | LogitsOptions, z_loss: float = 0.0) -> Scalars:
        """The scalars of some options.

        `z_loss` is the coefficient that goes with the reduction, λ·Σ v_i·w_{y_i} / Σ v_i for a
        weighted mean, and not λ itself; where no loss is computed it does not matter.

        >>> Scalars.of(LossOptions(temperature=2, softcap=None))
        Scalars(label_smoothing=0.0, temperature=2.0, softcap=inf, z_loss=0.0)
        """
        softcap = math.inf if options.softcap is None else float(options.softcap)
        smoothing = float(options.label_smoothing) if isinstance(options, LossOptions) else 0.0
        return cls(smoothing, float(options.temperature), softcap, float(z_loss))
