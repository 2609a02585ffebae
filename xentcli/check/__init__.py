"""Is this gradient right? The judge of a gradient computed elsewhere, for pytest and Python.

`xent check` is the same for files. It compares with an oracle of twice the precision, says where
the errors are, and tries which known mistake would explain them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xentcli.arrays.dtypes import BF16, Array, as_array, as_logits
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.check.calling import host_array, named_options
from xentcli.check.judging import JudgeOptions, Method, judge, judge_loss
from xentcli.check.oracles.ulp import JudgedDtype, Tolerance
from xentcli.check.report import Report
from xentcli.engine.problem import Extras, Problem, build
from xentcli.engine.rows import RowSource, in_memory
from xentcli.engine.targets import Whole, as_targets
from xentcli.options import EmptyMean, LossOptions, Reduction, TargetKind
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.engine.teacher.arrays import Teacher
    from xentcli.engine.teacher.task import TeacherTask

__all__ = [
    "How",
    "JudgeOptions",
    "Report",
    "Tolerance",
    "assert_grad_close",
    "assert_loss_close",
    "check",
    "judge",
]

How = JudgeOptions  # its name in 0.1


@named_options
def check(  # noqa: PLR0913 (the options of cross_entropy, by their names, and the tolerances)
    logits: Any,
    targets: Any,
    grad: Any,
    *,
    loss: Any = None,
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
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    like_peers: bool = False,
    exact: bool = False,
    method: Method = "exact",
    rows: int | None = None,
    dtype: JudgedDtype = "auto",
) -> Report:
    """Judge a gradient of the cross-entropy, and its loss if given; the report of `xent check`.

        error_c = |grad_c − dL/dlogits_c| ≤ twice the error of a naive implementation

    Options: those of `cross_entropy` (weight, label_smoothing, reduction, …). The error that is
    accepted is that of naive arithmetic in the same dtype; with `exact` the ULP that xent
    promises for its own gradient; else the largest of ulp, rtol and atol that are given, and of
    the default too with like_peers. The report's `precision` says how a gradient passed. method
    "exact", or "finite-diff" to compare with differences of the loss, of so many rows, by
    default as many as take ten seconds; dtype "f16", "bf16", "f32" or "f64" to judge in its ULP.
    With a teacher the loss is the one against it, and targets may be None.

    Shapes: as in `cross_entropy`; grad the shape of the logits; loss one number, or one per row
    with reduction "none". Arrays of PyTorch and JAX are taken as they are.

    Units: ulp counts units in the last place of the gradient's own dtype, at the size of the
    terms that an entry is the difference of.

    Errors: `DataError` where shapes or dtypes cannot be compared, `OptionError` for an option.

    >>> import numpy as np
    >>> check(np.array([[1.0, 2.0]]), [0], np.array([[-0.75, 0.75]])).ok
    False

    Source: p − y as in Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.2.2;
    double-double arithmetic after Dekker, Numerische Mathematik 18 (1971).
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
    given = {"weight": weight, "sample_weight": sample_weight, "upstream": upstream}
    extras = Extras(**{name: host_array(values, name) for name, values in given.items()})
    how = JudgeOptions(method, Tolerance(ulp, rtol, atol, like_peers, exact), dtype, rows)
    losses = None if loss is None else as_logits(host_array(loss, "loss"), "loss")
    x, t = as_logits(host_array(logits, "logits")), _targets(targets, teacher)
    candidate = as_array(host_array(grad, "grad"), "grad")
    return _judged(_Given(x, t, candidate, options, extras.as_arrays(), teacher), how, losses)


@named_options
def assert_grad_close(  # noqa: PLR0913 (those of check)
    logits: Any,
    targets: Any,
    grad: Any,
    *,
    loss: Any = None,
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
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    like_peers: bool = False,
    exact: bool = False,
    method: Method = "exact",
    rows: int | None = None,
    dtype: JudgedDtype = "auto",
) -> None:
    """Fail where a gradient is off, and say what is wrong with it.

        |grad_c − dL/dlogits_c| ≤ twice the error of a naive implementation

    Options: those of `check`.

    Shapes: as `check`.

    Units: as `check`.

    Errors: as `check`, and AssertionError.

    >>> import numpy as np
    >>> assert_grad_close(np.array([[1.0, 1.0]]), [0], np.array([[-0.5, 0.5]]))
    >>> assert_grad_close(np.array([[1.0, 1.0]]), [0], np.array([[0.5, -0.5]]))
    Traceback (most recent call last):
    AssertionError: FAIL gradient: 2 of 2 entries, in 1 of 1 rows, ...

    Source: as `check`.
    """
    given = dict(locals())  # the same parameters, each under its own name
    __tracebackhide__ = True  # pytest shows the line of the test
    report = check(**given)
    if not report.ok:
        raise AssertionError("\n".join(report.summary()))


