"""Cross-entropy from arrays: build the problem, call the backend block by block, reduce."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xentcli import backends
from xentcli.arrays.device_view import device_array, require_host
from xentcli.arrays.dtypes import Array, as_logits
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.arrays.layout import Block, dense
from xentcli.backends.processors import default_threads
from xentcli.engine.output_buffer import Destination
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.reduction import ReductionPlan, plan
from xentcli.engine.result import LEAST_PART, CrossEntropy, LossTotals, RowArrays
from xentcli.engine.rows import RowPiece
from xentcli.engine.targets import Whole, as_targets
from xentcli.options import (
    BOOLEAN,
    Backend,
    EmptyMean,
    LossOptions,
    Reduction,
    TargetKind,
    allowed,
    remembered,
)

if TYPE_CHECKING:
    from xentcli.engine.teacher.arrays import Teacher

loss_options = remembered(LossOptions)


class Run(NamedTuple):
    """How to compute, as opposed to what.

    `notify` is called when something takes long; `progress` with the rows done and their number.
    """

    backend: Backend = "auto"
    threads: int | None = None
    notify: Callable[[str], None] | None = None
    progress: Callable[[int, int], None] | None = None


class RowLosses(NamedTuple):
    """The losses of some rows, times their row weights, and the log-sum-exps, float64 (n,)."""

    losses: Array
    lse: Array


class LossCalculation:
    """The cross-entropy of a problem, piece by piece, and its totals.

    The bits depend neither on how the rows are cut nor on where each part is computed.
    """

    def __init__(
        self,
        problem: Problem,
        options: LossOptions,
        run: Run,
        whole: ReductionPlan | None = None,
    ) -> None:
        """`whole` is the plan of all rows where the problem is that of some of them."""
        entries = prod(problem.layout.shape)
        self.backend = backends.get(run.backend, entries, run.threads, run.notify)
        self.plan = plan(problem, options) if whole is None else whole.of(problem)
        self.totals, self.run, self.rows = LossTotals(options.softcap), run, 0
        self._weight: Array | None = None  # not allocated before there is a row with classes

    def _threads(self, array: Array) -> int:
        """How many threads may check an array or add it up; to ask takes as long as a small job."""
        large = array.size > LEAST_PART
        return (self.run.threads or default_threads()) if large else 1

    def add(self, piece: RowPiece, grad: Destination | None = None) -> RowLosses:
        """Compute the next rows; `grad`, of their shape, takes the gradient."""
        plan, results = self.plan.of(piece.problem), np.empty((2, piece.layout.rows))
        for block in piece.layout.blocks(self.backend.block):
            out = results[:, block.rows]
            self._compute(block, piece, plan, out, grad)
            losses = out[0]
            self.totals.add_losses(losses, self._threads(losses) if losses.size > LEAST_PART else 1)
            plan.unscale(losses)
            self.rows += block.stop - block.start
            if self.run.progress:
                self.run.progress(self.rows, self.plan.problem.layout.rows)
        return RowLosses(results[0], results[1])

    def _compute(
        self,
        block: Block,
        piece: RowPiece,
        plan: ReductionPlan,
        results: Array,
        grad: Destination | None,
    ) -> None:
        """Call the backend for one block of a piece."""
        if self._weight is None:
            self._weight = self.plan.kernel_weight
        scale = plan.scale(block.rows)
        buffer = grad.buffer(block) if grad else None
        if piece.probs is not None:
            targets = dense(as_logits(block.of(piece.probs), "targets"))
            self.totals.probabilities.add(targets, self._threads(targets))
        else:
            assert piece.problem.targets is not None
            targets = np.asarray(piece.problem.targets[block.rows], np.int64)
        x = dense(block.of(piece.logits))
        self.totals.logits.add(x)
        self.backend.rows(x, targets, self._weight, scale, plan.scalars, results, buffer)
        plan.weigh(results[0], block.rows)
        if grad and buffer is not None:
            grad.put(block, buffer)

    def merge(self, other: LossCalculation) -> None:
        """Take the totals of the rows that follow, of the same problem."""
        self.totals.merge(other.totals)
        self.rows += other.rows

    def result(self, arrays: RowArrays | None = None) -> CrossEntropy:
        """The result over all rows, with the arrays that were kept."""
        return self.totals.result(self.plan, self.backend.name, arrays or RowArrays())


def compute(
    problem: Problem,
    arrays: tuple[Array, Array | None],
    options: LossOptions,
    run: Run,
    *,
    grad: bool = True,
    out: Any = None,
) -> CrossEntropy:
    """Loss and, with `grad`, its gradient, of logits and probabilities in memory: of one piece.

    `out` is the caller's buffer for the gradient.
    """
    layout, (x, q) = problem.layout, arrays
    destination = None
    if grad:
        destination = Destination(layout, x, out)
        x = destination.unshared(x)
        q = None if q is None else destination.unshared(q)
    calculation = LossCalculation(problem, options, run)
    each = calculation.add(RowPiece.of_arrays(problem, x, q), destination)
    losses, lse = each.losses.reshape(layout.row_shape), each.lse.reshape(layout.row_shape)
    return calculation.result(RowArrays(losses, destination and destination.finish(), lse))


def cross_entropy(  # noqa: PLR0913 (the names and defaults are PyTorch's, and part of the contract)
    logits: Any,
    targets: Any = None,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    upstream: Any = None,
    normalizer: float | None = None,
    empty_mean: EmptyMean = "nan",
    target_kind: TargetKind = "auto",
    class_axis: int | None = None,
    teacher: Teacher | None = None,
    grad: bool = True,
    out: Any = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> CrossEntropy:
    """Softmax cross-entropy loss and its gradient with respect to the logits.

        z    = logits / temperature, then softcap·tanh(z / softcap)
        p    = softmax(z),  lse = logsumexp(z)
        a_c  = weight_c·((1 − label_smoothing)·target_c + label_smoothing/C)
        L_i  = sample_weight_i·(Σ_c a_c·(−log p_c) + z_loss·lse²)
        dL/dlogits_c = upstream·∂L/∂z_c·(1 − (z_c/softcap)²) / temperature

    where target is the one-hot row of a class index, or the row of probabilities. The mean
    divides by Σ sample_weight_i·weight_{y_i} over the rows that are not ignored (by
    Σ sample_weight_i for probabilities), or by `normalizer`. With a `teacher` it is the loss
    that `Teacher` describes, of which targets are a part only with its alpha below 1; else they
    say which rows are ignored, and may be left out.

    Shapes: logits (C,), (N, C), (N, C, d1, …) or (…, C); targets the same without the class
    axis (indices) or the same (probabilities; integers are one-hot rows). weight (C,),
    sample_weight one per row, upstream a number, or one per row with reduction "none".

    Units: the loss is in nats; the gradient is the loss per unit of logit. The gradient has the
    logits' dtype, float32 for float16 and bfloat16, or that of `out`; `out=logits` overwrites
    them in place.

    Accuracy: in float64 within 2 units in the last place (ULP), 3 with temperature, weights,
    upstream or normalizer, 4 with softcap, and 8 ULP of the terms that are added with
    label_smoothing, z_loss or probabilities; in float32 within 2.

    Logits on a CUDA device (PyTorch, CuPy, JAX, Numba: `__cuda_array_interface__`; bfloat16 too)
    are used where they are, and so are probabilities and `out`; smaller arrays may be on either
    side. `grad` is then `out` itself or a new array on the device, and losses per row and `lse`
    are there too. It runs on the stream of the logits (of PyTorch: the current one), waits for
    those of the other arrays, and is done on return. The note on probabilities that do not sum
    to 1 is left out there: it would take another pass over all of them. With logits on
    the host, all other arrays have to be there.

    Errors: `DataError` (a ValueError) where shapes do not match, or a target is not a class;
    `OptionError` (a ValueError) for an option out of range. Nothing is written on an error.
    Arrays may have any memory layout; `out` is the only one that is written.

    >>> import numpy as np
    >>> r = cross_entropy(np.array([[1.0, 2.0, 3.0]]), np.array([0]))
    >>> round(r.loss, 4), r.grad.round(4).tolist()
    (2.4076, [[-0.91, 0.2447, 0.6652]])
    >>> cross_entropy([[2.0, 1.0], [2.0, 1.0]], [1, 1], weight=[1, 10]).grad.round(4).tolist()
    [[0.3655, -0.3655], [0.3655, -0.3655]]

    Source: the rules are those of PyTorch's `torch.nn.functional.cross_entropy`; the loss and
    its gradient p − y are in Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.2.2.
    """
    first = reduction, ignore_index, label_smoothing, temperature, softcap, z_loss
    options = loss_options(*first, normalizer, empty_mean, target_kind, class_axis)
    extras, grad = Extras(weight, sample_weight, upstream), allowed("grad", grad, BOOLEAN)
    if (there := device_array(logits, "logits")) is not None:
        from xentcli.engine import device

        device.require(backend, threads, teacher)
        return device.cross_entropy(there, targets, options, extras, grad=grad, out=out)
    require_host(
        targets=targets, weight=weight, sample_weight=sample_weight, upstream=upstream, out=out
    )
    how = Run(backend, threads)
    if teacher is not None:
        given = (logits, targets), teacher, options, extras, how
        return _with_teacher(*given, grad=grad, out=out)
    x, t = as_logits(logits), as_targets(targets)
    return _of_arrays((x, t), options, extras.as_arrays(), how, grad=grad, out=out)


def _with_teacher(  # noqa: PLR0913 (arrays and options of two models)
    arrays: tuple[Any, Any],
    teacher: Teacher,
    options: LossOptions,
    extras: Extras,
    run: Run,
    *,
    grad: bool,
    out: Any,
) -> CrossEntropy:
    """The loss against a teacher of logits and targets in memory."""
    from xentcli.engine.teacher.arrays import compute as compute_with
    from xentcli.engine.teacher.arrays import require_teacher

    require_teacher(teacher)
    beside = {"teacher_indices": teacher.indices, "teacher_rest": teacher.rest}
    require_host(teacher=teacher.values, **beside)
    x, t = as_logits(arrays[0]), None if arrays[1] is None else as_targets(arrays[1])
    soft = teacher.arrays, teacher.options
    return compute_with((x, t), soft, options, extras.as_arrays(), run, grad=grad, out=out)


@ignoring_float_errors
def _of_arrays(
    arrays: tuple[Array, Array],
    options: LossOptions,
    extras: Extras,
    run: Run,
    *,
    grad: bool,
    out: Any,
) -> CrossEntropy:
    """The result for logits and targets in memory."""
    x, targets = arrays
    problem = build(x.shape, Whole(targets), options, extras)
    probs = targets if problem.probs else None
    return compute(problem, (x, probs), options, run, grad=grad, out=out)
