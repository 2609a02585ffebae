"""Cross-entropy from arrays: build the problem, call the backend block by block, reduce."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xentcli import kernels
from xentcli.buffers import Destination
from xentcli.dtypes import Array, as_logits
from xentcli.kernels import Scalars
from xentcli.layout import Block, dense
from xentcli.notes import Note, ProbabilityCheck, nonfinite_rows
from xentcli.options import LossOptions
from xentcli.problem import Extras, Problem, build
from xentcli.reduction import plan
from xentcli.sums import RunningSum


@dataclass(frozen=True)
class Run:
    """How to compute, as opposed to what.

    `notify` is told when something takes long; `progress` how many of how many rows are done.
    """

    backend: str = "auto"
    threads: int | None = None
    notify: Callable[[str], None] | None = None
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class CrossEntropy:
    """The result of `cross_entropy`.

    `loss` is a float for mean and sum, else a float64 array with one per row. `grad` has the
    shape of the logits, or is None. `lse` is the log-sum-exp of each row, float64, NaN where the
    row is ignored. `backend` is the one that ran; `notes` say what may surprise.
    """

    loss: Any
    grad: Array | None
    lse: Array
    backend: str
    rows: int
    ignored: int
    notes: tuple[Note, ...] = ()


def compute(
    problem: Problem, options: LossOptions, run: Run, *, grad: bool = True, out: Any = None
) -> CrossEntropy:
    """Loss and, with `grad`, its gradient; `out` is the caller's buffer for it."""
    destination = Destination(problem.layout, problem.logits, out) if grad else None
    with np.errstate(all="ignore"):  # NaN and infinity are answers here
        task = _Task(problem, options, run, destination)
        for block in problem.layout.blocks(task.backend.block):
            task.do(block)
            if run.progress:
                run.progress(block.stop, problem.layout.rows)
        return task.result(options.reduction == "none")


class _Task:
    """One call of `compute`: the buffers, and the kernel that fills them."""

    def __init__(
        self, problem: Problem, options: LossOptions, run: Run, grad: Destination | None
    ) -> None:
        layout = problem.layout
        if grad:
            problem = problem.mapped(grad.unshared)
        logits, targets = problem.logits, problem.targets
        self.logits = layout.boxed(logits)
        self.targets = layout.boxed(targets) if problem.probs else targets
        self.problem, self.layout, self.grad = problem, layout, grad
        self.backend = kernels.get(run.backend, logits.size, run.threads, run.notify)
        self.reduction = plan(problem, options)
        self.scalars = Scalars(
            float(options.label_smoothing),
            float(options.temperature),
            np.inf if options.softcap is None else float(options.softcap),
            float(self.reduction.z_loss),
        )
        self.results = np.empty((2, layout.rows))
        self.total, self.check = RunningSum(), ProbabilityCheck(targets.dtype)

    def do(self, block: Block) -> None:
        """Compute one block of rows."""
        x, buffer = dense(block.of(self.logits)), None
        if self.grad:
            buffer = self.grad.buffer(block)
        if self.problem.probs:
            targets = dense(as_logits(block.of(self.targets), "targets"))
            self.check.add(targets)
        else:
            targets = self.targets[block.rows]
        weight, scale = self.problem.weight, self.reduction.scale(block)
        results = self.results[:, block.rows]
        self.backend.rows(x, targets, weight, scale, self.scalars, results, buffer)
        if self.problem.sample_weight is not None:
            results[0] = self.reduction.weigh(results[0], block)
        self.total.add(results[0])
        if self.grad and buffer is not None:
            self.grad.put(block, buffer)

    def result(self, per_row: bool) -> CrossEntropy:
        """What all blocks together gave."""
        losses, lse = self.results
        loss: Any = losses.reshape(self.layout.row_shape)
        notes, total = self.check.notes(), self.total.value()
        if not math.isfinite(total):
            notes += nonfinite_rows(losses, "loss")
        if not per_row:
            loss = self.reduction.reduce(total)
            notes += self.reduction.notes(loss, all_finite=not notes)
        return CrossEntropy(
            loss=loss,
            grad=self.grad.finish() if self.grad else None,
            lse=lse.reshape(self.layout.row_shape),
            backend=self.backend.name,
            rows=self.layout.rows,
            ignored=self.problem.ignored,
            notes=tuple(notes),
        )


def cross_entropy(  # noqa: PLR0913 (the names and defaults are PyTorch's, and part of the contract)
    logits: Any,
    targets: Any,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    upstream: Any = None,
    normalizer: float | None = None,
    empty_mean: str = "nan",
    target_kind: str = "auto",
    class_axis: int | None = None,
    grad: bool = True,
    out: Any = None,
    backend: str = "auto",
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
    Σ sample_weight_i for probabilities), or by `normalizer`.

    Shapes: logits (C,), (N, C), (N, C, d1, …) or (…, C); targets the same without the class
    axis (indices) or the same (probabilities; integers are one-hot rows). weight (C,),
    sample_weight one per row, upstream a number, or one per row with reduction "none".

    Units: the loss is in nats; the gradient is the loss per unit of logit. The gradient has the
    logits' dtype, float32 for float16 and bfloat16, or that of `out`; `out=logits` overwrites
    them in place.

    Errors: `DataError` (a ValueError) where arrays do not fit, or a target is no class;
    `OptionError` (a ValueError) for an option out of range; nothing is written then.

    >>> import numpy as np
    >>> r = cross_entropy(np.array([[1.0, 2.0, 3.0]]), np.array([0]))
    >>> round(r.loss, 4), r.grad.round(4).tolist()
    (2.4076, [[-0.91, 0.2447, 0.6652]])
    >>> cross_entropy([[2.0, 1.0], [2.0, 1.0]], [1, 1], weight=[1, 10]).grad.round(4).tolist()
    [[0.3655, -0.3655], [0.3655, -0.3655]]

    Source: the rules are those of PyTorch's `torch.nn.functional.cross_entropy`; the loss and
    its gradient p − y are in Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.2.2.
    """
    options = LossOptions(
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        z_loss=z_loss,
        normalizer=normalizer,
        empty_mean=empty_mean,
        target_kind=target_kind,
        class_axis=class_axis,
    )
    problem = build(logits, targets, options, Extras(weight, sample_weight, upstream))
    return compute(problem, options, Run(backend, threads), grad=grad, out=out)
