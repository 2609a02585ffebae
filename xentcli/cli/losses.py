"""`xent grad`, `xent loss`, `xent softmax`."""

from __future__ import annotations

from typing import Any

import click

from xentcli.cli import summary as out
from xentcli.cli.command import command
from xentcli.cli.console import note, stdout_is_terminal, write_stdout
from xentcli.cli.declare import option
from xentcli.cli.inputs import (
    InputPaths,
    Inputs,
    logits_reading,
    open_inputs,
    text_style,
)
from xentcli.cli.job import Job
from xentcli.cli.options import (
    JsonOption,
    LogitsInputs,
    LossInputs,
    RunningAnywhere,
    WritingOptions,
)
from xentcli.cli.sinks import (
    ArrayOutput,
    LossBuffer,
    LossConsumers,
    LossOutput,
    LossPreview,
    open_outputs,
)
from xentcli.cli.teacher import TaughtInputs, taught_inputs
from xentcli.cli.top import TopOutput, require_top
from xentcli.errors import OptionError
from xentcli.files.compression import compressed
from xentcli.files.registry import TEXT
from xentcli.options import LogitsOptions, LossOptions, TeacherOptions
from xentcli.records import dataclass


@dataclass(frozen=True, kw_only=True)
class GradWriting(WritingOptions):
    """Where the gradient goes, and the loss."""

    loss_out: str | None = option(
        None,
        "Write the loss to PATH too: one number, or one per row; - is standard output.",
        group="Output",
        metavar="PATH",
        file=True,
    )


@dataclass(frozen=True, kw_only=True)
class SoftmaxOptions:
    """What `xent softmax` computes."""

    log: bool = option(False, "Compute log-probabilities.", group="Softmax", is_flag=True)
    top: int | None = option(
        None,
        "Write the K largest of each row as values, and their classes as indices, into one .npz or "
        ".safetensors file.",
        group="Softmax",
        type=click.IntRange(1),
        metavar="K",
    )
    rest: bool = option(
        False,
        "With --top also write the sum over all other classes, as rest.",
        group="Softmax",
        is_flag=True,
    )


@command(
    "grad",
    examples=[
        "xent grad logits.npy targets.npy -o grad.npy",
        "xent grad logits.npy targets.npy --label-smoothing 0.1 | xent inspect -",
        "cat logits.csv | xent grad - targets.csv --reduction sum > grad.csv",
    ],
)
def grad(
    options: LossOptions,
    sources: TaughtInputs,
    soft: TeacherOptions,
    writing: GradWriting,
    running: RunningAnywhere,
    form: JsonOption,
) -> None:
    """Compute the loss and its gradient with respect to the logits.

    LOGITS holds rows of C numbers; TARGETS one class index per row, or probabilities in the
    shape of the logits. Either may be - for standard input.
    """
    _check_stdout(writing, form, loss_out=writing.loss_out)
    work = out.Work()
    style = text_style(sources, writing.decimals)
    paths, reading = taught_inputs(sources, soft, writing.dtype)
    with open_outputs(writing) as outputs:
        array = ArrayOutput(outputs, writing, style, "grad", running.strict)
        sink = None if writing.loss_out is None else outputs.open(writing.loss_out)
        losses = LossOutput(sink, style) if sink else None
        buffer = LossBuffer() if form.as_json else None
        consumers = LossConsumers(losses, buffer)
        with open_inputs(paths, reading, outputs, options.class_axis) as inputs:
            job = Job(running, writing.dtype)
            result = job.cross_entropy(options, inputs, array, consumers, soft)
        array.finish()
        if losses:
            losses.finish(result)
        work.done(inputs.logits, *inputs.teacher, array)
    if buffer:
        about = out.loss_json(result, buffer.value(result), options, writing.decimals, work.seconds)
        _print_json({**about, array.name: array.about()})
        return
    gradient = array.words("gradient") + array.destination
    out.summary([*out.loss_words(result, options.reduction), gradient], result.backend, work)


@command(
    "loss",
    examples=[
        "xent loss logits.npy targets.npy",
        "xent loss logits.npy targets.npy --reduction none | sort -g | tail -3",
        "xent loss table.csv --columns 'logit_*' --target-column label --json",
    ],
)
def loss(
    options: LossOptions,
    sources: TaughtInputs,
    soft: TeacherOptions,
    writing: WritingOptions,
    running: RunningAnywhere,
    form: JsonOption,
) -> None:
    """Compute the loss: one number, or one per line with --reduction none.

    LOGITS holds rows of C numbers; TARGETS one class index per row, or probabilities in the
    shape of the logits. Either may be - for standard input.
    """
    work = out.Work()
    style = text_style(sources, writing.decimals)
    paths, reading = taught_inputs(sources, soft, writing.dtype)
    with open_outputs(writing) as outputs:
        buffer = LossBuffer() if form.as_json else None
        preview = _previewed(options, writing, form)
        path = "-" if writing.output is None else writing.output
        sink = None if preview else outputs.open(path, writing.format)
        losses: LossOutput | LossPreview | None = LossPreview(style.decimals) if preview else None
        if sink and not buffer:
            losses = LossOutput(sink, style, writing.format, chosen=True)
        consumers = LossConsumers(losses, buffer)
        with open_inputs(paths, reading, outputs, options.class_axis) as inputs:
            job = Job(running, writing.dtype)
            result = job.cross_entropy(options, inputs, None, consumers, soft)
            work.done(inputs.logits, *inputs.teacher)
            _note_unused(sources, writing, inputs)
        if losses:
            losses.finish(result)
        if buffer and sink:
            value = buffer.value(result)
            about = out.loss_json(result, value, options, writing.decimals, work.seconds)
            sink.write(compressed(_json(about), sink.path))
    if losses:
        out.summary(out.loss_words(result, options.reduction), result.backend, work)


