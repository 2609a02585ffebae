"""`xent grad`, `xent loss`, `xent softmax`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xentcli.cli import summary as out
from xentcli.cli.console import Progress, emit, note
from xentcli.cli.inputs import Inputs, loss_options_of, open_inputs
from xentcli.cli.options import (
    PATH,
    common_options,
    dtype_option,
    json_option,
    logits_options,
    loss_options,
    machine_options,
    option,
    read_options,
    write_options,
)
from xentcli.cli.sinks import Artefact, Kept, Losses, open_outputs
from xentcli.errors import OptionError

if TYPE_CHECKING:
    from xentcli.engine.cross_entropy import Run
    from xentcli.engine.result import CrossEntropy
    from xentcli.engine.softmax import Probabilities


@click.command(short_help="Loss, and its gradient with respect to the logits.")
@click.argument("logits", type=PATH)
@click.argument("targets", type=PATH)
@loss_options
@read_options(targets=True)
@dtype_option
@write_options
@option(
    "--loss-out", metavar="PATH", type=PATH, help="Write the loss too: one number, or one per row."
)
@machine_options
@json_option
@common_options
def grad(**given: Any) -> None:
    """Loss, and its gradient with respect to the logits.

    \b
    xent grad logits.npy targets.npy -o grad.npy
    xent grad logits.npy targets.npy --label-smoothing 0.1 | xent inspect -
    cat logits.csv | xent grad - targets.csv --reduction sum > grad.csv

    LOGITS holds rows of C numbers; TARGETS one class index per row, or probabilities in the
    shape of the logits. Either may be - for standard input.
    """
    _one_artefact(given)
    work = out.Work()
    with open_outputs(given) as outputs:
        artefact = Artefact(outputs, given, "grad")
        sink = None if given["loss_out"] is None else outputs.open(given["loss_out"])
        losses = Losses(sink, given) if sink else None
        with open_inputs(given, outputs) as inputs:
            result, kept = _cross_entropy(inputs, given, artefact, losses)
        artefact.finish()
        if losses:
            losses.finish(result)
        work.done(inputs.logits, artefact)
    if given["as_json"]:
        about = out.loss_json(result, kept, given, work.seconds)
        _print_json({**about, artefact.name: artefact.about()})
        return
    gradient = artefact.words("gradient") + artefact.destination
    out.summary([out.loss_words(result, given["reduction"]), gradient], result.backend, work)


@click.command(short_help="Loss only.")
@click.argument("logits", type=PATH)
@click.argument("targets", type=PATH)
@loss_options
@read_options(targets=True)
@dtype_option
@write_options
@machine_options
@json_option
@common_options
def loss(**given: Any) -> None:
    """Loss only: one number, or one per line with --reduction none.

    \b
    xent loss logits.npy targets.npy
    xent loss logits.npy targets.npy --reduction none | sort -g | tail -3
    xent loss logits.npy targets.npy --json

    LOGITS holds rows of C numbers; TARGETS one class index per row, or probabilities in the
    shape of the logits. Either may be - for standard input.
    """
    work = out.Work()
    with open_outputs(given) as outputs:
        sink = outputs.open("-" if given["output"] is None else given["output"])
        losses = None if given["as_json"] else Losses(sink, given, "-f")
        with open_inputs(given, outputs) as inputs:
            result, kept = _cross_entropy(inputs, given, None, losses)
            work.done(inputs.logits)
        if losses:
            losses.finish(result)
        else:
            sink.write(_json(out.loss_json(result, kept, given, work.seconds)))
    if losses:
        out.summary([out.loss_words(result, given["reduction"])], result.backend, work)


@click.command(short_help="Probabilities; --log for log-probabilities.")
@click.argument("logits", type=PATH)
@option("--log", is_flag=True, help="Logarithms of the probabilities.")
@logits_options
@read_options(targets=False)
@dtype_option
@write_options
@machine_options
@json_option
@common_options
def softmax(**given: Any) -> None:
    """Probabilities of the classes, or their logarithms.

    \b
    xent softmax logits.npy -o probabilities.npy
    xent softmax logits.csv --temperature 2 --decimals 4
    xent softmax logits.npy --log | xent inspect - --stats

    LOGITS holds rows of C numbers, and may be - for standard input.
    """
    _one_artefact(given)
    work = out.Work()
    with open_outputs(given) as outputs:
        artefact = Artefact(outputs, given, "log-softmax" if given["log"] else "softmax")
        with open_inputs(given, outputs) as inputs:
            result = _probabilities(inputs, given, artefact)
        artefact.finish()
        work.done(inputs.logits, artefact)
    if given["as_json"]:
        about = {"nonfinite": result.nonfinite, "backend": result.backend}
        seconds = round(work.seconds, 6)
        _print_json({**about, "seconds": seconds, artefact.name: artefact.about()})
        return
    out.summary([artefact.words() + artefact.destination], result.backend, work)


def _probabilities(inputs: Inputs, given: dict[str, Any], artefact: Artefact) -> Probabilities:
    from xentcli.arrays.layout import find
    from xentcli.engine import stream

    options, logits = loss_options_of(given), inputs.logits
    streams = stream.Streams(logits, out=artefact, dtype=_dtype(given))
    layout = find(logits.shape, None, options.class_axis)
    artefact.expect(layout.shape, streams.result_dtype, logits.format)
    with Progress(not given["no_progress"], out.nbytes(inputs.logits)) as progress:
        result = stream.softmax(layout, streams, options, _run(given, progress), log=given["log"])
    out.tell(result.notes, given)
    return result


def _cross_entropy(
    inputs: Inputs, given: dict[str, Any], artefact: Artefact | None, losses: Losses | None
) -> tuple[CrossEntropy, Any]:
    """The result, and the loss as JSON wants it: of each row, if so many were asked for."""
    from xentcli.engine import stream
    from xentcli.engine.problem import build

    options = loss_options_of(given)
    assert inputs.targets
    streams = stream.Streams(inputs.logits, out=artefact, dtype=_dtype(given))
    if artefact:
        artefact.expect(inputs.logits.shape, streams.result_dtype, inputs.logits.format)
    problem = build(inputs.logits.shape, inputs.targets, options, inputs.extras)
    streams.probs = inputs.targets if problem.probs else None
    kept = Kept()
    if options.reduction == "none":
        streams.losses = losses or (kept if given["as_json"] else None)
        if losses:
            losses.expect(problem.layout.row_shape)
    with Progress(not given["no_progress"], out.nbytes(inputs.logits)) as progress:
        result = stream.cross_entropy(problem, streams, options, _run(given, progress))
    out.tell(result.notes, given)
    if streams.losses is kept:
        return result, kept.array(problem.layout.row_shape)
    return result, result.loss


def _run(given: dict[str, Any], progress: Progress) -> Run:
    from xentcli.engine.cross_entropy import Run

    return Run(given["backend"], given["threads"], note, progress)


def _dtype(given: dict[str, Any]) -> Any:
    """The dtype asked for; without one the default is right."""
    from xentcli.arrays.dtypes import NAMES

    return NAMES.get(given["dtype"])


def _one_artefact(given: dict[str, Any]) -> None:
    """Standard output takes one thing: the array, the loss, or the JSON object."""
    names = {"--json": given["as_json"], "--loss-out": given.get("loss_out") == "-"}
    asked = [name for name, wanted in names.items() if wanted]
    if given["output"] in (None, "-"):
        asked.append("the array")
    if len(asked) > 1:
        what = f"{' and '.join(asked)} cannot both be standard output"
        raise OptionError("command line", what, "-o FILE writes the array to a file")


def _json(value: dict[str, Any]) -> bytes:
    from xentcli.files.json import dumps

    return dumps(value).encode()


def _print_json(value: dict[str, Any]) -> None:
    emit(_json(value).decode())
