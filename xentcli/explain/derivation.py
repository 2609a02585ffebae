"""A derivation as data: every number on the way from one row of logits to its gradient."""

from __future__ import annotations

from typing import NamedTuple

from xentcli.arrays.dtypes import Array
from xentcli.options import LossOptions
from xentcli.records import dataclass


class Factors(NamedTuple):
    """The factor on the row's loss and gradient: scale = upstream·row_weight/denominator.

    `counted` is the number of rows that are not ignored.
    """

    upstream: float
    row_weight: float
    denominator: float
    scale: float
    counted: int


class Checks(NamedTuple):
    """Sums that should be 1 and 0, and the rounding error that they may have."""

    probabilities: float
    gradient: float
    tolerance: float
    holds: bool


class Remark(NamedTuple):
    """A sentence about one step: logits, exponentials, target, loss, gradient or factors.

    Its text calls class `of_class`, if there is one, by its number.
    """

    step: str
    text: str
    of_class: int | None = None


@dataclass(frozen=True)
class Derivation:
    """The steps of one row in order; arrays have one entry per class.

    `target` is the class index, or None if the target is probabilities or the row is ignored.
    """

    row: int
    rows: int
    options: LossOptions
    target: int | None
    ignored: bool
    sample_weighted: bool
    logits: Array  # x
    z: Array  # x after temperature and softcap
    maximum: float
    shifted: Array  # z − maximum
    exponentials: Array  # exp(shifted)
    total: float  # their sum
    unshifted: Array  # exp(z), as in a calculation by hand
    unshifted_total: float
    p: Array
    log_p: Array
    lse: float
    q: Array  # the one-hot or given target probabilities
    weight: Array
    masses: Array  # a_c = w_c·((1 − ε)·q_c + ε/C)
    mass: float  # A, their sum
    terms: Array  # a_c·(−log p_c)
    z_loss: float  # the coefficient, adjusted for the denominator of the mean
    z_term: float  # z_loss·lse²
    row_loss: float  # Σ terms + z_term
    difference: Array  # A·p − a
    z_pull: Array  # the gradient of z_term
    z_gradient: Array  # difference + z_pull
    slope: Array  # dz/dx
    row_gradient: Array  # z_gradient·slope
    factors: Factors
    loss: float  # row_loss·row_weight, the row's loss with reduction none
    share: float  # what the row adds to the reduced loss
    gradient: Array  # row_gradient·scale
    checks: Checks
    remarks: tuple[Remark, ...] = ()

    @property
    def classes(self) -> int:
        """C."""
        return len(self.logits)

    @property
    def class_weighted(self) -> bool:
        """Whether any class weight is not 1."""
        return bool((self.weight != 1).any())

    @property
    def logits_scaled(self) -> bool:
        """Whether a temperature or softcap changes the logits."""
        return self.options.temperature != 1 or self.options.softcap is not None

    @property
    def masses_are_q(self) -> bool:
        """Whether neither class weights nor label smoothing change the target: a = q."""
        return bool((self.masses == self.q).all())

    @property
    def is_one_hot(self) -> bool:
        """Whether the target is a plain one-hot row, so that L = −log p_y."""
        return self.target is not None and self.masses_are_q
