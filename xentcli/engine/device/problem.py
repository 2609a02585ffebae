"""A problem whose arrays are on a device, or are brought there."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from xentcli.arrays.device_view import DeviceArray
from xentcli.arrays.layout import Layout, Shape, find
from xentcli.arrays.sums import RunningSum, rounded
from xentcli.engine.problem import (
    Extras,
    Problem,
    require_length,
    require_per_row,
    upstream,
    vector,
)
from xentcli.engine.scales import quotient
from xentcli.engine.targets import IGNORED, Whole, as_indices, require_row_shaped, target_kind_of
from xentcli.options import LossOptions

if TYPE_CHECKING:
    from xentcli.backends.cuda.stream import Queue


@dataclass(frozen=True)
class DeviceProblem(Problem):
    """A problem whose arrays are on a device, except `weight` and a scalar `upstream`."""

    queue: Queue
    left_out: int

    @property
    def ignored(self) -> int:
        """How many rows are left out."""
        return self.left_out

    def kernel_weight(self, power: int) -> Any:
        """w / 2^power on the device, one per class."""
        if self.weight is None:
            return self.ones(self.layout.classes)
        return self.queue.send(np.ldexp(self.weight, -power))

    @property
    def sample_weight_power(self) -> int:
        """The row weights on the device are used as they are."""
        return 0

    def ones(self, count: int) -> Any:
        """Ones on the device."""
        from xentcli.backends.cuda.stream import ones

        return ones(count)

    def total_sample_weight(self, power: int) -> Fraction:
        """Σ v_i over the rows that count."""
        return self.sum(self._row_weights(self.ones(self.layout.classes)))

    def total_row_weight(self, power: int) -> Fraction:
        """Σ v_i·w_{y_i} over the rows that count, or Σ v_i for probabilities."""
        weights = self._row_weights(self.kernel_weight(self.weight_power))
        return self.sum(weights) * Fraction(2) ** self.weight_power

    def _row_weights(self, weight: Any) -> Any:
        sample_weight = self.ones(1) if self.sample_weight is None else self.sample_weight
        if self.targets is None:
            return sample_weight
        return self.queue.row_weights(self.targets, weight, sample_weight)

    def sum(self, values: Any) -> Fraction:
        """The sum of one number per row."""
        total = RunningSum()
        total.add_sums(*self.queue.sums(values))
        return total.exact()

    def scale(self, denominator: Fraction) -> Any:
        """What the gradient of each row is multiplied by, as `ReductionPlan.scale`.

        `denominator` is that of the kernels.
        """
        if denominator == 0:  # rare, and not worth a kernel
            weights = self._row_weights(self.kernel_weight(self.weight_power))
            weights = self.queue.fetch(weights)
            return self.queue.send(np.where(weights == 0, 0.0, np.nan))
        given = self.upstream
        if isinstance(given, np.ndarray):
            if self.sample_weight is None:
                return self.queue.send(quotient(given.reshape(1), None, denominator))
            given = self.queue.send(given.reshape(1))
        factors = self.ones(1) if self.sample_weight is None else self.sample_weight
        room = self.queue.room((self.layout.rows,))
        return self.queue.scaled(given, rounded(denominator), factors, room)


def _direct(array: DeviceArray) -> bool:
    """Whether the kernels can read these numbers; the rare others are converted on the host."""
    readable = array.dtype.kind in "iuf" and array.dtype not in (np.float16, np.uint64)
    return readable and array.span > 0


def _vector(values: Any, where: str, allowed: tuple[int, Shape], queue: Queue) -> Any:
    """One finite number per row, on the device, from an array on the device or the host."""
    if isinstance(values, DeviceArray):
        require_length(values.shape, where, allowed)
        steps = values.folded([(), range(len(values.shape))])
        if steps and _direct(values):
            numbers, wrong = queue.doubles(values, steps, allowed[0])
            if not wrong:
                return numbers
    return queue.send(vector(_host(values, queue), where, allowed))


def _host(values: Any, queue: Queue) -> Any:
    return queue.fetch_placed(values) if isinstance(values, DeviceArray) else values


def _upstream(values: Any, options: LossOptions, allowed: tuple[int, Shape], queue: Queue) -> Any:
    if isinstance(values, DeviceArray) and values.size != 1:
        require_per_row(values.shape, options)
        return _vector(values, "upstream", allowed, queue)
    given = upstream(_host(values, queue), options, allowed)
    return queue.send(given) if given.ndim else given


def _indices(targets: Any, layout: Layout, ignore: int, queue: Queue) -> tuple[Any, int]:
    """Class indices on the device, and how many rows are ignored.

    They are checked there; invalid ones are checked again on the host, for the full message.
    """
    if isinstance(targets, DeviceArray):
        require_row_shaped(targets.shape, layout)
        like_rows = targets.shape == layout.row_shape
        first, last = (layout.class_axis if like_rows else 0), len(targets.shape)
        steps = targets.folded([range(first), range(first, last)])
        if steps and _direct(targets) and abs(ignore) < 2**63:
            inner = layout.box[2] if like_rows else layout.rows
            limits = layout.classes, int(ignore)
            indices, ignored, wrong = queue.indices(targets, steps, inner, limits)
            if not wrong:
                return indices, ignored
    host = as_indices(Whole(_host(targets, queue)), layout, ignore).astype(np.int64)
    return queue.send(host), int(np.count_nonzero(host == IGNORED))


def build(
    x: DeviceArray, targets: Any, options: LossOptions, extras: Extras, queue: Queue
) -> DeviceProblem:
    """`engine.problem.build` for arrays on the device or the host."""
    layout = find(x.shape, targets.shape, options.class_axis)
    probs = target_kind_of(targets.shape, layout, options) == "probs"
    per_row = layout.rows, layout.row_shape
    weight = sample_weight = indices = None
    ignored = 0
    if extras.weight is not None:
        per_class = layout.classes, (layout.classes,)
        weight = vector(_host(extras.weight, queue), "weight", per_class)
    if extras.sample_weight is not None:
        sample_weight = _vector(extras.sample_weight, "sample_weight", per_row, queue)
    if not probs:
        indices, ignored = _indices(targets, layout, options.ignore_index, queue)
    return DeviceProblem(
        layout=layout,
        targets=indices,
        weight=weight,
        sample_weight=sample_weight,
        upstream=_upstream(extras.upstream, options, per_row, queue),
        queue=queue,
        left_out=ignored,
    )
