"""One computation from open inputs to open outputs, with progress and notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xentcli.cli.console import Progress, note
from xentcli.cli.inputs import Inputs
from xentcli.cli.options import DtypeName, RunningOptions
from xentcli.cli.sinks import ArrayOutput, LossConsumers
from xentcli.cli.summary import emit_notes, nbytes
from xentcli.options import LogitsOptions, LossOptions, TeacherOptions

if TYPE_CHECKING:
    import numpy as np

    from xentcli.arrays.layout import Layout
    from xentcli.engine.cross_entropy import Run
    from xentcli.engine.problem import Problem
    from xentcli.engine.result import CrossEntropy
    from xentcli.engine.softmax import Probabilities
    from xentcli.engine.teacher.task import TeacherTask
    from xentcli.engine.top import TopArrays


@dataclass(frozen=True)
class Job:
    """How to compute, and the dtype of the result."""

    running: RunningOptions
    dtype: DtypeName

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
        problem = build(inputs.logits.shape, inputs.targets, options, inputs.extras)
        self._note_one_class(problem.layout)
        streams.probs, streams.beside = inputs.targets if problem.probs else None, inputs.teacher
        task = self._task(problem, inputs, options, soft)
        if options.reduction == "none":
            streams.losses = losses
            losses.expect(problem.layout.row_shape)
        with Progress(not self.running.no_progress, nbytes(inputs.logits)) as progress:
            result = stream.cross_entropy(problem, streams, options, self._run(progress), task)
        emit_notes(result.notes, strict=self.running.strict)
        return result

    def _task(
        self, problem: Problem, inputs: Inputs, options: LossOptions, soft: TeacherOptions
    ) -> TeacherTask | None:
        """What is to be computed of a teacher, if there is one."""
        if not inputs.teacher:
            return None
        from xentcli.engine.teacher.arrays import require_use_of
        from xentcli.engine.teacher.task import task_of

        require_use_of(inputs.targets, problem, soft)
        rest = len(inputs.teacher) > 2
        return task_of(problem.layout, inputs.teacher, options, soft, inputs.extras, has_rest=rest)

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
