"""The functions of `xentcli.dask`."""

from __future__ import annotations

from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np

from xentcli import backends
from xentcli.dask import parts, rows
from xentcli.dask.graphs import fused
from xentcli.dask.inputs import inputs, require_numpy
from xentcli.dask.memory import of_client, require_fit
from xentcli.dask.report import ReportInputs, report_graph
from xentcli.dask.rows import How, LossGraph, result_meta
from xentcli.dask.softmax import softmax_graph
from xentcli.engine.problem import Extras
from xentcli.options import (
    BOOLEAN,
    Backend,
    EmptyMean,
    LogitsOptions,
    LossOptions,
    Reduction,
    TargetKind,
    allowed,
)
from xentcli.report.options import Binning, ReportOptions, ScoreOptions


class LazyLoss(NamedTuple):
    """What `cross_entropy` returns: dask arrays of which nothing is computed yet.

    `loss` has shape () for mean and sum; for none it is `losses`, which have the shape of the
    logits without the class axis, float64. `grad` has the shape and the chunks of the logits.
    """

    loss: da.Array
    losses: da.Array
    grad: da.Array | None


def cross_entropy(  # noqa: PLR0913 (the names and defaults are those of `xentcli.cross_entropy`)
    logits: da.Array,
    targets: Any,
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
    grad: bool = True,
    backend: Backend = "auto",
    threads: int | None = None,
) -> LazyLoss:
    """Softmax cross-entropy loss of dask arrays, and its gradient with respect to the logits.

        L, dL/dlogits as in `xentcli.cross_entropy`, with all its options and by the same names

    The result is lazy: compute what you need of it together, `dask.compute(loss, grad)`, or each
    part is computed again. `grad` may be larger than memory: write it chunk by chunk, by
    `grad.to_zarr(url)` or `dask.array.store`.

    Shapes: logits (C,), (N, C), (N, C, d1, …) or (…, C), a dask array; targets, sample_weight and
    upstream as in `xentcli.cross_entropy`, dask arrays or arrays in memory; weight (C,).

    Chunks: any, along any axis. Where a chunk holds all classes of its rows, the bits are those of
    `xentcli.cross_entropy` on one machine, whatever the chunks, the workers and their order. Where
    the classes are in parts, a row takes two phases in NumPy; its bits depend on no cut, and are
    within the error bounds of the backend "numpy", but not those of one machine. There only
    `backend` "auto" and "numpy" are allowed. Class indices and numbers per row that come in other
    chunks are rechunked, with a `dask.array.PerformanceWarning`.

    Units: nats; the gradient is the loss per unit of logit, in the logits' dtype (float32 for
    float16 and bfloat16).

    Errors, when the graph is built: `ShapeError` for shapes that do not match, chunks of unknown
    size, and probabilities in other chunks than the logits; `DataError` for a chunk that does not
    fit into the memory of a worker of the current client, with chunks that do; `OptionError`. When
    it is computed: `TargetError` for a target that is not a class, with its row in the whole;
    `DataError` for weights that are not finite.

    >>> import dask, numpy as np
    >>> import dask.array as da
    >>> x = da.from_array(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), chunks=(1, 3))
    >>> loss, losses, grad = cross_entropy(x, np.array([0, 2]))
    >>> loss, grad.chunks
    (dask.array<from-value, shape=(), dtype=float64, chunksize=(), chunktype=numpy.ndarray>, \
((1, 1), (3,)))
    >>> loss, grad = dask.compute(loss, grad)
    >>> round(float(loss), 4), grad.round(4).tolist()
    (1.4076, [[-0.455, 0.1224, 0.3326], [0.045, 0.1224, -0.1674]])

    Source: the loss is that of `xentcli.cross_entropy`; parts of the classes as in Megatron-LM
    (Shoeybi et al., 2019), section 3, with reproducible sums (Demmel, Nguyen, 2015).
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
    extras, grad = Extras(weight, sample_weight, upstream), allowed("grad", grad, BOOLEAN)
    graph = graph_of_loss(logits, targets, options, extras, How(backend, threads, grad))
    loss = graph.losses
    if reduction != "none":
        loss = da.from_delayed(graph.result.loss, shape=(), dtype=np.float64)
    return LazyLoss(loss, graph.losses, graph.grad)


def graph_of_loss(
    logits: Any, targets: Any, options: LossOptions, extras: Extras, how: How
) -> LossGraph:
    """The graph of a loss; the arrays and options are checked now."""
    checked = inputs(logits, targets, options, extras)
    result = result_meta(checked.logits).dtype if how.grad else None
    require_fit(checked.logits, checked.layout, result, of_client())
    name, threads = backends.require_known(how.backend, how.threads)
    if checked.logits.numblocks[checked.layout.class_axis] > 1:
        require_numpy(name)
        return parts.loss_graph(checked, How("numpy", threads, how.grad))
    name = backends.choose(name, checked.logits.size)
    return rows.loss_graph(checked, How(name, threads, how.grad))


def softmax(  # noqa: PLR0913 (one name for each option)
    logits: da.Array,
    *,
    log: bool = False,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_axis: int = -1,
    backend: Backend = "auto",
    threads: int | None = None,
) -> da.Array:
    """Probabilities of the classes of a dask array, or with `log` their logarithms.

        p_c = exp(z_c) / Σ_j exp(z_j),   z = logits / temperature, then softcap·tanh(z / softcap)

    Shapes: logits of any shape with the classes on `class_axis`; the result is lazy, of the same
    shape and chunks, in the logits' dtype (float32 for float16 and bfloat16). Chunks and bits as
    in `cross_entropy`.

    Units: none; logarithms in nats.

    Errors: as `cross_entropy`, when the graph is built.

    >>> import dask.array as da
    >>> softmax(da.from_array([1.0, 2.0, 3.0], chunks=2)).compute().round(4).tolist()
    [0.09, 0.2447, 0.6652]

    Source: that of `xentcli.softmax` and `xentcli.log_softmax`.
    """
    options = LogitsOptions(temperature=temperature, softcap=softcap, class_axis=class_axis)
    log = allowed("log", log, BOOLEAN)
    return softmax_graph(logits, options, How(backend, threads, False), log=log).array


def report(  # noqa: PLR0913 (the names and defaults are those of `xentcli.report`)
    logits: da.Array,
    targets: Any,
    *,
    base: Any = None,
    sample_weight: Any = None,
    group: Any = None,
    ignore_index: int = -100,
    target_kind: TargetKind = "auto",
    temperature: float = 1.0,
    softcap: float | None = None,
    class_axis: int | None = None,
    bytes: int | None = None,
    words: int | None = None,
    top: tuple[int, ...] = (1, 5),
    bins: int = 15,
    binning: Binning = "width",
    confusion: int = 0,
    worst: int = 0,
    skip_nonfinite: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Any:
    """Statistics of logits and targets: a delayed `xentcli.report.result.Report`.

        the statistics of `xentcli.report.report`, with the same options and the same bits

    Shapes: logits and base are dask arrays; targets, sample_weight dask arrays or arrays in
    memory; group is in memory, one label per row.

    Chunks: of consecutive rows with all classes; others are rechunked to such ones, with a
    `dask.array.PerformanceWarning`. Up to 24 bytes of each row are kept for the quantiles, on one
    worker in the end.

    Units: nll, entropy and KL in nats; shares and probabilities from 0 to 1.

    Errors: as `cross_entropy`.

    >>> import dask.array as da, numpy as np
    >>> x = da.from_array(np.log([[0.5, 0.5], [0.25, 0.75]]), chunks=(1, 2))
    >>> round(report(x, np.array([0, 1])).compute()["nll"].value, 4)
    0.4904

    Source: that of `xentcli.report.report`.
    """
    scoring = ScoreOptions(ignore_index, target_kind, temperature, softcap, class_axis)
    what = ReportOptions(tuple(top), bins, binning, confusion, worst, skip_nonfinite, bytes, words)
    arrays = ReportInputs(logits, targets, base, sample_weight, group)
    graph = report_graph(arrays, scoring, what, How(backend, threads, False))
    with fused():
        return dask.optimize(graph.result)[0]
