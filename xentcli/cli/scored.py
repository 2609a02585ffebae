"""The inputs that `report` and `calibrate` share: logits, targets, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import click

from xentcli.cli.console import Progress, note
from xentcli.cli.declare import argument, option
from xentcli.cli.inputs import (
    InputPaths,
    Inputs,
    logits_reading,
    open_inputs,
    targets_reading,
)
from xentcli.cli.options import (
    DtypeName,
    LogitsReading,
    RunningOptions,
    TargetsReading,
)
from xentcli.cli.session import require_no_ignore_index
from xentcli.errors import OptionError
from xentcli.records import dataclass
from xentcli.report.options import ScoreOptions

if TYPE_CHECKING:
    from xentcli.cli.inputs import Reading
    from xentcli.engine.cross_entropy import Run
    from xentcli.engine.problem import Problem
    from xentcli.engine.rows import RowSource
    from xentcli.files.outputs import Outputs
    from xentcli.files.reader import Reader


@dataclass(frozen=True, kw_only=True)
class ScoredInputs(TargetsReading, LogitsReading):
    """Logits and targets, with the files that go with them, for `report` and `calibrate`."""

    logits: str = argument("LOGITS")
    targets: str | None = argument("[TARGETS]", required=False)
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


@dataclass(frozen=True)
class BaseFile:
    """The logits of a base model, if there is one, and how they are read."""

    path: str | None = None
    format: str | None = None
    key: str | None = None


NO_BASE = BaseFile()


@contextmanager
def open_scored(
    sources: ScoredInputs, outputs: Outputs, scoring: ScoreOptions, base: BaseFile = NO_BASE
) -> Iterator[Inputs]:
    """Open the logits, the targets and what goes with them."""
    from xentcli.files.options import ReadOptions

    paths = InputPaths(
        sources.logits,
        sources.targets,
        sample_weight=sources.sample_weight,
        base=base.path,
        group=sources.group,
    )
    reading = reading_of(sources)
    how = ReadOptions(base.format, base.key, reading.style, "base_key", sources.dtype)
    with open_inputs(paths, replace(reading, base=how), outputs, scoring.class_axis) as inputs:
        yield inputs if inputs.targets else replace(inputs, targets=_own_targets(inputs))


def _own_targets(inputs: Inputs) -> Reader:
    """The tokens that a .kld file holds, of the logits or of the base."""
    from xentcli.files.kld import KldReader
    from xentcli.files.reader import InMemoryReader

    for reader in (inputs.logits, inputs.base):
        if isinstance(reader, KldReader):
            return InMemoryReader(reader.targets, reader.name, reader.format)
    what = f"TARGETS is missing, and {inputs.logits.name} does not hold them"
    raise OptionError("command line", what, "xent report logits.npy targets.npy")


def reading_of(sources: ScoredInputs) -> Reading:
    """How logits and targets are read."""
    reading = logits_reading(sources, sources.dtype)
    reading = replace(reading, targets=targets_reading(sources))
    return replace(reading, elsewhere=True)  # targets may be in a .kld file, or in the base's


def problem_and_source(inputs: Inputs, scoring: ScoreOptions) -> tuple[Problem, RowSource]:
    """What was opened, checked against each other, and the arrays to walk over."""
    from xentcli.engine.problem import build
    from xentcli.engine.rows import RowSource
    from xentcli.report.compute import require_base

    assert inputs.targets
    problem = build(inputs.logits.shape, inputs.targets, scoring.loss(), inputs.extras)
    require_no_ignore_index(scoring.ignore_index, probs=problem.probs)
    if inputs.base:
        require_base(inputs.base.shape, problem.layout)
    probs = inputs.targets if problem.probs else None
    return problem, RowSource(inputs.logits, probs, inputs.base)


def running_of(running: RunningOptions, progress: Progress) -> Run:
    """How to compute."""
    from xentcli.engine.cross_entropy import Run

    return Run(running.backend, running.threads, note, progress)
