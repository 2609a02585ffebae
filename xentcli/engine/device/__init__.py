"""Cross-entropy and softmax of arrays on a device, without copies to the host.

Logits, probabilities and gradient are never copied. Everything runs on the stream of the logits,
after what other streams do to the arrays, and is done when the function returns.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from xentcli import backends
from xentcli.arrays.device_view import DeviceArray, device_array
from xentcli.arrays.dtypes import Array, as_logits, default_output, native
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.arrays.layout import Layout, find
from xentcli.backends import Scalars
from xentcli.engine.device.boxes import (
    AxisGrouping,
    grouping_of,
    require_floats,
    require_one_device,
    require_writable,
)
from xentcli.engine.device.problem import DeviceProblem, build
from xentcli.engine.problem import Extras
from xentcli.engine.reduction import plan
from xentcli.engine.result import CrossEntropy, LossTotals, RowArrays
from xentcli.engine.targets import as_targets, require_targets
from xentcli.errors import OptionError
from xentcli.options import LogitsOptions, LossOptions

if TYPE_CHECKING:
    from xentcli.backends.cuda.box import Box
    from xentcli.backends.cuda.stream import Queue

BACKEND = "cuda"


def require(backend: str, threads: int | None, teacher: object = None) -> None:
    """An error for a backend that cannot reach a device's memory, a wrong number of threads, or a
    teacher."""
    if teacher is not None:
        what = "is for logits on the host, and these are on a device"
        raise OptionError(
            "teacher", what, "move them to the host first (tensor.cpu(), array.get())"
        )
    backend, _ = backends.require_known(backend, threads)
    if backend not in ("auto", BACKEND):
        raise OptionError(
            "backend",
            f"{backend} computes on the host, but the logits are on a device",
            "move them to the host first (tensor.cpu(), array.get(), numpy.asarray), or use cuda",
        )
    _require_numba()


@cache
def _require_numba() -> None:
    """An error where Numba cannot use the device that an array is on."""
    backends.get(BACKEND, 0)


def _described(values: Any, where: str) -> Any:
    """The description of an array on a device; anything else unchanged."""
    array = device_array(values, where)
    return values if array is None else array


class DeviceCalculation:
    """The cross-entropy of a problem on a device, all rows at once, and its totals."""

    def __init__(self, problem: DeviceProblem, options: LossOptions) -> None:
        self.problem, self.plan = problem, plan(problem, options)
        self.totals = LossTotals()

    def rows(self, x: Box, probs: Box | None, grad: Box | None) -> Any:
        """Losses and log-sum-exps on the device; the gradient, and the sum of the losses."""
        from xentcli.backends.cuda import launch

        problem, queue = self.problem, self.problem.queue
        targets, weight = probs or problem.targets, self.plan.kernel_weight
        results = queue.room((2, problem.layout.rows))
        scale = problem.scale(self.plan.terms.kernel_denominator)
        launch.rows(x, targets, weight, scale, self.plan.scalars, results, grad, queue.stream)
        if problem.sample_weight is not None:
            queue.scaled(results[0], 1.0, problem.sample_weight, results[0])
        self.totals.sum.add_sums(*queue.sums(results[0]))
        if not math.isfinite(self.totals.sum.value()):
            self.totals.nonfinite.add(queue.fetch(results[0]))
        if self.plan.terms.weight_power:
            unit = 0.5**self.plan.terms.weight_power
            queue.scaled(results[0], unit, problem.ones(1), results[0])
        return results

    def result(self, losses: Any, lse: Any, grad: Any) -> CrossEntropy:
        """The result over all rows."""
        return self.totals.result(self.plan, BACKEND, RowArrays(losses, grad, lse))


def _result(
    grouping: AxisGrouping, out: DeviceArray | None, x: DeviceArray, queue: Queue
) -> tuple[Any, Box]:
    """The array that the result is written to, the caller's or a new one, and its box."""
    if out is None:
        return grouping.new(default_output(x.dtype), queue)
    return out.owner, grouping.box(out)


def _probabilities(targets: Any, grouping: AxisGrouping, queue: Queue) -> Box:
    if isinstance(targets, DeviceArray):
        return grouping.box(targets)
    array: Array = as_logits(targets, "targets").transpose(grouping.order)
    return queue.send_box(array.astype(native(array.dtype), copy=False), grouping.shape)


def _empty(layout: Layout, out: DeviceArray | None, x: DeviceArray, queue: Queue) -> Any:
    """The result where there are no rows."""
    return out.owner if out else queue.room(layout.shape, default_output(x.dtype))


@ignoring_float_errors
def cross_entropy(
    x: DeviceArray, targets: Any, options: LossOptions, extras: Extras, *, grad: bool, out: Any
) -> CrossEntropy:
    """`engine.cross_entropy` for logits on a device; the other arrays are on it or on the host."""
    from xentcli.backends.cuda.errors import translate_errors
    from xentcli.backends.cuda.stream import Queue, on_device

    require_floats(x)
    described = _described(targets, "targets")
    described = described if isinstance(described, DeviceArray) else as_targets(described)
    require_targets(described.dtype)
    names = "weight", "sample_weight", "upstream"
    extras = Extras(*(_described(getattr(extras, name), name) for name in names))
    destination = _described(out, "out") if grad else None
    others = described, extras.weight, extras.sample_weight, extras.upstream
    arrays = require_one_device(x, (*others, destination))
    with translate_errors(), on_device(x.device):
        queue = Queue(x.stream or 0)
        queue.wait_for(arrays)
        problem = build(x, described, options, extras, queue)
        calculation = DeviceCalculation(problem, options)
        require_writable(destination, problem.layout, x, others)
        return _computed(calculation, (x, described, destination), grad)


def _computed(
    calculation: DeviceCalculation, arrays: tuple[DeviceArray, Any, DeviceArray | None], grad: bool
) -> CrossEntropy:
    (x, targets, out), problem = arrays, calculation.problem
    layout, queue = problem.layout, problem.queue
    if not layout.rows:
        losses, lse = (queue.room(layout.row_shape) for _ in range(2))
        return calculation.result(losses, lse, _empty(layout, out, x, queue) if grad else None)
    walked = [x, targets if problem.probs else None, out]
    grouping = grouping_of(layout, [array for array in walked if isinstance(array, DeviceArray)])
    result, box = _result(grouping, out, x, queue) if grad else (None, None)
    probs = _probabilities(targets, grouping, queue) if problem.probs else None
    results = calculation.rows(grouping.box(x), probs, box)
    losses, lse = (results[i].reshape(layout.row_shape) for i in range(2))
    return calculation.result(losses, lse, result)


@ignoring_float_errors
def softmax(x: DeviceArray, options: LogitsOptions, *, log: bool, out: Any) -> Any:
    """Probabilities, or their logarithms, of logits on a device."""
    from xentcli.backends.cuda import launch
    from xentcli.backends.cuda.errors import translate_errors
    from xentcli.backends.cuda.stream import Queue, on_device

    require_floats(x)
    destination = _described(out, "out")
    arrays = require_one_device(x, (destination,))
    layout = find(x.shape, None, options.class_axis)
    require_writable(destination, layout, x, ())
    with translate_errors(), on_device(x.device):
        queue = Queue(x.stream or 0)
        if not layout.rows:
            return _empty(layout, destination, x, queue)
        grouping = grouping_of(layout, arrays)
        queue.wait_for(arrays)
        result, box = _result(grouping, destination, x, queue)
        launch.softmax(grouping.box(x), Scalars.of(options), log, box, queue.stream)
        queue.finish()
    return result