@command(
    "softmax",
    examples=[
        "xent softmax logits.npy -o probabilities.npy",
        "xent softmax logits.csv --temperature 2 --decimals 4",
        "xent softmax logits.npy --log --top 5 --rest -o top.npz",
    ],
)
def softmax(
    what: SoftmaxOptions,
    options: LogitsOptions,
    sources: LogitsInputs,
    writing: WritingOptions,
    running: RunningAnywhere,
    form: JsonOption,
) -> None:
    """Compute the probabilities of the classes, or their logarithms.

    LOGITS holds rows of C numbers, and may be - for standard input.
    """
    _check_stdout(writing, form)
    require_top(what.top, rest=what.rest)
    work = out.Work()
    if what.top is not None:
        _softmax_top(what, options, sources, writing, running, form)
        return
    style, name = text_style(sources, writing.decimals), "log-softmax" if what.log else "softmax"
    reading = logits_reading(sources, writing.dtype)
    with open_outputs(writing) as outputs:
        array = ArrayOutput(outputs, writing, style, name, running.strict)
        axis = options.class_axis
        with open_inputs(InputPaths(sources.logits), reading, outputs, axis) as inputs:
            result = Job(running, writing.dtype).softmax(options, inputs, array, log=what.log)
        array.finish()
        work.done(inputs.logits, array)
    if form.as_json:
        about = {"nonfinite": result.nonfinite, "backend": result.backend}
        seconds = round(work.seconds, 6)
        _print_json({**about, "seconds": seconds, array.name: array.about()})
        return
    out.summary([array.words() + array.destination], result.backend, work)


def _softmax_top(
    what: SoftmaxOptions,
    options: LogitsOptions,
    sources: LogitsInputs,
    writing: WritingOptions,
    running: RunningAnywhere,
    form: JsonOption,
) -> None:
    """The largest probabilities of each row instead of all."""
    work = out.Work()
    reading = logits_reading(sources, writing.dtype)
    with open_outputs(writing) as outputs:
        output = TopOutput(outputs, writing, strict=running.strict)
        paths, axis = InputPaths(sources.logits), options.class_axis
        with open_inputs(paths, reading, outputs, axis) as inputs:
            how = what.top or 1, what.log, what.rest
            arrays, result = Job(running, writing.dtype).top(options, inputs, *how)
        output.write(arrays)
        work.done(inputs.logits)
    if form.as_json:
        about = {"nonfinite": result.nonfinite, "backend": result.backend}
        _print_json({**about, "seconds": round(work.seconds, 6), "top": output.about()})
        return
    out.summary([output.words], result.backend, work)


def _previewed(options: LossOptions, writing: WritingOptions, form: JsonOption) -> bool:
    """Whether the losses of the rows go to a terminal, which gets a table of the first ones."""
    asked = form.as_json or writing.output is not None or options.reduction != "none"
    return not asked and stdout_is_terminal()


def _note_unused(sources: LossInputs, writing: WritingOptions, inputs: Inputs) -> None:
    """Notes on options that have no effect on a loss."""
    if sources.upstream is not None:
        note("--upstream: it changes the gradient only; the loss is the same without it")
    if writing.dtype != "auto" and inputs.logits.format != TEXT and inputs.logits.dtype.kind == "f":
        note(f"--dtype: the loss is float64; the logits stay {inputs.logits.dtype.name}")


def _check_stdout(
    writing: WritingOptions, form: JsonOption, *, loss_out: str | None = None
) -> None:
    """Standard output takes one thing: the array, the loss, or the JSON object."""
    names = {"--json": form.as_json, "--loss-out": loss_out == "-"}
    asked = [name for name, wanted in names.items() if wanted]
    if writing.output in (None, "-"):
        asked.append("the array")
    if len(asked) > 1:
        what = f"{' and '.join(asked)} cannot both go to standard output"
        hint = "write the array to a file with -o FILE"
        if "the array" not in asked:
            hint = "the JSON object holds the loss; --loss-out FILE writes it to a file too"
        raise OptionError("command line", what, hint)


def _json(value: dict[str, Any]) -> bytes:
    from xentcli.files.json import dumps

    return dumps(value).encode()


def _print_json(value: dict[str, Any]) -> None:
    write_stdout(_json(value).decode())
