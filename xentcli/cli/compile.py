"""`xent compile`."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import click

from xentcli.cli.command import command
from xentcli.cli.console import inform, status
from xentcli.cli.declare import option
from xentcli.errors import plural
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.backends.cpu.kernel import Kernel

CompileDtype: TypeAlias = Literal["f16", "bf16", "f32", "f64"]
CompileJob: TypeAlias = Literal["grad", "loss", "softmax", "probs", "report", "teacher", "bench"]


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Which kernels."""

    dtype: tuple[CompileDtype, ...] = option(
        ("f32",),
        "Dtype of the logits; may be repeated.",
        group="Kernels",
        type=click.Choice(get_args(CompileDtype)),
        multiple=True,
    )
    job: tuple[CompileJob, ...] = option(
        ("grad", "loss", "softmax"),
        "What to compute: gradients, losses, probabilities, gradients and losses with "
        "probability targets, reports, gradients and losses against a teacher, or the memory "
        "limits of xent bench; may be repeated.",
        group="Kernels",
        type=click.Choice(get_args(CompileJob)),
        multiple=True,
    )
    all: bool = option(
        False,
        "Compile for all dtypes and jobs, and results of the logits' dtype too; takes minutes.",
        group="Kernels",
        is_flag=True,
    )


@command(
    "compile",
    examples=[
        "xent compile",
        "xent compile --dtype bf16 --dtype f32 --job grad",
        "XENT_CACHE_DIR=/opt/xent-cache xent compile --all",
    ],
)
def compile(options: CompileOptions) -> None:
    """Compile the CPU kernels ahead, so that no later run waits for it.

    Otherwise a kernel is compiled when a job first needs it, which takes a few seconds. Compiled
    kernels are kept in the cache folder, which xent info shows. They are for this version of xent,
    Numba and llvmlite and for this processor; for a container image, compile when it is built, on
    the kind of machine that it runs on, and let its user own or read the folder.
    """
    from xentcli import backends
    from xentcli.backends import cache
    from xentcli.backends.cpu import kept
    from xentcli.backends.cpu.ahead import describe
    from xentcli.errors import visible

    backends.get("cpu", 0)  # an error if it cannot run
    begin, compiled = time.monotonic(), 0
    kernels = _kernels(options)
    for number, kernel in enumerate(kernels, 1):
        status(f"{number} of {len(kernels)}: {describe(kernel)}")
        since = time.monotonic()
        if kept.keep(kernel):
            compiled += 1
            status("")
            inform(f"compiled in {time.monotonic() - since:.1f} s: {describe(kernel)}")
    status("")
    there = len(kernels) - compiled
    done = f"{plural(compiled, 'kernel')} compiled in {time.monotonic() - begin:.1f} s"
    inform(f"{done}, {there} already there; {visible(str(cache.folder()))}")


def _kernels(options: CompileOptions) -> list[Kernel]:
    from xentcli.backends.cpu import ahead

    dtypes = get_args(CompileDtype) if options.all else options.dtype
    jobs = get_args(CompileJob) if options.all else options.job
    found = (ahead.kernels(job, dtype, options.all) for dtype in dtypes for job in jobs)
    return list(dict.fromkeys(chain.from_iterable(found)))  # without repetitions
