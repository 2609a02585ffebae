"""`xent bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import click

from xentcli.cli.command import command
from xentcli.cli.console import inform, show, status, stdout_is_terminal, write_stdout
from xentcli.cli.declare import option
from xentcli.cli.options import JsonOption, NoClobberOption
from xentcli.errors import OptionError, visible
from xentcli.options import LossOptions, same_as

if TYPE_CHECKING:
    from xentcli.bench import BenchResult
    from xentcli.bench.case import Case

BenchBackend: TypeAlias = Literal["numpy", "cpu", "cuda"]
BenchDtype: TypeAlias = Literal["f16", "bf16", "f32", "f64"]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

NAMES = ("torch", "torch-compile", "jax", "numpy", "scipy", "sklearn")
ON_A_DEVICE = ("torch", "torch-compile", "liger")
DEFAULT_SHAPES = ((16384, 1000), (512, 32768), (128, 131072))
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
        "32768 and 131072 classes; on a device 537 million with 4096, 32768 and 131072.",
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
        "Backend of xent; cuda keeps all arrays in the memory of a device.",
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


FORMATS = {"json": "json", "csv": "csv", "md": "markdown"}  # by suffix


@dataclass(frozen=True, kw_only=True)
class ExportOptions(JsonOption, NoClobberOption):
    """Files for the table; `export_…` are the names that these options had in 0.1."""

    output: tuple[str, ...] = option(
        (),
        "Write the table to PATH, in the format of its suffix (json, csv, md) or of --format; may "
        "be repeated.",
        "-o",
        "--output",
        group="Output",
        metavar="PATH",
        multiple=True,
        file=True,
    )
    format: str | None = option(
        None,
        "Format of the output; by default from its suffix.",
        "-f",
        "--format",
        group="Output",
        type=click.Choice(tuple(FORMATS.values())),
    )
    export_json: str | None = option(
        None, "Write the table as JSON.", group="Output", metavar="PATH", file=True, hidden=True
    )
    export_csv: str | None = option(
        None, "Write the table as CSV.", group="Output", metavar="PATH", file=True, hidden=True
    )
    export_markdown: str | None = option(
        None, "Write the table as Markdown.", group="Output", metavar="PATH", file=True, hidden=True
    )

    def wanted(self) -> list[tuple[str, str]]:
        """Where the table goes, and in which format."""
        named = {"json": self.export_json, "csv": self.export_csv, "markdown": self.export_markdown}
        found = [(path, form) for form, path in named.items() if path]
        found += [(path, self.format or _format_of(path)) for path in self.output]
        return found + ([("-", "json")] if self.as_json else [])


def _format_of(path: str) -> str:
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        what = f"{visible(path)}: unknown suffix; expected json, csv or md"
        raise OptionError("output", what, "--format markdown")
    return FORMATS[suffix]


@command(
    "bench",
    examples=[
        "xent bench",
        "xent bench --shape 4096,32768 --dtype bf16 --against torch",
        "xent bench --shape 64,10,64,64 --class-axis 1 -o table.md",
    ],
)
def bench(case: CaseOptions, measuring: MeasuringOptions, export: ExportOptions) -> None:
    """Benchmark the kernels against memory bandwidth and other libraries.

    Each result is compared with the exact one before timing; then the implementations take turns.
    "of limit" is the time needed just to move the same bytes, divided by the time taken.
    """
    from xentcli.bench import Plan, measure
    from xentcli.bench.export import as_csv, as_json, as_markdown
    from xentcli.files.outputs import Outputs

    machine = measuring.backend, measuring.threads
    plan = Plan(_against(measuring), measuring.warmup, measuring.runs, measuring.seed, machine)
    writers = {"json": as_json, "csv": as_csv, "markdown": as_markdown}
    wanted = export.wanted()
    with Outputs(no_clobber=export.no_clobber) as outputs:
        sinks = [(outputs.open(path), writers[form]) for path, form in wanted]
        results = []
        for item in _cases(case, measuring.backend):
            inform(item.title())
            results.append(measure(item, plan, status))
            status("")
            if all(path != "-" for path, _ in wanted):
                _print(results[-1])
        for sink, write in sinks:
            sink.write(write(results).encode())


def _against(measuring: MeasuringOptions) -> tuple[str, ...]:
    if "none" in measuring.against:
        return ()
    all_names = ON_A_DEVICE if measuring.backend == "cuda" else NAMES
    return all_names if "all" in measuring.against else tuple(dict.fromkeys(measuring.against))


def _cases(given: CaseOptions, backend: BenchBackend) -> list[Case]:
    from xentcli.bench.case import Case

    options = LossOptions(
        label_smoothing=given.label_smoothing,
        temperature=given.temperature,
        softcap=given.softcap,
        z_loss=given.z_loss,
    )
    shapes = SHAPES_ON_A_DEVICE if backend == "cuda" else DEFAULT_SHAPES
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


def _print(result: BenchResult) -> None:
    if stdout_is_terminal():
        from xentcli.cli.tables import bench_table

        show(lambda width: bench_table(result, width))
        return
    from xentcli.bench.export import as_lines

    write_stdout(as_lines(result))
