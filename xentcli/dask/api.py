"""The functions of `xentcli.dask`."""

from __future__ import annotations

from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from xentcli import backends
from xentcli.dask import parts, rows
from xentcli.dask.inputs import inputs
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
    result = result_meta(checked.logits).dtype if how.grad else None
    require_fit(checked.logits, checked.layout, result, of_client())
    name, threads = backends.require_known(how.backend, how.threads)
    if checked.logits.numblocks[checked.layout.class_axis] > 1:
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
    """d"""
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
    """d"""
    scoring = ScoreOptions(ignore_index, target_kind, temperature, softcap, class_axis)
    what = ReportOptions(tuple(top), bins, binning, confusion, worst, skip_nonfinite, bytes, words)
    arrays = ReportInputs(logits, targets, base, sample_weight, group)
    return report_graph(arrays, scoring, what, How(backend, threads, False)).result
