"""Is this gradient right? The judge of a gradient computed elsewhere, for pytest and Python.

`xent check` is the same for files. It compares with an oracle of twice the precision, says where
the errors are, and tries which known mistake would explain them.
"""

from __future__ import annotations

from typing import Any

from xentcli.arrays.dtypes import BF16, Array, as_array, as_logits, attribute
from xentcli.arrays.float_errors import ignoring_float_errors
from xentcli.check.judging import JudgeOptions, Method, judge
from xentcli.check.oracles.ulp import JudgedDtype, Tolerance
from xentcli.check.report import Report
from xentcli.engine.problem import Extras, build
from xentcli.engine.rows import RowSource
from xentcli.engine.targets import Whole, as_targets
from xentcli.errors import ShapeError, reason
from xentcli.options import EmptyMean, LossOptions, Reduction, TargetKind

__all__ = [
    "How",
    "JudgeOptions",
    "Report",
    "Tolerance",
    "assert_grad_close",
    "check",
    "judge",
]

How = JudgeOptions  # its name in 0.1


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
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    like_peers: bool = False,
    method: Method = "exact",
    dtype: JudgedDtype = "auto",
) -> Report:
    """Judge a gradient of the cross-entropy, and its loss if given; the report of `xent check`.

        error_c = |grad_c − dL/dlogits_c| ≤ max(ulp·(one unit in the last place), rtol·|…|, atol)

    Options: those of `cross_entropy` (weight, label_smoothing, reduction, …); ulp, rtol, atol,
    and like_peers, which accepts twice the error of a naive implementation in the same dtype;
    method "exact", or "finite-diff" to compare with differences of the loss; dtype "f16", "bf16",
    "f32" or "f64" to judge in its ULP.

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
    extras = Extras(**{name: _on_host(values, name) for name, values in given.items()})
    how = JudgeOptions(method, Tolerance(ulp, rtol, atol, like_peers), dtype)
    losses = None if loss is None else as_logits(_on_host(loss, "loss"), "loss")
    x, t = as_logits(_on_host(logits, "logits")), as_targets(_on_host(targets, "targets"))
    candidate = as_array(_on_host(grad, "grad"), "grad")
    return _judged((x, t, candidate), options, extras.as_arrays(), how, losses)


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
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    like_peers: bool = False,
    method: Method = "exact",
    dtype: JudgedDtype = "auto",
) -> None:
    """Fail, with the report of `xent check` as the message, where a gradient is off.

        |grad_c − dL/dlogits_c| ≤ max(ulp·(one unit in the last place), rtol·|dL/dlogits_c|, atol)

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
    report = check(**locals())  # the same parameters, each under its own name
    if not report.ok:
        raise AssertionError("\n".join(report.lines()))


@ignoring_float_errors
def _judged(
    arrays: tuple[Array, Array, Array],
    options: LossOptions,
    extras: Extras,
    how: JudgeOptions,
    loss: Array | None,
) -> Report:
    """The report on logits, targets and gradient."""
    x, t, candidate = arrays
    candidate = candidate.view(BF16) if candidate.dtype.name == "bfloat16" else candidate
    problem = build(x.shape, Whole(t), options, extras)
    source = RowSource.of_arrays(x, t if problem.probs else None, candidate)
    return judge(problem, source, options, how, loss)


def _on_host(values: Any, where: str) -> Any:
    """A tensor of PyTorch on the host and without its history; anything else unchanged."""
    if attribute(values, "detach") is None:
        return values
    try:
        return values.detach().cpu()
    except Exception as error:  # a tensor may have no memory, or be none of PyTorch's
        raise ShapeError(where, f"not an array: {reason(error)}") from error
