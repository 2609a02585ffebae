"""Cross-entropy and softmax of arrays that are on a device: they are used where they are.

Logits, probabilities and gradient are never copied. Everything runs on the stream of the logits,
after what other streams do to the arrays, and is done when the function returns.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from xentcli import backends
from xentcli.arrays.device_view import Placed, placed
from xentcli.arrays.dtypes import Array, as_logits, default_output, native
from xentcli.arrays.layout import Layout, find
from xentcli.engine.device.boxes import (
    Form,
    form_of,
    require_floats,
    require_one_device,
    require_writable,
)
from xentcli.engine.device.problem import DeviceProblem, build
from xentcli.engine.problem import Extras
from xentcli.engine.result import CrossEntropy, Outcome, scalars
from xentcli.engine.targets import as_targets, require_targets
from xentcli.errors import OptionError
from xentcli.options import LossOptions

if TYPE_CHECKING:
    from xentcli.backends.cuda.box import Box
    from xentcli.backends.cuda.stream import Queue

BACKEND = "cuda"


def require(backend: str, threads: int | None) -> None:
    """An error for a backend that cannot reach a device's memory, or a wrong number of threads."""
    backends.require_threads(threads)
    if backend in backends.NAMES and backend != BACKEND:
        raise OptionError(
            "backend",
            f"{backend} computes on the host, and the logits are on a device",
            "bring them to the host first (tensor.cpu(), array.get(), numpy.asarray), or use cuda",
        )
    if backend not in ("auto", BACKEND):
        backends.get(backend, 0)  # which says what there is
    _require_numba()


@cache
def _require_numba() -> None:
    """An error where Numba cannot use the device that an array is on."""
    backends.get(BACKEND, 0)


def _seen(values: Any, where: str) -> Any:
    """What an array on a device says of itself; everything else as it is."""
    array = placed(values, where)
    return values if array is None else array


def _rows(
    outcome: Outcome, problem: DeviceProblem, boxes: tuple[Box, Box | None, Box | None]
) -> Any:
    """Losses and log-sum-exps on the device; the gradient, and the sum of the losses.

    The boxes are those of the logits, the probabilities and the gradient.
    """
    from xentcli.backends.cuda import launch

    queue, (x, probs, grad) = problem.queue, boxes
    targets = probs or problem.targets
    results = queue.room((2, problem.layout.rows))
    scale = problem.scale(outcome.reduction.denominator)
    weight = problem.class_weight
    launch.rows(x, targets, weight, scale, outcome.scalars, results, grad, queue.stream)
    if problem.sample_weight is not None:
        queue.scaled(results[0], 1.0, problem.sample_weight, results[0])
    outcome.total.add_sums(*queue.sums(results[0]))
    if not math.isfinite(outcome.total.value()):
        outcome.nonfinite.add(queue.fetch(results[0]))
    return results


def _result(form: Form, out: Placed | None, x: Placed, queue: Queue) -> tuple[Any, Box]:
    """Where numbers like the logits are written: the caller's array or a new one, and its box."""
    if out is None:
        return form.new(default_output(x.dtype), queue)
    return out.owner, form.box(out)


def _probabilities(targets: Any, form: Form, queue: Queue) -> Box:
    if isinstance(targets, Placed):
        return form.box(targets)
    array: Array = as_logits(targets, "targets").transpose(form.order)
    return queue.send_box(array.astype(native(array.dtype), copy=False), form.shape)


def _empty(layout: Layout, out: Placed | None, x: Placed, queue: Queue) -> Any:
    """The result where there are no rows."""
    return out.owner if out else queue.room(layout.shape, default_output(x.dtype))


def cross_entropy(
    x: Placed, targets: Any, options: LossOptions, extras: Extras, *, grad: bool, out: Any
) -> CrossEntropy:
    """As `loss.cross_entropy`, of logits on a device; the other arrays are on it or on the host."""
    from xentcli.backends.cuda.errors import translate_errors
    from xentcli.backends.cuda.stream import Queue, on_device

    require_floats(x)
    seen = _seen(targets, "targets")
    seen = seen if isinstance(seen, Placed) else as_targets(seen)
    require_targets(seen.dtype)
    names = "weight", "sample_weight", "upstream"
    extras = Extras(*(_seen(getattr(extras, name), name) for name in names))
    destination = _seen(out, "out") if grad else None
    others = seen, extras.weight, extras.sample_weight, extras.upstream
    arrays = require_one_device(x, (*others, destination))
    with translate_errors(), on_device(x.device):
        queue = Queue(x.stream or 0)
        queue.wait_for(arrays)
        problem = build(x, seen, options, extras, queue)
        outcome = Outcome(problem, options, BACKEND)
        require_writable(destination, problem.layout, x, others)
        return _computed(outcome, problem, (x, seen, destination), grad)


def _computed(
    outcome: Outcome, problem: DeviceProblem, arrays: tuple[Placed, Any, Placed | None], grad: bool
) -> CrossEntropy:
    (x, targets, out), layout, queue = arrays, problem.layout, problem.queue
    if not layout.rows:
        losses, lse = (queue.room(layout.row_shape) for _ in range(2))
        return outcome.result(losses, lse, _empty(layout, out, x, queue) if grad else None)
    walked = [x, targets if problem.probs else None, out]
    form = form_of(layout, [array for array in walked if isinstance(array, Placed)])
    result, box = _result(form, out, x, queue) if grad else (None, None)
    probs = _probabilities(targets, form, queue) if problem.probs else None
    results = _rows(outcome, problem, (form.box(x), probs, box))
    losses, lse = (results[i].reshape(layout.row_shape) for i in range(2))
    return outcome.result(losses, lse, result)


def softmax(x: Placed, options: LossOptions, *, log: bool, out: Any) -> Any:
    """Probabilities, or their logarithms, of logits on a device."""
    from xentcli.backends.cuda import launch
    from xentcli.backends.cuda.errors import translate_errors
    from xentcli.backends.cuda.stream import Queue, on_device

    require_floats(x)
    destination = _seen(out, "out")
    arrays = require_one_device(x, (destination,))
    layout = find(x.shape, None, options.class_axis)
    require_writable(destination, layout, x, ())
    with translate_errors(), on_device(x.device):
        queue = Queue(x.stream or 0)
        if not layout.rows:
            return _empty(layout, destination, x, queue)
        form = form_of(layout, arrays)
        queue.wait_for(arrays)
        result, box = _result(form, destination, x, queue)
        launch.softmax(form.box(x), scalars(options), log, box, queue.stream)
        queue.finish()
    return result
