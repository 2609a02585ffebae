"""`xent check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xentcli.cli import summary as out
from xentcli.cli.console import Progress, emit, say, show, stdout_is_terminal
from xentcli.cli.inputs import loss_options_of, open_inputs
from xentcli.cli.options import (
    PATH,
    READ_FORMAT,
    common_options,
    json_option,
    key_help,
    loss_options,
    option,
    read_options,
    together,
)

if TYPE_CHECKING:
    from xentcli.check import Report
    from xentcli.cli.inputs import Inputs

NUMBER = click.FloatRange(min=0)

verdict_options = together(
    option("--loss", metavar="FILE", type=PATH, help="Judge this loss too: one, or one per row."),
    option("--ulp", type=NUMBER, help="Units in the last place that an entry may be off by."),
    option("--rtol", type=NUMBER, help="Share of the exact entry that it may be off by."),
    option("--atol", type=NUMBER, help="What it may be off by, however small the entry."),
    option(
        "--like-peers",
        is_flag=True,
        help="It may be off by twice what plain arithmetic of the same kind is.",
    ),
    option(
        "--method",
        type=click.Choice(["exact", "finite-diff"]),
        default="exact",
        show_default=True,
        help="What to compare with.",
    ),
    option(
        "--dtype",
        type=click.Choice(["auto", "f16", "bf16", "f32", "f64"]),
        default="auto",
        show_default=True,
        help="Judge in units of this kind, and read text and nameless bytes as it.",
    ),
    option("--grad-format", type=READ_FORMAT, help="Of GRAD."),
    option("--grad-key", metavar="NAME", help=key_help("gradient")),
)


@click.command(short_help="Judge somebody else's gradient (and loss).")
@click.argument("logits", type=PATH)
@click.argument("targets", type=PATH)
@click.argument("grad", type=PATH)
@verdict_options
@loss_options
@read_options(targets=True)
@option("--no-progress", is_flag=True, help="No progress bar.")
@json_option
@common_options
@click.pass_context
def check(ctx: click.Context, /, **given: Any) -> None:
    """Judge somebody else's gradient of the cross-entropy, and say what may be wrong with it.

    \b
    xent grad logits.npy targets.npy | xent check logits.npy targets.npy -
    xent grad logits.npy targets.npy | xent check logits.npy targets.npy - --ulp 2 --json

    GRAD has the shape of LOGITS. One of the three may be - for standard input. It is compared
    with the exact gradient: float64 for float32 and smaller, twice the digits for float64.
    Without --ulp, --rtol, --atol: 128 ULP of float32 or float64, 1 of float16 or bfloat16. The
    exit code is 0 where all is within the tolerance, else 1.
    """
    from xentcli.files.outputs import Outputs

    work = out.Work()
    with Outputs() as outputs, open_inputs(given, outputs) as inputs:
        report = _judged(inputs, given)
        work.done(inputs.logits, inputs.grad)
    _print(report, given["as_json"])
    kind = f"{report.shape} {report.kind.name}"
    say(f"judged {kind} by {report.method} to {report.tolerance}; {work.seconds:.3f} s")
    ctx.exit(0 if report.ok else 1)


def _judged(inputs: Inputs, given: dict[str, Any]) -> Report:
    from xentcli.check import How, Tolerance, judge
    from xentcli.engine.problem import build
    from xentcli.engine.stream import Streams

    options = loss_options_of(given)
    assert inputs.targets
    problem = build(inputs.logits.shape, inputs.targets, options, inputs.extras)
    probs = inputs.targets if problem.probs else None
    streams = Streams(inputs.logits, probs, grad=inputs.grad)
    tolerance = Tolerance(*(given[name] for name in ("ulp", "rtol", "atol", "like_peers")))
    with Progress(not given["no_progress"], out.nbytes(inputs.logits)) as progress:
        how = How(given["method"], tolerance, given["dtype"], progress)
        return judge(problem, streams, options, how, inputs.loss)


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        from xentcli.files.json import dumps

        emit(dumps(report.facts()))
    elif stdout_is_terminal():
        from xentcli.cli.check_report import check_report

        show(lambda width: check_report(report, width))
    else:
        emit("".join(f"{line}\n" for line in report.lines()))
