"""Is this gradient right? The judge of what somebody else computed, for pytest and Python.

`xent check` is the same for files. It compares with an oracle of twice the precision, says where
the error sits, and tries what a wrong gradient would be right for.
"""

from __future__ import annotations

from typing import Any

from xentcli.arrays.dtypes import BF16, Array, as_array, as_logits
from xentcli.check.judging import How, judge
from xentcli.check.oracles.ulp import Tolerance
from xentcli.check.report import Report
from xentcli.engine.problem import Extras, build
from xentcli.engine.stream import Streams
from xentcli.engine.targets import Whole, as_targets
from xentcli.files.reader import InMemoryReader
from xentcli.options import LossOptions

__all__ = ["How", "Report", "Tolerance", "assert_grad_close", "check", "judge"]

BESIDE = ("weight", "sample_weight", "upstream")
STRICTNESS = ("ulp", "rtol", "atol", "like_peers")


def check(logits: Any, targets: Any, grad: Any, *, loss: Any = None, **options: Any) -> Report:
    """Judge a gradient of the cross-entropy, and its loss if given; the report of `xent check`.

        error_c = |grad_c − dL/dlogits_c| ≤ max(ulp·(one unit in the last place), rtol·|…|, atol)

    Options: those of `cross_entropy` (weight, label_smoothing, reduction, …); ulp, rtol, atol,
    like_peers; method "exact" or "finite-diff"; dtype "f16", "bf16", "f32" or "f64" to judge in
    units of that kind.

    Shapes: as in `cross_entropy`; grad the shape of the logits; loss one number, or one per row
    with reduction "none". Arrays of PyTorch and JAX are taken as they are.

    Units: ulp counts units in the last place of the gradient's own kind, at the size of the
    terms that an entry is the difference of.

    Errors: `DataError` where shapes or kinds cannot be compared, `OptionError` for an option.

    >>> import numpy as np
    >>> check(np.array([[1.0, 2.0]]), [0], np.array([[-0.75, 0.75]])).ok
    False

    Source: p − y as in Goodfellow, Bengio, Courville, Deep Learning (2016), section 6.2.2;
    double-double arithmetic after Dekker, Numerische Mathematik 18 (1971).
    """
    strictness = {name: options.pop(name) for name in STRICTNESS if name in options}
    method, dtype = options.pop("method", "exact"), options.pop("dtype", "auto")
    beside = {name: _array(options.pop(name, None)) for name in BESIDE}
    loss_options = LossOptions(**options)
    x, t = as_logits(_array(logits)), as_targets(_array(targets))
    theirs = as_array(_array(grad), "grad")
    theirs = theirs.view(BF16) if theirs.dtype.name == "bfloat16" else theirs
    problem = build(x.shape, Whole(t), loss_options, Extras(**beside))
    streams = Streams(
        InMemoryReader(x, "logits", "npy"),
        InMemoryReader(t, "targets", "npy") if problem.probs else None,
        grad=InMemoryReader(theirs, "grad", "npy"),
    )
    how = How(method, Tolerance(**strictness), dtype)
    given = None if loss is None else as_logits(_array(loss), "loss")
    return judge(problem, streams, loss_options, how, given)


def assert_grad_close(
    logits: Any, targets: Any, grad: Any, *, loss: Any = None, **options: Any
) -> None:
    """Fail, with the report of `xent check` as the message, where a gradient is off.

        |grad_c − dL/dlogits_c| ≤ max(ulp·(one unit in the last place), rtol·|dL/dlogits_c|, atol)

    Options are those of `check`.

    Shapes: as `check`.

    Units: as `check`.

    Errors: as `check`, and AssertionError.

    >>> import numpy as np
    >>> assert_grad_close(np.array([[1.0, 1.0]]), [0], np.array([[-0.5, 0.5]]))
    >>> assert_grad_close(np.array([[1.0, 1.0]]), [0], np.array([[0.5, -0.5]]))
    Traceback (most recent call last):
    AssertionError: gradient wrong: 2 of 2 entries, in 1 of 1 row, ...

    Source: as `check`.
    """
    report = check(logits, targets, grad, loss=loss, **options)
    if not report.ok:
        raise AssertionError("\n".join(report.lines()))


def _array(values: Any) -> Any:
    """A tensor of PyTorch as an array, its bfloat16 too; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    if str(tensor.dtype) != "torch.bfloat16":
        return tensor.numpy()
    import importlib

    torch = importlib.import_module("torch")
    bits: Array = tensor.contiguous().view(torch.int16).numpy()
    return bits.view(BF16)
