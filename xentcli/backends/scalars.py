"""The numbers that a kernel needs in addition to its arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

from xentcli.options import LogitsOptions, LossOptions


class Scalars(NamedTuple):
    """What the options of the loss become in a kernel. A softcap of inf is none.

    A scale that all rows share is scale·(1 + scale_error), which a backend for float64 may use.
    """

    label_smoothing: float = 0.0
    temperature: float = 1.0
    softcap: float = math.inf
    z_loss: float = 0.0
    scale_error: float = 0.0

    @property
    def are_plain(self) -> bool:
        """Whether there is no option that needs more than the fast kernels for long rows."""
        return self[:3] == NO_OPTIONS[:3]

    @property
    def are_tempered(self) -> bool:
        """Whether there is a temperature besides those, which float32 has the range for."""
        near = 2.0**-20 < self.temperature < 2.0**20
        return near and self._replace(temperature=1.0).are_plain

    @property
    def are_default(self) -> bool:
        """Whether there is no option at all, as the fast kernel for short rows needs it."""
        return self[:4] == NO_OPTIONS[:4]

    @classmethod
    def of(
        cls, options: LossOptions | LogitsOptions, z_loss: float = 0.0, scale_error: float = 0.0
    ) -> Scalars:
        """The scalars of some options.

        `z_loss` is the coefficient that goes with the reduction, λ·Σ v_i·w_{y_i} / Σ v_i for a
        weighted mean, and not λ itself; where no loss is computed it does not matter.

        >>> Scalars.of(LossOptions(temperature=2, softcap=None))
        Scalars(label_smoothing=0.0, temperature=2.0, softcap=inf, z_loss=0.0, scale_error=0.0)
        """
        softcap = math.inf if options.softcap is None else float(options.softcap)
        smoothing = float(options.label_smoothing) if isinstance(options, LossOptions) else 0.0
        return cls(smoothing, float(options.temperature), softcap, float(z_loss), scale_error)


NO_OPTIONS = Scalars()
