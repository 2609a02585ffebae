"""The functions of `xentcli.dask`."""

from __future__ import annotations

from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np

from xentcli import backends
from xentcli.dask import parts, rows
from xentcli.dask.inputs import inputs
from xentcli.dask.rows import How, LossGraph
from xentcli.engine.problem import Extras
from xentcli.options import BOOLEAN, Backend, EmptyMean, LossOptions, Reduction, TargetKind, allowed


class LazyLoss(NamedTuple):
    """What `cross_entropy` returns: dask arrays, of which nothing is computed yet."""

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
    """docstring later."""
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
    name, threads = backends.require_known(how.backend, how.threads)
    if checked.logits.numblocks[checked.layout.class_axis] > 1:
        return parts.loss_graph(checked, How("numpy", threads, how.grad))
    name = backends.choose(name, checked.logits.size)
    return rows.loss_graph(checked, How(name, threads, how.grad))
