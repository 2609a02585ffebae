"""The inputs that `report` and `calibrate` share: logits, targets, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import click

from xentcli.cli.console import Progress, note
from xentcli.cli.declare import argument, option
from xentcli.cli.inputs import InputPaths, Inputs, logits_reading, open_inputs
from xentcli.cli.options import (
    DtypeName,
    LogitsReading,
    RunningOptions,
    format_option,
    key_option,
)
from xentcli.errors import OptionError
from xentcli.report.options import ScoreOptions

if TYPE_CHECKING:
    from xentcli.cli.inputs import Reading
    from xentcli.engine.cross_entropy import Run
    from xentcli.engine.problem import Problem
    from xentcli.engine.rows import RowSource
    from xentcli.files.outputs import Outputs


@dataclass(frozen=True, kw_only=True)
class ScoredInputs(LogitsReading):
    """Logits and targets, with the files that go with them, for `report` and `calibrate`."""

    logits: str = argument("LOGITS")
    targets: str | None = argument("[TARGETS]", required=False)
    target_format: str | None = format_option("targets")
    target_key: str | None = key_option("targets")
    dtype: DtypeName = option(
        "auto",
        "Dtype that text, and arrays of dtype V2, are read as.",
        group="Input",
        type=click.Choice(get_args(DtypeName)),
    )
    sample_weight: str | None = option(
        None, "Weight of each row, N numbers.", group="Row", metavar="FILE", file=True
    )
    group: str | None = option(
        None,
        "Group of each row, such as its document: N numbers. Errors are then clustered.",
        group="Row",
        metavar="FILE",
        file=True,
    )
    skip_nonfinite: bool = option(
        False, "Leave out rows whose loss is NaN or infinite.", group="Row", is_flag=True
    )


@contextmanager
def open_scored(sources: ScoredInputs, outputs: Outputs, scoring: ScoreOptions) -> Iterator[Inputs]:
    """Open the logits, the targets and what goes with them; a base if there is one."""
    if sources.targets is None:
        what = f"TARGETS is missing: {sources.logits} does not hold class indices"
        raise OptionError("command line", what, "xent report logits.npy targets.npy")
    base: str | None = getattr(sources, "base", None)
    paths = InputPaths(
        sources.logits,
        sources.targets,
        sample_weight=sources.sample_weight,
        base=base,
        group=sources.group,
    )
    with open_inputs(paths, reading_of(sources), outputs, scoring.class_axis) as inputs:
        yield inputs


def reading_of(sources: ScoredInputs) -> Reading:
    """How each of the inputs is read."""
    from xentcli.files.options import ReadOptions

    reading = logits_reading(sources, sources.dtype)
    targets = ReadOptions(sources.target_format, sources.target_key, reading.style, "target_key")
    base = ReadOptions(
        getattr(sources, "base_format", None),
        getattr(sources, "base_key", None),
        reading.style,
        "base_key",
        sources.dtype,
    )
    return replace(reading, targets=targets, base=base)


def problem_and_source(inputs: Inputs, scoring: ScoreOptions) -> tuple[Problem, RowSource]:
    """What was opened, checked against each other, and the arrays to walk over."""
    from xentcli.engine.problem import build
    from xentcli.engine.rows import RowSource
    from xentcli.report.compute import require_base

    assert inputs.targets
    problem = build(inputs.logits.shape, inputs.targets, scoring.loss(), inputs.extras)
    if inputs.base:
        require_base(inputs.base.shape, problem.layout)
    probs = inputs.targets if problem.probs else None
    return problem, RowSource(inputs.logits, probs, inputs.base)


def running_of(running: RunningOptions, progress: Progress) -> Run:
    """How to compute."""
    from xentcli.engine.cross_entropy import Run

    return Run(running.backend, running.threads, note, progress)