@named_options
def assert_loss_close(  # noqa: PLR0913 (the options of cross_entropy, and the tolerances)
    logits: Any,
    targets: Any,
    loss: Any,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    normalizer: float | None = None,
    empty_mean: EmptyMean = "nan",
    target_kind: TargetKind = "auto",
    class_axis: int | None = None,
    teacher: Teacher | None = None,
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    like_peers: bool = False,
    exact: bool = False,
) -> None:
    """Fail where a loss is off: one number, or one per row with reduction "none".

        |loss − L| ≤ twice the error of a naive implementation

    Options: those of `check` that apply to a loss.

    Shapes: as `check`.

    Units: nats; ulp counts units of the loss's dtype, of float32 where the logits have fewer bits.

    Errors: as `check`, and AssertionError.

    >>> import numpy as np
    >>> assert_loss_close(np.array([[1.0, 1.0]]), [0], np.log(2))
    >>> assert_loss_close(np.array([[1.0, 1.0]]), [0], 0.7)
    Traceback (most recent call last):
    AssertionError: FAIL loss: 0.69999999999999996 given, 0.69314718055994529 exact, ...

    Source: as `check`.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
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
    x, t = as_logits(host_array(logits, "logits")), _targets(targets, teacher)
    given = {"weight": weight, "sample_weight": sample_weight}
    extras = Extras(**{name: host_array(values, name) for name, values in given.items()})
    problem, source, task = _Given(x, t, None, options, extras.as_arrays(), teacher).built()
    tolerance, values = Tolerance(ulp, rtol, atol, like_peers, exact), host_array(loss, "loss")
    verdict = judge_loss(problem, source, options, tolerance, as_logits(values, "loss"), task)
    if verdict and verdict.off:
        words = [verdict.words(), *(f"diagnosis: {text}" for text in verdict.diagnosis())]
        raise AssertionError("\n".join(words))


def _targets(targets: Any, teacher: Teacher | None) -> Array | None:
    """The targets; beside a teacher there may be none."""
    if targets is None and teacher is not None:
        return None
    return as_targets(host_array(targets, "targets"))


@dataclass(frozen=True)
class _Given:
    """Everything that a loss is computed from, and its gradient as somebody else computed it."""

    logits: Array
    targets: Array | None
    grad: Array | None
    options: LossOptions
    extras: Extras
    teacher: Teacher | None

    def built(self) -> tuple[Problem, RowSource, TeacherTask | None]:
        """The problem, the arrays to be walked over, and what is to be computed of a teacher."""
        x, t, teacher = self.logits, self.targets, self.teacher
        problem = build(x.shape, None if t is None else Whole(t), self.options, self.extras)
        source = RowSource.of_arrays(x, t if problem.probs else None, self.grad)
        if teacher is None:
            return problem, source, None
        from xentcli.engine.teacher.arrays import require_teacher, require_use_of
        from xentcli.engine.teacher.task import task_of

        require_teacher(teacher)
        names = ("values", "indices", "rest")
        teacher = replace(teacher, **{n: host_array(getattr(teacher, n), n) for n in names})
        arrays, soft = teacher.arrays, teacher.options
        require_use_of(t, problem, soft)
        rest = len(arrays) > 2
        task = task_of(problem.layout, arrays, self.options, soft, self.extras, has_rest=rest)
        source.beside = tuple(in_memory(array, "teacher") for array in arrays)
        return problem, source, task


@ignoring_float_errors
def _judged(given: _Given, how: JudgeOptions, loss: Array | None) -> Report:
    """The report on logits, targets and gradient."""
    candidate = given.grad
    if candidate is not None and candidate.dtype.name == "bfloat16":
        given = replace(given, grad=candidate.view(BF16))
    problem, source, task = given.built()
    return judge(problem, source, given.options, how, loss, task)
