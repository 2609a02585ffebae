"""`xent bench`."""

from __future__ import annotations

from typing import Any

import click

from xentcli.cli.console import emit, say, show, status, stdout_is_terminal
from xentcli.cli.options import PATH, common_options, loss_option, option, together

NAMES = ("torch", "torch-compile", "jax", "numpy", "scipy", "sklearn")
ON_A_DEVICE = ("torch", "torch-compile", "liger")
DEFAULT_SHAPES = ((16384, 1000), (512, 32768), (128, 131072))
SHAPES_ON_A_DEVICE = ((131072, 4096), (16384, 32768), (4096, 131072))


def _shape(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    try:
        return tuple(tuple(int(n) for n in value.split(",")) for value in values)
    except ValueError:
        raise click.BadParameter("whole numbers with commas between them: N,C") from None


case_options = together(
    option(
        "--shape",
        "shapes",
        metavar="N,C[,…]",
        multiple=True,
        callback=_shape,
        help="Of the logits; may be repeated. [default: 2²⁴ logits of 1000, 32768, 131072 classes; "
        "on a device 2²⁹ of 4096, 32768, 131072]",
    ),
    option(
        "--dtype",
        type=click.Choice(["f16", "bf16", "f32", "f64"]),
        default="f32",
        show_default=True,
        help="Of logits and gradient.",
    ),
    option("--loss-only", is_flag=True, help="No gradient."),
    option("--in-place", is_flag=True, help="The gradient overwrites the logits."),
    option("--weighted", is_flag=True, help="With class weights."),
    option("--probs", is_flag=True, help="With probability targets."),
    *map(loss_option, ("label_smoothing", "temperature", "softcap", "z_loss")),
    option("--class-axis", type=int, default=-1, show_default=True, help="That holds the classes."),
)

run_options = together(
    option(
        "--against",
        type=click.Choice([*NAMES, "liger", "all", "none"]),
        multiple=True,
        default=("all",),
        show_default=True,
        help="Whom to compare with, of those that are installed; may be repeated.",
    ),
    option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Rounds timed."),
    option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Rounds not."),
    option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the data."),
    option(
        "--backend",
        type=click.Choice(["numpy", "cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="Of xent; cuda: everything in the memory of a device.",
    ),
    option("-t", "--threads", type=click.IntRange(1), metavar="N", help="Of everybody who asks."),
    *(
        option(f"--export-{kind}", metavar="PATH", type=PATH, help=f"Write the table as {name}.")
        for kind, name in (("json", "JSON"), ("csv", "CSV"), ("markdown", "Markdown"))
    ),
)


@click.command(short_help="Speed here, beside the machine's limit and other libraries.")
@case_options
@run_options
@common_options
def bench(**given: Any) -> None:
    """Speed here, beside what the machine can move and beside what else is installed.

    \b
    xent bench
    xent bench --shape 4096,32768 --dtype bf16 --against torch
    xent bench --shape 64,10,64,64 --class-axis 1 --export-markdown -

    Every answer is compared with the exact one before it is timed; then all take turns. "of
    limit" is the time that only moving the same bytes takes, measured in the same rounds.
    """
    from xentcli.bench import Plan, export, measure
    from xentcli.files.outputs import Outputs

    threads = given["threads"]
    against = _against(given["against"], given["backend"])
    plan = Plan(against, given["warmup"], given["runs"], given["seed"], (given["backend"], threads))
    kinds = {kind: given[f"export_{kind}"] for kind in ("json", "csv", "markdown")}
    with Outputs() as outputs:
        sinks = {kind: outputs.open(path) for kind, path in kinds.items() if path}
        results = []
        for case in _cases(given):
            say(case.title())
            results.append(measure(case, plan, status))
            status("")
            if "-" not in kinds.values():
                _print(results[-1])
        for kind, sink in sinks.items():
            sink.write(getattr(export, f"as_{kind}")(results).encode())


def _against(names: tuple[str, ...], backend: str) -> tuple[str, ...]:
    if "none" in names:
        return ()
    everybody = ON_A_DEVICE if backend == "cuda" else NAMES
    return everybody if "all" in names else tuple(dict.fromkeys(names))


def _cases(given: dict[str, Any]) -> list[Any]:
    from xentcli.bench.case import Case
    from xentcli.options import LossOptions

    names = ("label_smoothing", "temperature", "softcap", "z_loss")
    options = LossOptions(**{name: given[name] for name in names})
    flags = {name: given[name] for name in ("weighted", "probs", "in_place")}
    shapes = SHAPES_ON_A_DEVICE if given["backend"] == "cuda" else DEFAULT_SHAPES
    return [
        Case(
            shape,
            given["dtype"],
            options,
            given["class_axis"],
            gradient=not given["loss_only"],
            **flags,
        )
        for shape in given["shapes"] or shapes
    ]


def _print(result: Any) -> None:
    if stdout_is_terminal():
        from xentcli.cli.tables import bench_table

        show(lambda width: bench_table(result, width))
        return
    from xentcli.bench.export import as_lines

    emit(as_lines(result))
