"""`--cluster` and `--workers`: the work of a command on a cluster of dask."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from xentcli import signals
from xentcli.cli.console import Progress, note
from xentcli.cli.options import RunningAnywhere
from xentcli.cli.sinks import ArrayOutput, LossConsumers
from xentcli.errors import OptionError, UnavailableError, plural, reason, visible

if TYPE_CHECKING:
    from xentcli.cli.inputs import Inputs
    from xentcli.engine.result import CrossEntropy
    from xentcli.engine.softmax import Probabilities
    from xentcli.options import LogitsOptions, LossOptions
    from xentcli.report.options import ReportOptions, ScoreOptions
    from xentcli.report.result import Report

    Result = TypeVar("Result", CrossEntropy, Probabilities, Report)

PATIENCE = 20  # seconds for a scheduler to answer


class Cluster:
    """A connection to a cluster, and how a command computes there."""

    def __init__(self, client: Any, running: RunningAnywhere, *, grad: bool) -> None:
        from xentcli.dask.rows import How

        self._client, self._running = client, running
        self.how = How(running.backend, running.threads, grad)
        self.workers = len(client.scheduler_info(n_workers=-1)["workers"])

    def run(self, wanted: Sequence[Any], graph: Any, nbytes: int) -> list[Any]:
        """Compute, with a progress bar; what the workers note is told once."""
        from xentcli.dask.cluster import run

        parts = list(zip(graph.rows, graph.chunks, strict=True))
        with Progress(not self._running.no_progress, nbytes) as progress:
            found = run(self._client, wanted, parts, progress)
        for text in sorted({str(event) for _, event in self._client.get_events("xentcli") or ()}):
            note(text)
        return found

    def called(self, backend: str) -> str:
        """A backend in the summary line."""
        return f"{backend} on {plural(self.workers, 'worker')}"


@contextmanager
def connected(running: RunningAnywhere, *, grad: bool = False) -> Iterator[Cluster]:
    """The cluster of the options; one of this machine ends with the command."""
    if running.cluster is not None and running.workers is not None:
        raise OptionError("command line", "--cluster and --workers exclude each other")
    import dask
    from distributed import Client

    import xentcli.dask  # noqa: F401 (an error where dask is not installed)

    for name in ("distributed", "distributed.client", "asyncio"):  # our errors say what they say
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quiet = dask.config.set({"logging.distributed": "critical"})  # of the workers
    with quiet, signals.unwinding(), _address(running) as address:
        try:
            client = Client(address, timeout=PATIENCE, set_as_default=True)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            what = f"no scheduler of dask answers at {visible(str(running.cluster))}"
            raise UnavailableError("cluster", f"{what}: {reason(error)}") from error
        with client:
            cluster = Cluster(client, running, grad=grad)
            if not cluster.workers:
                raise UnavailableError("cluster", "the cluster has no workers", "start some first")
            yield cluster


@contextmanager
def _address(options: RunningAnywhere) -> Iterator[Any]:
    if options.workers is None:
        yield options.cluster
        return
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=options.workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # any free port; None would be 8787, with a warning
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


def loss(
    cluster: Cluster,
    options: LossOptions,
    inputs: Inputs,
    array: ArrayOutput | None,
    losses: LossConsumers | None,
) -> CrossEntropy:
    """The loss, its gradient into `array`, and the loss of each row into `losses`."""
    import dask

    from xentcli.cli.summary import nbytes
    from xentcli.dask.api import graph_of_loss

    logits, targets = _logits_and_targets(inputs, options.class_axis)
    graph = graph_of_loss(logits, targets, options, inputs.extras, cluster.how)
    wanted = [graph.result]
    if losses:
        wanted.append(dask.delayed(graph.losses))
    if array:
        wanted.append(_stored(graph.grad, array))
    result: CrossEntropy
    result, *more = cluster.run(wanted, graph, nbytes(inputs.logits))
    if losses:
        losses.write(more[0].reshape(-1))
    return _named(result, cluster)


def softmax(
    cluster: Cluster, options: LogitsOptions, inputs: Inputs, array: ArrayOutput, *, log: bool
) -> Probabilities:
    """Probabilities, or their logarithms, into `array`."""
    from xentcli.arrays.layout import find
    from xentcli.cli.summary import nbytes
    from xentcli.dask.arrays import logits_array
    from xentcli.dask.softmax import softmax_graph

    axis = find(inputs.logits.shape, None, options.class_axis).class_axis
    logits = logits_array(inputs.logits, axis)
    graph = softmax_graph(logits, options, cluster.how, log=log)
    wanted = [graph.result, _stored(graph.array, array)]
    result: Probabilities
    result, *_ = cluster.run(wanted, graph, nbytes(inputs.logits))
    return _named(result, cluster)


def report(
    cluster: Cluster, scoring: ScoreOptions, options: ReportOptions, inputs: Inputs
) -> Report:
    """The statistics of a report."""
    from xentcli.cli.summary import nbytes
    from xentcli.dask.arrays import lazy, slices_of
    from xentcli.dask.report import ReportInputs, report_graph

    logits, targets = _logits_and_targets(inputs, scoring.class_axis)
    base = None
    if inputs.base:
        slices = slices_of(inputs.base)
        base = inputs.base.whole() if slices is None else lazy(slices, logits.chunks)
    weights = inputs.extras.sample_weight
    arrays = ReportInputs(logits, targets, base, weights, inputs.group)
    graph = report_graph(arrays, scoring, options, cluster.how)
    result: Report = cluster.run([graph.result], graph, nbytes(inputs.logits))[0]
    return _named(result, cluster)


def _logits_and_targets(inputs: Inputs, class_axis: int | None) -> tuple[Any, Any]:
    """The arrays as workers read them."""
    from xentcli.arrays.layout import find
    from xentcli.dask.arrays import logits_array, small_array
    from xentcli.dask.inputs import row_chunks

    assert inputs.targets
    layout = find(inputs.logits.shape, inputs.targets.shape, class_axis)
    logits = logits_array(inputs.logits, layout.class_axis)
    probs = inputs.targets.shape == layout.shape
    chunks = logits.chunks if probs else row_chunks(layout, logits.chunks)
    return logits, small_array(inputs.targets, chunks)


def _stored(result: Any, array: ArrayOutput) -> Any:
    """A delayed writing of a result into an output, which workers write."""
    import numpy as np

    from xentcli.arrays.dtypes import HALVES, name_of
    from xentcli.dask.files import store

    require_shared(array)
    rounded = result.dtype == np.float32 and array.dtype in HALVES
    if array.dtype != result.dtype and not rounded:
        what = f"workers write {result.dtype.name} here, and not {name_of(array.dtype)}"
        raise OptionError("dtype", what, "leave the option out, or compute without a cluster")
    return store(result, array.shared_target(tuple(sizes[0] for sizes in result.chunks)))


def require_shared(array: ArrayOutput) -> None:
    """An error for an output that several processes cannot write."""
    if not array.is_shared:
        what = "workers write the result themselves, and can do so only into .zarr, and into .npy "
        hint = "and .safetensors files that are not compressed"
        raise OptionError("output", f"{what}{hint}", "-o FILE.zarr")


def _named(result: Result, cluster: Cluster) -> Result:
    """A result whose backend says where it ran."""
    return replace(result, backend=cluster.called(result.backend))
