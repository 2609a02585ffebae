"""`xent calibrate`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import click

from xentcli.cli import summary as out
from xentcli.cli.command import command
from xentcli.cli.console import Progress
from xentcli.cli.declare import option
from xentcli.cli.inputs import InputPaths, Inputs, open_rows
from xentcli.cli.options import RunningOptions, WritingOptions
from xentcli.cli.publish import Publication, SavedOptions, announce
from xentcli.cli.scored import ScoredInputs, open_scored, reading_of, running_of
from xentcli.cli.sinks import ArrayOutput
from xentcli.errors import plural
from xentcli.options import LossOptions, same_as
from xentcli.records import dataclass
from xentcli.report.options import Method, ScoreOptions

if TYPE_CHECKING:
    from xentcli.engine.rows import RowSource
    from xentcli.files.outputs import Outputs
    from xentcli.files.recording import RecordingReader
    from xentcli.report.calibration_result import Calibration


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How the temperature is fitted, and where the scaled logits go."""

    method: Method = option(
        "temperature",
        "Fit one temperature, or a temperature and a bias for each class (bias).",
        group="Fit",
        type=click.Choice(get_args(Method)),
    )
    folds: int | None = option(
        None,
        "Report the numbers after calibration for rows that the fit has not seen, in K folds.",
        group="Fit",
        type=click.IntRange(min=2),
        metavar="K",
    )
    output: str | None = option(
        None,
        "Write the logits divided by the temperature, plus the biases, to PATH.",
        "-o",
        "--output",
        group="Output",
        metavar="PATH",
        file=True,
    )


@dataclass(frozen=True)
class FitRows:
    """Which rows count, and which axis holds the classes."""

    ignore_index: int = same_as(LossOptions, "ignore_index", group="Row")
    class_axis: int | None = same_as(LossOptions, "class_axis")


@command(
    "calibrate",
    examples=[
        "xent calibrate logits.npy targets.npy",
        "xent calibrate logits.npy targets.npy --folds 5 --save temperature.json",
        "xent calibrate logits.npy targets.npy -o scaled.npy",
    ],
)
def calibrate(
    fit: FitOptions,
    rows: FitRows,
    sources: ScoredInputs,
    document: SavedOptions,
    running: RunningOptions,
) -> None:
    """Find the temperature that minimises the mean loss, with its 95 % interval.

    LOGITS holds rows of C numbers, and is read several times; from a pipe it is copied to a
    temporary file. TARGETS holds one class index per row. --save FILE.json writes the temperature
    for --temperature @FILE.json of other commands. The exit code is 1 where no finite temperature
    is best.
    """
    from xentcli.files.outputs import Outputs
    from xentcli.report.calibration_document import to_document

    work = out.Work()
    scoring = ScoreOptions(ignore_index=rows.ignore_index, class_axis=rows.class_axis)
    with Outputs(no_clobber=document.no_clobber) as outputs:
        publication, array = Publication(outputs, document), _scaled_output(fit, sources, outputs)
        with open_scored(sources, outputs, scoring) as inputs:
            out.emit_notes(tuple(inputs.notes()), strict=running.strict)
            result = _fitted(inputs, scoring, fit, (sources, running), array)
            work.done(inputs.logits, array)
        out.emit_notes(result.notes, strict=running.strict)
        pages = to_document(result, document.decimals)
        publication.write(pages)
    announce(pages, document)
    words = [f"temperature {result.temperature:.6g} over {plural(result.rows, 'row')}"]
    words += [f"{array.words('logits')}{array.destination}"] if array else []
    out.summary([*words, plural(result.passes, "pass")], result.backend, work)


def _scaled_output(fit: FitOptions, sources: ScoredInputs, outputs: Outputs) -> ArrayOutput | None:
    from xentcli.cli.inputs import text_style

    if fit.output is None:
        return None
    writing = WritingOptions(output=fit.output)
    return ArrayOutput(outputs, writing, text_style(sources), "logits", strict=False)


def _fitted(
    inputs: Inputs,
    scoring: ScoreOptions,
    fit: FitOptions,
    rest: tuple[ScoredInputs, RunningOptions],
    array: ArrayOutput | None,
) -> Calibration:
    """The calibration of open inputs; the scaled logits into `array`."""
    from xentcli.engine.problem import build
    from xentcli.report import methods
    from xentcli.report.calibration_rows import Rows
    from xentcli.report.compute import Groups
    from xentcli.report.scaling import write_scaled

    sources, running = rest
    assert inputs.targets
    problem = build(inputs.logits.shape, inputs.targets, scoring.loss(), inputs.extras)
    methods.require_indices(problem.targets)
    groups = Groups.of(inputs.group, problem)
    index, count = (groups.index, groups.count) if groups else (None, 0)
    folds = methods.fold_count(fit.folds, problem.layout.rows)
    logits = _Logits(inputs, sources)
    try:
        with Progress(not running.no_progress, out.nbytes(inputs.logits)) as progress:
            run = running_of(running, progress)
            rows = Rows(problem, logits.opened, run, index, count, folds)
            result = methods.fit(rows, fit.method, skip_nonfinite=sources.skip_nonfinite)
            if array:
                write_scaled(rows, result, array)
                array.finish()
    finally:
        logits.close()
    return result


class _Logits:
    """The logits for pass after pass: the first from what is open, then opened again; those of a
    pipe from a temporary copy."""

    def __init__(self, inputs: Inputs, sources: ScoredInputs) -> None:
        from xentcli.files.recording import RecordingReader

        self._path, self._how = sources.logits, reading_of(sources)
        if sources.targets is not None:  # of a file of their own
            self._how = replace(self._how, targets=None)
        self._first: bool = True
        self._reader = inputs.logits
        once = not _can_be_read_again(self._path)
        self._copy: RecordingReader | None = RecordingReader(inputs.logits) if once else None

    @contextmanager
    def opened(self) -> Iterator[RowSource]:
        """The logits from their beginning."""
        from xentcli.engine.rows import RowSource

        first, self._first = self._first, False
        if self._copy:
            yield RowSource(self._copy if first else self._copy.replay())
        elif first:
            yield RowSource(self._reader)
        else:
            with open_rows(InputPaths(self._path), self._how) as (logits, _):
                yield RowSource(logits)

    def close(self) -> None:
        """Remove the copy."""
        if self._copy:
            self._copy.close()


def _can_be_read_again(path: str) -> bool:
    """Whether a path is that of a plain file, a folder or an address."""
    from xentcli.files.paths import is_folder

    if path == "-" or is_folder(path):
        return path != "-"
    return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 (as it is opened)
