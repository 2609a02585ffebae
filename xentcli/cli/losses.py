"""`xent grad`, `xent loss`, `xent softmax`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from xentcli.cli import outputs as out
from xentcli.cli.console import Progress, emit, note
from xentcli.cli.inputs import Inputs, loss_options_of, read_inputs
from xentcli.cli.params import (
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
from xentcli.errors import OptionError

if TYPE_CHECKING:
    from xentcli.dtypes import Array
    from xentcli.loss import CrossEntropy, Run
    from xentcli.probabilities import Probabilities


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
    with out.open_outputs(given) as outputs:
        artefact = out.Artefact(outputs, given, "grad")
        loss_sink = outputs.open(given["loss_out"]) if given["loss_out"] else None
        inputs = read_inputs(given)
        artefact.expect(inputs.logits.shape, inputs.format)
        result, seconds = _cross_entropy(inputs, given, gradient=True)
        assert result.grad is not None
        out.require_finite(result.grad, given)
        artefact.write(result.grad)
        if loss_sink:
            out.write_loss(loss_sink, result.loss, given, None)
    if given["as_json"]:
        _print_json({**out.loss_json(result, given, seconds), "grad": _about(result.grad, given)})
        return
    words = [out.loss_words(result, given["reduction"])]
    words.append(out.array_words(result.grad, "gradient") + artefact.destination)
    out.summary(words, result.backend, seconds)


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
    with out.open_outputs(given) as outputs:
        sink = outputs.open(given["output"] or "-")
        inputs = read_inputs(given)
        result, seconds = _cross_entropy(inputs, given, gradient=False)
        if given["as_json"]:
            from xentcli.formats.json import dumps

            sink.write(dumps(out.loss_json(result, given, seconds)).encode())
        else:
            out.write_loss(sink, result.loss, given, given["format"])
    if not given["as_json"]:
        out.summary([out.loss_words(result, given["reduction"])], result.backend, seconds)


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
    with out.open_outputs(given) as outputs:
        artefact = out.Artefact(outputs, given, "log-softmax" if given["log"] else "softmax")
        inputs = read_inputs(given)
        artefact.expect(inputs.logits.shape, inputs.format)
        result, seconds = _probabilities(inputs, given)
        out.require_finite(result.array, given)
        artefact.write(result.array)
    if given["as_json"]:
        about = {"nonfinite": result.nonfinite, "backend": result.backend, "seconds": seconds}
        _print_json({**about, artefact.name: _about(result.array, given)})
        return
    words = out.array_words(result.array, artefact.name) + artefact.destination
    out.summary([words], result.backend, seconds)


def _probabilities(inputs: Inputs, given: dict[str, Any]) -> tuple[Probabilities, float]:
    from xentcli.probabilities import probabilities

    start = time.perf_counter()
    options, buffer = loss_options_of(given), _buffer(inputs, given)
    with Progress(not given["no_progress"]) as progress:
        run = _run(given, progress)
        result = probabilities(inputs.logits, options, run, log=given["log"], out=buffer)
    seconds = time.perf_counter() - start
    out.tell(result.notes, given)
    return result, round(seconds, 6)


def _cross_entropy(
    inputs: Inputs, given: dict[str, Any], *, gradient: bool
) -> tuple[CrossEntropy, float]:
    from xentcli.loss import compute
    from xentcli.problem import build

    start = time.perf_counter()
    options = loss_options_of(given)
    problem = build(inputs.logits, inputs.targets, options, inputs.extras)
    buffer = _buffer(inputs, given) if gradient else None
    with Progress(not given["no_progress"]) as progress:
        result = compute(problem, options, _run(given, progress), grad=gradient, out=buffer)
    seconds = time.perf_counter() - start
    out.tell(result.notes, given)
    return result, seconds


def _run(given: dict[str, Any], progress: Progress) -> Run:
    from xentcli.loss import Run

    return Run(given["backend"], given["threads"], note, progress)


def _buffer(inputs: Inputs, given: dict[str, Any]) -> Array | None:
    """An array of the dtype asked for; without one the default is right."""
    import numpy as np

    from xentcli.dtypes import NAMES

    if given["dtype"] == "auto":
        return None
    return np.empty(inputs.logits.shape, NAMES[given["dtype"]])


def _one_artefact(given: dict[str, Any]) -> None:
    """Standard output takes one thing: the array, the loss, or the JSON object."""
    names = {"--json": given["as_json"], "--loss-out": given.get("loss_out") == "-"}
    asked = [name for name, wanted in names.items() if wanted]
    if given["output"] in (None, "-"):
        asked.append("the array")
    if len(asked) > 1:
        what = f"{' and '.join(asked)} cannot both be standard output"
        raise OptionError("command line", what, "-o FILE writes the array to a file")


def _about(array: Any, given: dict[str, Any]) -> dict[str, Any]:
    from xentcli.dtypes import name_of
    from xentcli.errors import visible

    path = visible(given["output"])
    return {"path": path, "shape": list(array.shape), "dtype": name_of(array.dtype)}


def _print_json(value: dict[str, Any]) -> None:
    from xentcli.formats.json import dumps

    emit(dumps(value))
