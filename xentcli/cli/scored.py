"""The inputs that `report` and `calibrate` share: logits, targets, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar, get_args

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
    from xentcli.files.reader import Reader


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


@dataclass(frozen=True)
class BaseFile:
    """The logits of a base model, if there is one, and how they are read."""

    path: str | None = None
    format: str | None = None
    key: str | None = None


NO_BASE = BaseFile()
Sources = TypeVar("Sources", bound=ScoredInputs)


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


def complete(sources: Sources) -> Sources:
    """The same with TARGETS, where an archive holds them too, and they are not given."""
    from xentcli.files import registry
    from xentcli.files.keys import TARGETS
    from xentcli.files.opening import open_input

    formats = registry.with_suffix(sources.logits)
    if sources.targets is not None or not formats or not formats[0].member_names:
        return sources
    with open_input(sources.logits) as (source, _):
        names = formats[0].member_names(source)
    found = next((name for name in TARGETS if name in names), None)
    if found is None:
        return sources
    key = sources.key or ("logits" if "logits" in names else None)
    return replace(sources, targets=sources.logits, target_key=found, key=key)


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
    from xentcli.files.options import ReadOptions

    reading = logits_reading(sources, sources.dtype)
    if sources.targets is None:  # what holds them was found by `complete`, or has its own tokens
        return reading
    targets = ReadOptions(sources.target_format, sources.target_key, reading.style, "target_key")
    return replace(reading, targets=targets)


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
