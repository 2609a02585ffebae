"""One computation from open inputs to open outputs, with progress and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xentcli.cli.cluster import connected
from xentcli.cli.cluster import loss as cluster_loss
from xentcli.cli.cluster import softmax as cluster_softmax
from xentcli.cli.console import Progress, note
from xentcli.cli.inputs import Inputs
from xentcli.cli.options import DtypeName, RunningAnywhere, RunningOptions
from xentcli.cli.session import require_no_ignore_index
from xentcli.cli.sinks import ArrayOutput, LossConsumers
from xentcli.cli.summary import emit_notes, nbytes
from xentcli.cli.teacher import task_of_inputs
from xentcli.errors import OptionError, Setting
from xentcli.options import LogitsOptions, LossOptions, TeacherOptions
from xentcli.records import dataclass

if TYPE_CHECKING:
    import numpy as np

    from xentcli.arrays.layout import Layout
    from xentcli.engine.cross_entropy import Run
    from xentcli.engine.result import CrossEntropy
    from xentcli.engine.softmax import Probabilities
    from xentcli.engine.top import TopArrays


@dataclass(frozen=True)
class Job:
    """How and where to compute, and the dtype of the result."""

    running: RunningOptions
    dtype: DtypeName

    @property
    def _anywhere(self) -> RunningAnywhere | None:
        """The options of a cluster, where one is asked for."""
        running = self.running
        return running if isinstance(running, RunningAnywhere) and running.on_cluster else None

    def cross_entropy(
        self,
        options: LossOptions,
        inputs: Inputs,
        array: ArrayOutput | None,
        losses: LossConsumers,
        soft: TeacherOptions,
    ) -> CrossEntropy:
        """The loss; the gradient into `array`, and with reduction none each loss into `losses`."""
        from xentcli.engine import stream
        from xentcli.engine.problem import build

        emit_notes(inputs.notes(), strict=self.running.strict)
        streams = stream.Streams(inputs.logits, out=array, dtype=self._result_dtype())
        if array:
            array.expect(inputs.logits.shape, streams.result_dtype, inputs.logits.format)
        if self._anywhere:
            return self._loss_on_cluster(self._anywhere, options, inputs, array, losses)
        problem = build(inputs.logits.shape, inputs.targets, options, inputs.extras)
        require_no_ignore_index(options.ignore_index, probs=problem.probs and bool(inputs.targets))
        self._note_one_class(problem.layout)
        streams.probs, streams.beside = inputs.targets if problem.probs else None, inputs.teacher
        task = task_of_inputs(problem, inputs, options, soft)
        if options.reduction == "none":
            streams.losses = losses
            losses.expect(problem.layout.row_shape)
        with Progress(not self.running.no_progress, nbytes(inputs.logits)) as progress:
            result = stream.cross_entropy(problem, streams, options, self._run(progress), task)
        emit_notes(result.notes, strict=self.running.strict)
        return result

    def _loss_on_cluster(
        self,
        running: RunningAnywhere,
        options: LossOptions,
        inputs: Inputs,
        array: ArrayOutput | None,
        losses: LossConsumers,
    ) -> CrossEntropy:
        from xentcli.arrays.layout import find

        if inputs.teacher:
            self._require_one_machine("teacher")
        assert inputs.targets
        layout = find(inputs.logits.shape, inputs.targets.shape, options.class_axis)
        self._note_one_class(layout)
        consumers = losses if options.reduction == "none" else None
        losses.expect(layout.row_shape)
        with connected(running, grad=array is not None) as cluster:
            result = cluster_loss(cluster, options, inputs, array, consumers)
        emit_notes(result.notes, strict=self.running.strict)
        return result

    def softmax(
        self, options: LogitsOptions, inputs: Inputs, array: ArrayOutput, *, log: bool
    ) -> Probabilities:
        """Probabilities, or their logarithms, into `array`."""
        from xentcli.arrays.layout import find
        from xentcli.engine import stream

        logits = inputs.logits
        streams = stream.Streams(logits, out=array, dtype=self._result_dtype())
        layout = find(logits.shape, None, options.class_axis)
        emit_notes(inputs.notes(), strict=self.running.strict)
        self._note_one_class(layout)
        array.expect(layout.shape, streams.result_dtype, logits.format)
        if self._anywhere:
            with connected(self._anywhere) as cluster:
                result = cluster_softmax(cluster, options, inputs, array, log=log)
            emit_notes(result.notes, strict=self.running.strict)
            return result
        with Progress(not self.running.no_progress, nbytes(logits)) as progress:
            result = stream.softmax(layout, streams, options, self._run(progress), log=log)
        emit_notes(result.notes, strict=self.running.strict)
        return result

    def top(
        self, options: LogitsOptions, inputs: Inputs, k: int, log: bool, rest: bool
    ) -> tuple[TopArrays, Probabilities]:
        """The k largest probabilities, or their logarithms, and the sum of the others."""
        from xentcli.arrays.layout import find
        from xentcli.engine import stream
        from xentcli.engine.top import TopCalculation

        self._require_one_machine("top")
        logits = inputs.logits
        streams = stream.Streams(logits, dtype=self._result_dtype())
        layout = find(logits.shape, None, options.class_axis)
        emit_notes(inputs.notes(), strict=self.running.strict)
        self._note_one_class(layout)
        with Progress(not self.running.no_progress, nbytes(logits)) as progress:
            run = self._run(progress)
            calculation = TopCalculation(layout, options, run, k, log=log, rest=rest)
            stream.top(calculation, streams)
        arrays, result = calculation.result()
        emit_notes(result.notes, strict=self.running.strict)
        return arrays, result

    def _require_one_machine(self, option: str) -> None:
        """An error where a cluster is asked for, for an option that is not known there."""
        if self._anywhere:
            one = "is computed on one machine, without ", Setting("cluster"), " and "
            raise OptionError(option, (*one, Setting("workers")))

    def _note_one_class(self, layout: Layout) -> None:
        """A note on a shape that makes every result trivial: one column, or another class axis."""
        from xentcli.engine.notes import Note

        if layout.classes == 1 and layout.rows:
            what = f"shape {layout.shape} has one class, whose probability is 1 in every row"
            emit_notes([Note("logits", what, strict=True)], strict=self.running.strict)

    def _run(self, progress: Progress) -> Run:
        from xentcli.engine.cross_entropy import Run

        return Run(self.running.backend, self.running.threads, note, progress)

    def _result_dtype(self) -> np.dtype[Any] | None:
        """The dtype asked for; None for the default."""
        from xentcli.arrays.dtypes import NAMES

        return NAMES.get(self.dtype)
