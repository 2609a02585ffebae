"""The search for the temperature that minimises the mean loss.

    f(β)  = mean(lse(β·z) − β·z_y)           β = 1/T, convex in β
    f′(β) = mean(E_p z − z_y),   f″(β) = mean(Var_p z)

A minimum with 0 < T < ∞ exists exactly where f′ < 0 at β → 0, that is mean(mean_c z − z_y) < 0,
and f′ > 0 at β → ∞, that is mean(z_max − z_y) > 0. It is found by Newton's method, or a cubic
through the last two points, kept between the largest β with f′ < 0 and the smallest with f′ > 0.
The first step falls back to that from β = 0, which has the scale of the logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from xentcli.errors import DataError
from xentcli.records import dataclass

ROUNDING = 2.0**-52
PASSES = 40  # more would be a bug: it takes 5 to 10


class Slope(NamedTuple):
    """f′ and f″ at one β, and what rounding may have made of f′."""

    slope: float
    curvature: float
    error: float


@dataclass(frozen=True)
class Ends:
    """f′ at β → 0 and β → ∞, and f″ at β → 0."""

    slope_at_0: float
    slope_at_infinity: float
    curvature_at_0: float

    def require_minimum(self) -> None:
        """An error that explains why no finite temperature is best, where none is."""
        if self.slope_at_infinity <= 0 and self.slope_at_0 >= 0:
            text = "the logits of each row are equal, so every temperature gives the same loss"
        elif self.slope_at_infinity <= 0:
            text = (
                "every row is right, so the loss falls as long as the temperature does: T → 0 is "
                "best, and no temperature above it"
            )
        elif self.slope_at_0 >= 0:
            text = (
                "the targets' logits are on average no larger than those of other classes, so the "
                "loss falls as long as the temperature rises: T → ∞ is best, and no finite one"
            )
        else:
            return
        raise DataError("logits", text)


class Search:
    """The search for the minimum of one f: proposes the next β from f′ and f″ at the last one."""

    def __init__(self, ends: Ends) -> None:
        self._low, self._high = 0.0, math.inf
        self._first = -ends.slope_at_0 / ends.curvature_at_0  # Newton's step from 0
        self._before: tuple[float, Slope] | None = None
        self.beta, self.done = 1.0, False

    def take(self, at: Slope) -> None:
        """Take f′ and f″ at `beta`, and move on; `done` where f′ is nothing but rounding."""
        if at.slope > 0:
            self._high = self.beta
        else:
            self._low = self.beta
        if abs(at.slope) <= at.error:
            self.done = True
            return
        following = self._following(at)
        self._before = self.beta, at
        self.done = abs(following - self.beta) <= ROUNDING * self.beta
        self.beta = self.beta if self.done else following

    def _following(self, at: Slope) -> float:
        for following in (self._hermite(at), self._newton(at)):
            if self._low < following < self._high and following > self.beta / 64:
                return following
        if self._low < self._first < self._high and self._first != self.beta:
            return self._first
        if self._low == 0:
            return self._high / 8
        if math.isinf(self._high):
            return self._low * 8
        return math.sqrt(self._low) * math.sqrt(self._high)

    def _newton(self, at: Slope) -> float:
        return self.beta - at.slope / at.curvature if at.curvature > 0 else math.nan

    def _hermite(self, at: Slope) -> float:
        """Where f′ = 0 on the cubic through β, as a function of f′, and its slopes at the last two
        points: it takes two thirds of the passes of Newton's method."""
        if self._before is None or not at.curvature > 0 < self._before[1].curvature:
            return math.nan
        beta, before = self._before
        gap = at.slope - before.slope
        if not gap:
            return math.nan
        t = -before.slope / gap
        steps = (1 - t) * t * gap * ((1 - t) / before.curvature - t / at.curvature)
        return beta + t * t * (3 - 2 * t) * (self.beta - beta) + steps
