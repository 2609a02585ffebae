"""`xent bench`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import click

from xentcli.cli.bench_output import BaselineOptions, ExportOptions
from xentcli.cli.command import command
from xentcli.cli.console import inform, show, status, stdout_is_terminal, write_stdout
from xentcli.cli.declare import option
from xentcli.errors import OptionError
from xentcli.options import LossOptions, same_as
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.bench import Plan
    from xentcli.bench.case import Case
    from xentcli.bench.columns import Result

BenchBackend: TypeAlias = Literal["auto", "numpy", "cpu", "cuda"]
BenchDtype: TypeAlias = Literal["f16", "bf16", "f32", "f64"]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

NAMES = ("torch", "torch-compile", "jax", "numpy", "scipy", "sklearn")
ON_A_DEVICE = ("torch", "torch-compile", "liger")
DEFAULT_SHAPES = ((16384, 1000), (512, 32768), (128, 131072))
SHAPES_IN_A_LOOP = ((10, 10), (1000, 100), (1000, 1000), (3900, 1000))
SHAPES_OF_PROCESSES = ((100, 10), (50_000, 10), (4_000_000, 2), (50_000, 1000))
SHAPES_ON_A_DEVICE = ((131072, 4096), (16384, 32768), (4096, 131072))


def _shape(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Shapes:
    try:
        return tuple(tuple(int(n) for n in value.split(",")) for value in values)
    except ValueError:
        raise click.BadParameter(
            "expected whole numbers separated by commas, such as 64,10"
        ) from None


@dataclass(frozen=True, kw_only=True)
class CaseOptions:
    """What is computed."""

    shape: Shapes = option(
        None,
        "Shape of the logits; may be repeated. By default about 16.8 million logits with 1000, "
        "32768 and 131072 classes; on a device 537 million with 4096, 32768 and 131072; smaller "
        "ones with --loop and --process.",
        group="Case",
        metavar="N,C[,…]",
        multiple=True,
        callback=_shape,
    )
    dtype: BenchDtype = option(
        "f32",
        "Dtype of logits and gradient.",
        group="Case",
        type=click.Choice(get_args(BenchDtype)),
    )
    loss_only: bool = option(False, "Compute no gradient.", group="Case", is_flag=True)
    in_place: bool = option(
        False, "Overwrite the logits with the gradient.", group="Case", is_flag=True
    )
    weighted: bool = option(False, "Use class weights.", group="Case", is_flag=True)
    probs: bool = option(False, "Use probability targets.", group="Case", is_flag=True)
    label_smoothing: float = same_as(LossOptions, "label_smoothing", group="Case")
    temperature: float = same_as(LossOptions, "temperature", group="Case")
    softcap: float | None = same_as(LossOptions, "softcap", group="Case")
    z_loss: float = same_as(LossOptions, "z_loss", group="Case")
    class_axis: int = option(-1, "Class axis.", group="Case", type=int, metavar="INT")


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """What is compared, and how often it is timed."""

    loop: bool = option(
        False,
        "Time calls of the library as in a training loop, each with a new output.",
        group="Measuring",
        is_flag=True,
    )
    process: bool = option(
        False,
        "Time whole commands next to scripts of NumPy and PyTorch that do the same, and measure "
        "their memory.",
        group="Measuring",
        is_flag=True,
    )
    against: tuple[str, ...] = option(
        ("all",),
        "Library to compare with, if it is installed; may be repeated.",
        group="Measuring",
        type=click.Choice([*NAMES, "liger", "all", "none"]),
        multiple=True,
    )
    runs: int = option(5, "Timed rounds.", group="Measuring", type=click.IntRange(1))
    warmup: int = option(
        1, "Warm-up rounds, which are not timed.", group="Measuring", type=click.IntRange(0)
    )
    seed: int = option(0, "Seed of the random data.", group="Measuring", type=click.IntRange(0))
    backend: BenchBackend = option(
        "cpu",
        "Backend of xent; auto is the one that the size chooses, and cuda keeps all arrays in the "
        "memory of a device.",
        group="Measuring",
        type=click.Choice(get_args(BenchBackend)),
    )
    threads: int | None = option(
        None,
        "Threads for every implementation.",
        "-t",
        "--threads",
        group="Measuring",
        type=click.IntRange(1),
        metavar="N",
    )


@command(
    "bench",
    examples=[
        "xent bench",
        "xent bench --shape 4096,32768 --dtype bf16 --against torch",
        "xent bench --process --shape 50000,10 --runs 7",
    ],
)
def bench(
    case: CaseOptions,
    measuring: MeasuringOptions,
    export: ExportOptions,
    comparison: BaselineOptions,
) -> int:
    """Benchmark the kernels against memory bandwidth and other libraries.

    Each result is compared with the exact one before timing; then the implementations take turns.
    "of limit" is the time needed just to move the same bytes, divided by the time taken. With
    --loop and --process small jobs are timed as they are used.
    """
    from xentcli.bench import IN_A_LOOP, baseline, measure, processes
    from xentcli.bench.export import as_csv, as_json, as_markdown
    from xentcli.files.outputs import Outputs

    plan = _plan(measuring)
    cases = _cases(case, measuring)
    how = processes.WHOLE if measuring.process else IN_A_LOOP if measuring.loop else ""
    old = None
    if comparison.baseline is not None:
        old = baseline.load(comparison.baseline, [item.title(how) for item in cases])
    writers = {"json": as_json, "csv": as_csv, "markdown": as_markdown}
    wanted = export.wanted()
    with Outputs(no_clobber=export.no_clobber) as outputs:
        sinks = [(outputs.open(path), writers[form]) for path, form in wanted]
        results: list[Result] = []
        for item in cases:
            timed = processes.measure if measuring.process else measure
            results.append(timed(item, plan, partial(_progress, item)))
            status("")
            if all(path != "-" for path, _ in wanted):
                _print(results[-1])
        for sink, write in sinks:
            sink.write(write(results).encode())
    return 0 if old is None else _compared(old, results, comparison)


def _progress(case: Case, text: str) -> None:
    status(f"{case.title()}: {text}")


def _compared(old: list[dict[str, Any]], results: list[Result], comparison: BaselineOptions) -> int:
    """Say how the times have changed; the exit code."""
    from xentcli.bench import baseline

    found = baseline.changes(old, results)
    slower = [change for change in found if change.factor > comparison.fail_above]
    for change in found:
        words = f"{change.factor:.2f} × the baseline, in units of {change.unit}"
        verdict = ": slower" if change in slower else ""
        inform(f"{change.case}: {words}{verdict}")
    return 1 if slower else 0


def _plan(measuring: MeasuringOptions) -> Plan:
    from xentcli.bench import Plan

    if measuring.loop and measuring.process:
        raise OptionError("process", "whole processes are not timed in a loop", "leave --loop out")
    if measuring.process and measuring.backend == "cuda":
        raise OptionError("process", "whole processes compute in the host's memory")
    return Plan(
        _against(measuring),
        measuring.warmup,
        measuring.runs,
        measuring.seed,
        (measuring.backend, measuring.threads),
        measuring.loop,
    )


def _against(measuring: MeasuringOptions) -> tuple[str, ...]:
    if "none" in measuring.against:
        return ()
    all_names = ON_A_DEVICE if measuring.backend == "cuda" else NAMES
    return all_names if "all" in measuring.against else tuple(dict.fromkeys(measuring.against))


def _cases(given: CaseOptions, measuring: MeasuringOptions) -> list[Case]:
    from xentcli.bench.case import Case

    options = LossOptions(
        label_smoothing=given.label_smoothing,
        temperature=given.temperature,
        softcap=given.softcap,
        z_loss=given.z_loss,
    )
    shapes: Shapes = SHAPES_ON_A_DEVICE if measuring.backend == "cuda" else DEFAULT_SHAPES
    shapes = SHAPES_IN_A_LOOP if measuring.loop else shapes
    shapes = SHAPES_OF_PROCESSES if measuring.process else shapes
    return [
        Case(
            shape,
            given.dtype,
            options,
            given.class_axis,
            weighted=given.weighted,
            probs=given.probs,
            gradient=not given.loss_only,
            in_place=given.in_place,
        )
        for shape in given.shape or shapes
    ]


def _print(result: Result) -> None:
    if stdout_is_terminal():
        from xentcli.cli.tables import bench_table

        show(lambda width: bench_table(result, width))
        return
    from xentcli.bench.export import as_lines

    write_stdout(as_lines(result))
