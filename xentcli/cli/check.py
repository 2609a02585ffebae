"""`xent check`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import click

from xentcli.cli import summary as out
from xentcli.cli.command import command
from xentcli.cli.console import Progress, inform, show, stdout_is_terminal, write_stdout
from xentcli.cli.declare import argument, option
from xentcli.cli.inputs import open_inputs
from xentcli.cli.options import (
    DtypeName,
    JsonOption,
    NoClobberOption,
    ProgressOption,
    format_option,
    key_option,
)
from xentcli.cli.session import as_flag, require_no_ignore_index
from xentcli.cli.teacher import TaughtInputs, task_of_inputs, taught_inputs
from xentcli.options import LossOptions, TeacherOptions
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.check import Report
    from xentcli.cli.inputs import Inputs, Reading

NUMBER = click.FloatRange(min=0)
Method: TypeAlias = Literal["exact", "finite-diff"]


@dataclass(frozen=True, kw_only=True)
class CheckInputs(TaughtInputs):
    """The inputs of a loss, and what another program computed from them."""

    grad: str | None = argument("GRAD", required=False)
    grad_format: str | None = format_option("gradient")
    grad_key: str | None = key_option("gradient")
    loss: str | None = option(
        None,
        "Check this loss too: one number, or one per row.",
        group="Check",
        metavar="FILE",
        file=True,
    )


@dataclass(frozen=True, kw_only=True)
class CheckOutput(JsonOption, NoClobberOption):
    """How the verdict is written."""

    junit: str | None = option(
        None, "Write the verdict as JUnit XML too.", group="Output", metavar="FILE", file=True
    )


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How strict to be, and what to compare with."""

    ulp: float | None = option(
        None, "Tolerance in units in the last place.", group="Check", type=NUMBER
    )
    rtol: float | None = option(None, "Relative tolerance.", group="Check", type=NUMBER)
    atol: float | None = option(None, "Absolute tolerance.", group="Check", type=NUMBER)
    exact: bool = option(
        False,
        "Accept only what is within the few ULP that xent promises for its own gradient.",
        group="Check",
        is_flag=True,
    )
    like_peers: bool = option(
        False,
        "With --ulp, --rtol or --atol: accept what passes without them too.",
        group="Check",
        is_flag=True,
    )
    method: Method = option(
        "exact",
        "Compare with the exact gradient, or with finite differences of the loss.",
        group="Check",
        type=click.Choice(get_args(Method)),
    )
    rows: int | None = option(
        None,
        "Rows that finite-diff compares, evenly spaced; by default as many as take ten seconds.",
        group="Check",
        type=click.IntRange(1),
    )
    dtype: DtypeName = option(
        "auto",
        "Dtype in which ULP are counted, and that text and arrays of dtype V2 are read as.",
        group="Check",
        type=click.Choice(get_args(DtypeName)),
    )


@command(
    "check",
    examples=[
        "xent check logits.npy targets.npy grad.npy",
        "xent grad logits.npy targets.npy | xent check logits.npy targets.npy -",
        "xent grad logits.npy targets.npy | xent check logits.npy targets.npy - --ulp 2 --json",
    ],
)
def check(
    how: CheckOptions,
    options: LossOptions,
    soft: TeacherOptions,
    sources: CheckInputs,
    bar: ProgressOption,
    form: CheckOutput,
) -> int:
    """Check a gradient of the cross-entropy, and say what may be wrong with it.

    GRAD has the shape of LOGITS, and is compared with the exact gradient: computed in float64 for
    float32 and smaller, in twice that precision for float64. One of the three may be - for
    standard input; TARGETS may be left out beside a teacher, and where --target-column names them
    in LOGITS. PASS, exact: within the few ULP that
    xent promises for its own gradients. PASS at plain precision: within twice the error of a naive
    implementation in the same dtype. FAIL: anything else, with exit code 1. --exact, --ulp, --rtol
    and --atol replace these bounds.
    """
    from xentcli.files.outputs import Outputs

    work = out.Work()
    sources = _with_grad(sources)
    paths, reading = taught_inputs(sources, soft, how.dtype)
    paths = replace(paths, grad=sources.grad, loss=sources.loss)
    reading = _reading(sources, reading, how.dtype)
    with Outputs(no_clobber=form.no_clobber) as outputs:
        junit = outputs.open(form.junit) if form.junit else None
        with open_inputs(paths, reading, outputs, options.class_axis) as inputs:
            report = _checked(inputs, how, options, soft, bar)
            report = replace(report, class_names=inputs.class_names)
            work.done(inputs.logits, *inputs.teacher, inputs.grad)
        if junit:
            junit.write(_junit(report, sources, work.seconds))
    _print(report, form.as_json)
    what = f"checked {report.shape} {report.finfo.name} against {report.method}"
    inform(f"{what}, tolerance {report.tolerance_words}; {work.seconds:.3f} s")
    return 0 if report.ok else 1


def _with_grad(sources: CheckInputs) -> CheckInputs:
    """The same with GRAD, the second of two files beside a teacher or a column of targets."""
    if sources.grad is None and (sources.teacher is not None or sources.target_column):
        sources = replace(sources, targets=None, grad=sources.targets)
    if sources.grad is None:
        raise click.MissingParameter(param_hint="'GRAD'", param_type="argument")
    return sources


def _reading(sources: CheckInputs, reading: Reading, dtype: DtypeName) -> Reading:
    from xentcli.files.options import ReadOptions

    grad = ReadOptions(sources.grad_format, sources.grad_key, reading.style, "grad_key", dtype)
    return replace(reading, grad=grad)


def _checked(
    inputs: Inputs,
    how: CheckOptions,
    options: LossOptions,
    soft: TeacherOptions,
    bar: ProgressOption,
) -> Report:
    from xentcli.check import JudgeOptions, Tolerance, judge
    from xentcli.engine.problem import build
    from xentcli.engine.rows import RowSource

    problem = build(inputs.logits.shape, inputs.targets, options, inputs.extras)
    require_no_ignore_index(options.ignore_index, probs=problem.probs and bool(inputs.targets))
    task = task_of_inputs(problem, inputs, options, soft)
    out.emit_notes(inputs.notes(), strict=False)
    probs = inputs.targets if problem.probs else None
    source = RowSource(inputs.logits, probs, inputs.grad, inputs.teacher)
    tolerance = Tolerance(how.ulp, how.rtol, how.atol, how.like_peers, how.exact)
    rate, size = how.method == "exact", out.nbytes(inputs.logits)
    with Progress(not bar.no_progress, size, rate=rate) as progress:
        judging = JudgeOptions(how.method, tolerance, how.dtype, how.rows, progress)
        return judge(problem, source, options, judging, inputs.loss, task)


def _junit(report: Report, sources: CheckInputs, seconds: float) -> bytes:
    from xentcli.check.junit import as_junit

    names = {"gradient": sources.grad or "", "loss": sources.loss or ""}
    return as_junit(report, names, seconds, as_flag).encode()


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        from xentcli.files.json import dumps

        write_stdout(dumps(report.facts(as_flag)))
    elif stdout_is_terminal():
        from xentcli.cli.check_report import check_report

        show(lambda width: check_report(report, width))
    else:
        write_stdout("".join(f"{line}\n" for line in report.lines(as_flag)))
