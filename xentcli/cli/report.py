"""`xent report`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

import click

from xentcli.cli import summary as out
from xentcli.cli.cluster import connected
from xentcli.cli.cluster import report as cluster_report
from xentcli.cli.command import command
from xentcli.cli.console import Progress
from xentcli.cli.declare import option
from xentcli.cli.inputs import Inputs
from xentcli.cli.options import RunningAnywhere, RunningOptions, format_option, key_option
from xentcli.cli.publish import DocumentOptions, Publication, announce
from xentcli.cli.scored import (
    BaseFile,
    ScoredInputs,
    open_scored,
    problem_and_source,
    running_of,
)
from xentcli.errors import OptionError, plural
from xentcli.records import dataclass
from xentcli.report.options import Binning, ReportOptions, ScoreOptions

if TYPE_CHECKING:
    from xentcli.files.outputs import Outputs
    from xentcli.report.result import Report

COUNT = click.IntRange(min=0)


@dataclass(frozen=True, kw_only=True)
class ReportInputs(ScoredInputs):
    """The same with the logits of a base model."""

    base: str | None = option(
        None,
        "Compare with a base model: its logits, or llama.cpp's .kld file.",
        group="Report",
        metavar="FILE",
        file=True,
    )
    base_format: str | None = format_option("base")
    base_key: str | None = key_option("base")


def _list_of_ranks(
    ctx: click.Context, parameter: click.Parameter, text: str | tuple[int, ...]
) -> tuple[int, ...]:
    if isinstance(text, tuple):
        return text
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise click.BadParameter("expected numbers from 1 on, such as 1,5")
    return tuple(map(int, parts))


@dataclass(frozen=True, kw_only=True)
class ReportChoice:
    """What to report."""

    bytes: str | None = option(
        None,
        "Report bits per byte: N bytes, or the text file whose size it is.",
        group="Report",
        metavar="N|FILE",
        file=True,
    )
    words: str | None = option(
        None,
        "Report perplexity per word: N words, or the text file whose words are counted.",
        group="Report",
        metavar="N|FILE",
        file=True,
    )
    top: tuple[int, ...] = option(
        "1,5",
        "Report top-K accuracy for these K.",
        group="Report",
        metavar="K,…",
        callback=_list_of_ranks,
    )
    bins: int = option(
        15, "Number of calibration bins.", group="Report", type=click.IntRange(min=1)
    )
    binning: Binning = option(
        "width",
        "Bins of equal width, or of equal counts (mass).",
        group="Report",
        type=click.Choice(get_args(Binning)),
    )
    confusion: int = option(
        0, "Show the N most confused pairs of classes.", group="Report", type=COUNT
    )
    worst: int = option(0, "Show the N rows with the largest loss.", group="Report", type=COUNT)
    per_row: str | None = option(
        None,
        "Write one line per row to FILE: .csv, .npy or .parquet.",
        group="Report",
        metavar="FILE",
        file=True,
    )


@command(
    "report",
    examples=[
        "xent report logits.npy targets.npy",
        "xent report logits.npy targets.npy --worst 5 --confusion 5 -o report.html",
        "xent report logits.npy targets.npy --json",
    ],
)
def report(
    what: ReportChoice,
    scoring: ScoreOptions,
    sources: ReportInputs,
    document: DocumentOptions,
    running: RunningAnywhere,
) -> None:
    """Report perplexity, accuracy, calibration and more, each mean with its standard error.

    LOGITS holds rows of C numbers; TARGETS one class index per row, or probabilities in the
    shape of the logits. Either may be - for standard input.
    """
    from xentcli.files.outputs import Outputs
    from xentcli.report.document import to_document

    work = out.Work()
    options = _options(what, sources)
    base = BaseFile(sources.base, sources.base_format, sources.base_key)
    with Outputs(no_clobber=document.no_clobber) as outputs:
        publication = Publication(outputs, document)
        outputs.protect_inputs(filter(None, (what.bytes, what.words)))
        with open_scored(sources, outputs, scoring, base) as inputs:
            out.emit_notes(tuple(inputs.notes()), strict=running.strict)
            how = scoring, what, options
            if running.on_cluster:
                result = _on_cluster(inputs, how, running)
            else:
                result = _computed(inputs, how, running, outputs)
            work.done(inputs.logits, inputs.base)
        out.emit_notes(result.notes, strict=running.strict)
        pages = to_document(result, inputs.class_names, document.decimals)
        publication.write(pages)
    announce(pages, document)
    out.summary([f"report over {plural(result.rows, 'row')}"], result.backend, work)


def _computed(
    inputs: Inputs,
    how: tuple[ScoreOptions, ReportChoice, ReportOptions],
    running: RunningOptions,
    outputs: Outputs,
) -> Report:
    """The report of open inputs."""
    from xentcli.report.compute import Groups, ReportCalculation, compute
    from xentcli.report.per_row import open_per_row

    scoring, what, options = how
    problem, source = problem_and_source(inputs, scoring)
    groups = Groups.of(inputs.group, problem)
    base = source.second is not None
    rows = open_per_row(what.per_row, outputs, problem, groups)
    with Progress(not running.no_progress, out.nbytes(inputs.logits)) as progress:
        run = running_of(running, progress)
        calculation = ReportCalculation(problem, (scoring, options), run, groups, base=base)
        result = compute(calculation, source, rows.write if rows else None)
    if rows:
        rows.finish()
    return result


def _on_cluster(
    inputs: Inputs,
    how: tuple[ScoreOptions, ReportChoice, ReportOptions],
    running: RunningAnywhere,
) -> Report:
    """The report of open inputs that workers read."""
    scoring, what, options = how
    if what.per_row is not None:
        raise OptionError("per_row", "a cluster cannot write one line per row", "leave it out")
    with connected(running) as cluster:
        return cluster_report(cluster, scoring, options, inputs)


def _options(what: ReportChoice, sources: ScoredInputs) -> ReportOptions:
    """The options as the library takes them."""
    from xentcli.report.text_size import byte_count, word_count

    return ReportOptions(
        top=what.top,
        bins=what.bins,
        binning=what.binning,
        confusion=what.confusion,
        worst=what.worst,
        skip_nonfinite=sources.skip_nonfinite,
        bytes=_count(what.bytes, byte_count),
        words=_count(what.words, word_count),
    )


def _count(text: str | None, of_file: Callable[[str], int]) -> int | None:
    """A number, or that of a file."""
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() else of_file(text)
