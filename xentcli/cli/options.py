"""The options that commands share, as classes of typed fields; those of the loss are the library's.

Every option `--some-name` can also be set by the environment variable `XENT_SOME_NAME`.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias, get_args

import click

from xentcli.cli.declare import argument, option
from xentcli.cli.table_options import LogitsTable, TargetsTable
from xentcli.errors import visible
from xentcli.files import registry
from xentcli.options import Backend
from xentcli.records import dataclass

LogitsKind: TypeAlias = Literal["logits", "log-probs", "probs"]
DtypeName: TypeAlias = Literal["auto", "f16", "bf16", "f32", "f64"]
READ_FORMAT = click.Choice(registry.names(registry.readable()))
WRITE_FORMAT = click.Choice(registry.names(registry.writable()))


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """The files of weights and of the upstream gradient."""

    weight: str | None = option(
        None, "Weight of each class, C numbers.", group="Loss", metavar="FILE", file=True
    )
    sample_weight: str | None = option(
        None, "Weight of each row, N numbers.", group="Loss", metavar="FILE", file=True
    )
    upstream: str | None = option(
        None,
        "dL/d(loss): a number, or a file with one per row for --reduction none.",
        group="Loss",
        metavar="FILE|F",
        file=True,
    )


def format_option(what: str) -> Any:
    """The option for the format of an input."""
    words = f"Format of the {what}; detected by default."
    return option(None, words, group="Input", type=READ_FORMAT)


def key_option(what: str, group: str = "Input") -> Any:
    """The option for the name of an array in an archive."""
    keyed = ", ".join(registry.suffixes(registry.with_keys()))
    words = f"Name of the {what} in a file that holds several arrays ({keyed})."
    return option(None, words, group=group, metavar="NAME")


RAW_DTYPES = (
    *("f16", "bf16", "f32", "f64"),
    *(f"{kind}{bits}" for kind in "iu" for bits in (8, 16, 32, 64)),
)


def _sizes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d{1,18}(,\d{1,18})*", value, re.ASCII):
        raise click.BadParameter(f"{visible(value)!r} is not a shape such as 512,1000")
    return value


def raw_option(what: str) -> Any:
    """The option for the dtype of a file without a header."""
    words = f"Dtype of {what} in a file without a header, little-endian in C order."
    return option(None, words, group="Input", type=click.Choice(RAW_DTYPES))


def shape_option(raw: str) -> Any:
    """The option for the shape of a file without a header."""
    words = f"Shape of the numbers for {raw}, such as 512,1000."
    return option(None, words, group="Input", metavar="N,C", callback=_sizes)


def offset_option(raw: str) -> Any:
    """The option for what precedes the numbers in a file without a header."""
    words = f"Bytes before the numbers for {raw}."
    return option(0, words, group="Input", metavar="B", type=click.IntRange(min=0))


@dataclass(frozen=True, kw_only=True)
class ArrayReading(LogitsTable):
    """How an array is read."""

    input_format: str | None = format_option("logits")
    key: str | None = key_option("logits")
    raw: str | None = raw_option("the logits")
    shape: str | None = shape_option("--raw")
    offset: int = offset_option("--raw")


@dataclass(frozen=True, kw_only=True)
class LogitsReading(ArrayReading):
    """How the logits are read."""

    logits_kind: LogitsKind = option(
        "logits",
        "What LOGITS holds: logits, log-probabilities, or probabilities, whose logarithms are "
        "taken (-inf for 0).",
        group="Input",
        type=click.Choice(get_args(LogitsKind)),
    )


@dataclass(frozen=True, kw_only=True)
class TargetsReading(TargetsTable):
    """How the targets are read."""

    target_format: str | None = format_option("targets")
    target_key: str | None = key_option("targets")
    target_raw: str | None = raw_option("the targets")
    target_shape: str | None = shape_option("--target-raw")
    target_offset: int = offset_option("--target-raw")


@dataclass(frozen=True, kw_only=True)
class LossReading(TargetsReading, LogitsReading, WeightFiles):
    """How the inputs of a loss are read."""


@dataclass(frozen=True, kw_only=True)
class LogitsInputs(LogitsReading):
    """The file of the logits, and how it is read."""

    logits: str = argument("LOGITS")


@dataclass(frozen=True, kw_only=True)
class LossInputs(LossReading):
    """The inputs of a loss, and how they are read."""

    logits: str = argument("LOGITS")
    targets: str | None = argument("[TARGETS]", required=False)


@dataclass(frozen=True, kw_only=True)
class NoClobberOption:
    """Whether an existing file may be replaced."""

    no_clobber: bool = option(
        False,
        "Never replace an existing file.",
        "-n",
        "--no-clobber",
        group="Output",
        is_flag=True,
    )


@dataclass(frozen=True, kw_only=True)
class WritingOptions(NoClobberOption):
    """Where the result goes, and how it is written."""

    dtype: DtypeName = option(
        "auto",
        "Dtype of the result, and of logits that have none of their own: arrays of dtype V2 "
        "(bf16), and text, which is parsed as f64 first.",
        group="Output",
        type=click.Choice(get_args(DtypeName)),
    )
    output: str | None = option(
        None,
        "Write the result to PATH; - is standard output, even on a terminal.",
        "-o",
        "--output",
        group="Output",
        metavar="PATH",
        file=True,
    )
    format: str | None = option(
        None,
        "Format of the output; by default from its suffix, else that of the logits.",
        "-f",
        "--format",
        group="Output",
        type=WRITE_FORMAT,
    )
    decimals: int | None = option(
        None,
        "Round text output to N decimals; exact by default.",
        group="Output",
        metavar="N",
        type=click.IntRange(0, 20),
    )
    in_place: bool = option(
        False,
        "Allow an output that is an input too, which is replaced at the end.",
        group="Output",
        is_flag=True,
    )
    fsync: bool = option(
        False,
        "Call fsync on new files too; replaced files always are.",
        group="Output",
        is_flag=True,
    )


@dataclass(frozen=True, kw_only=True)
class JsonOption:
    """Whether to print JSON."""

    as_json: bool = option(False, "Print one JSON object.", "--json", group="Output", is_flag=True)


@dataclass(frozen=True, kw_only=True)
class ProgressOption:
    """Whether to show a progress bar."""

    no_progress: bool = option(False, "Do not show a progress bar.", group="Machine", is_flag=True)


@dataclass(frozen=True, kw_only=True)
class RunningOptions(ProgressOption):
    """The backend, its threads, and whether notes are errors."""

    backend: Backend = option(
        "auto",
        "Backend; auto picks numpy or cpu by the number of logits.",
        group="Machine",
        type=click.Choice(get_args(Backend)),
    )
    threads: int | None = option(
        None,
        "Maximum number of threads.",
        "-t",
        "--threads",
        group="Machine",
        type=click.IntRange(min=1),
        metavar="N",
    )
    strict: bool = option(
        False,
        "Treat non-finite results and notes about suspicious data as errors.",
        group="Machine",
        is_flag=True,
    )


@dataclass(frozen=True, kw_only=True)
class RunningAnywhere(RunningOptions):
    """The same for commands that dask can run: in this process by default."""

    cluster: str | None = option(
        None,
        "Compute on a dask cluster, such as tcp://host:8786; its workers must see the files.",
        group="Machine",
        metavar="ADDRESS",
    )
    workers: int | None = option(
        None,
        "Compute in N worker processes on this machine, by dask.",
        group="Machine",
        metavar="N",
        type=click.IntRange(1, 1024),
    )

    @property
    def on_cluster(self) -> bool:
        """Whether any cluster is asked for."""
        return self.cluster is not None or self.workers is not None
