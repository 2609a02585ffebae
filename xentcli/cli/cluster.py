"""`--cluster` and `--workers`: the work of a command on a cluster of dask."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from xentcli import signals
from xentcli.cli.console import Progress, note
from xentcli.cli.options import RunningAnywhere
from xentcli.cli.sinks import ArrayOutput, LossConsumers
from xentcli.errors import OptionError, UnavailableError, plural

if TYPE_CHECKING:
    from xentcli.cli.inputs import Inputs
    from xentcli.engine.result import CrossEntropy
    from xentcli.engine.softmax import Probabilities
    from xentcli.options import LogitsOptions, LossOptions
    from xentcli.report.options import ReportOptions, ScoreOptions
    from xentcli.report.result import Report

    Result = TypeVar("Result", CrossEntropy, Probabilities, Report)


class Cluster:
    """A connection to a cluster, and how a command computes there."""

    def __init__(self, client: Any, running: RunningAnywhere, *, grad: bool) -> None:
        from xentcli.dask.rows import How

        self._client, self._running = client, running
        self.how = How(running.backend, running.threads, grad)
        self.workers = len(client.scheduler_info(n_workers=-1)["workers"])
        self._before = max((time for time, _ in self._events()), default=0.0)

    def run(self, wanted: Sequence[Any], graph: Any, nbytes: int) -> list[Any]:
        """Compute, with a progress bar; what the workers note is told once."""
        from xentcli.dask.cluster import run

        parts = list(zip(graph.rows, graph.chunks, strict=True))
        with Progress(not self._running.no_progress, nbytes) as progress:
            found = run(self._client, wanted, parts, progress)
        for text in sorted({str(event) for time, event in self._events() if time > self._before}):
            note(text)
        return found

    def _events(self) -> Sequence[tuple[float, Any]]:
        """What workers noted and when, also for earlier commands of a scheduler that stays."""
        return self._client.get_events("xentcli") or ()

    def stored(self, result: Any, array: ArrayOutput) -> Any:
        """A delayed writing of a result into an output, which workers write."""
        import numpy as np

        from xentcli.arrays.dtypes import HALVES, name_of
        from xentcli.dask.arrays import finite
        from xentcli.dask.files import store

        target = shared_target(array, tuple(sizes[0] for sizes in result.chunks))
        rounded = result.dtype == np.float32 and array.dtype in HALVES
        if array.dtype != result.dtype and not rounded:
            what = f"workers write {result.dtype.name} here, and not {name_of(array.dtype)}"
            raise OptionError("dtype", what, "leave the option out, or compute without a cluster")
        return store(finite(result) if self._running.strict else result, target)

    def called(self, backend: str) -> str:
        """A backend in the summary line."""
        return f"{backend} on {plural(self.workers, 'worker')}"


@contextmanager
def connected(running: RunningAnywhere, *, grad: bool = False) -> Iterator[Cluster]:
    """The cluster of the options; one of this machine ends with the command."""
    if running.cluster is not None and running.workers is not None:
        raise OptionError("command line", "--cluster and --workers exclude each other")
    from xentcli.dask import connection  # an error where dask is not installed

    with (
        signals.unwinding(),
        connection.connected(running.cluster, running.workers) as client,
    ):
        cluster = Cluster(client, running, grad=grad)
        if not cluster.workers:
            raise UnavailableError("cluster", "the cluster has no workers", "start some first")
        yield cluster


def loss(
    cluster: Cluster,
    options: LossOptions,
    inputs: Inputs,
    array: ArrayOutput | None,
    losses: LossConsumers | None,
) -> CrossEntropy:
    """The loss, its gradient into `array`, and the loss of each row into `losses`."""
    from xentcli.cli.summary import nbytes
    from xentcli.dask.api import graph_of_loss

    logits, targets = _logits_and_targets(inputs, options.class_axis)
    with _warnings_as_notes():
        graph = graph_of_loss(logits, targets, options, inputs.extras, cluster.how)
    wanted = [graph.result]
    if losses:
        wanted.append(graph.losses)
    if array:
        wanted.append(cluster.stored(graph.grad, array))
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
    wanted = [graph.result, cluster.stored(graph.array, array)]
    result: Probabilities
    result, *_ = cluster.run(wanted, graph, nbytes(inputs.logits))
    return _named(result, cluster)


def report(
    cluster: Cluster, scoring: ScoreOptions, options: ReportOptions, inputs: Inputs
) -> Report:
    """The statistics of a report."""
    from xentcli.cli.summary import nbytes
    from xentcli.dask.arrays import like_logits
    from xentcli.dask.report import ReportInputs, report_graph

    logits, targets = _logits_and_targets(inputs, scoring.class_axis)
    base = like_logits(inputs.base, logits) if inputs.base else None
    weights = inputs.extras.sample_weight
    arrays = ReportInputs(logits, targets, base, weights, inputs.group)
    with _warnings_as_notes():
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


def shared_target(array: ArrayOutput, chunks: tuple[int, ...]) -> Any:
    """What takes parts of an output from several processes; an error where there is no such."""
    from xentcli.files import shared
    from xentcli.files.compression import by_suffix

    sink, (format, create) = array.sink, array.hand_over()
    raw = sink and format.is_raw and not by_suffix(sink.path)
    if sink is None or not sink.is_file or not (raw or format.is_folder):
        what = "workers write the result themselves, and can do so only into .zarr, and into .npy "
        hint = "and .safetensors files that are not compressed"
        raise OptionError("output", f"{what}{hint}", "-o FILE.zarr")
    return shared.shared_target(sink, create, (array.shape, chunks, array.dtype))


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """What the library warns of, such as other chunks, as notes."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(item.message) for item in found):
        note(text)


def _named(result: Result, cluster: Cluster) -> Result:
    """A result whose backend says where it ran."""
    return replace(result, backend=cluster.called(result.backend))
