"""The options that commands share, declared once; those of the loss come from `LossOptions`.

Every option `--some-name` can also be set by the environment variable `XENT_SOME_NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from xentcli.errors import Shown, visible
from xentcli.files import registry
from xentcli.options import LossOptions, rule_text


def called(where: str, state: dict[str, Any]) -> str:
    """An argument of the library as the user called it: the file's name, or the option."""
    if isinstance(where, Shown):
        return where  # a file of the same name as an argument
    names: dict[str, str] = state.get("names", {})
    return names.get(where) or FLAGS.get(where) or where


# Only for completion in the shell: what can be opened is found out by opening it.
PATH = click.Path(allow_dash=True, readable=False)
READ_FORMAT = click.Choice(registry.names(registry.readable()))
WRITE_FORMAT = click.Choice(registry.names(registry.writable()))

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# How an argument of the library is called on the command line, for messages.
FLAGS: dict[str, str] = {
    item.name: "--" + item.metadata.get("flag", item.name).replace("_", "-")
    for item in fields(LossOptions)
} | {
    name: "--" + name.replace("_", "-")
    for name in (
        *("backend", "threads", "weight", "sample_weight", "upstream"),
        *("shape", "in_place", "against"),
        *("method", "ulp", "rtol", "atol"),
        *("row", "names", "save"),
    )
}


def option(*names: str, **settings: Any) -> Decorator:
    """A Click option with its environment variable."""
    longest = max(names[0].split("/")[0].split(), key=len) if len(names) == 1 else ""
    longest = longest or next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "XENT_" + longest.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **settings)


def together(*decorators: Decorator) -> Decorator:
    """Several decorators as one, in the order in which help shows them."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def loss_option(name: str) -> Decorator:
    """The option of the command line that sets a field of `LossOptions`."""
    item = next(item for item in fields(LossOptions) if item.name == name)
    rule = item.metadata
    kind: Any = click.FLOAT
    if "choices" in rule:
        kind = click.Choice(rule["choices"])
    elif rule.get("integer"):
        kind = click.INT
    words = rule["help"] if "choices" in rule else f"{rule['help']} ({rule_text(rule)})"
    return option(FLAGS[name], name, type=kind, default=item.default, show_default=True, help=words)


def _file_option(flag: str, metavar: str, words: str) -> Decorator:
    return option(flag, metavar=metavar, type=PATH, help=words)


logits_options = together(*map(loss_option, ("temperature", "softcap", "class_axis")))

loss_options = together(
    loss_option("reduction"),
    _file_option("--weight", "FILE", "One weight per class."),
    _file_option("--sample-weight", "FILE", "One weight per row."),
    *map(loss_option, ("ignore_index", "label_smoothing", "temperature", "softcap", "z_loss")),
    _file_option(
        "--upstream", "FILE|F", "dL/d(loss): a number, or one per row with --reduction none."
    ),
    *map(loss_option, ("normalizer", "empty_mean", "target_kind", "class_axis")),
)


def key_help(role: str) -> str:
    """What an option does that names one array of a file with several."""
    keyed = registry.suffixes(registry.with_keys())
    return f"Name of the {role} in a file that holds several arrays ({', '.join(keyed)})."


def read_options(*, targets: bool) -> Decorator:
    """How inputs are read."""
    ours = [
        option("--input-format", type=READ_FORMAT, help="Format of the logits. [default: found]")
    ]
    keys = [option("--key", metavar="NAME", help=key_help("logits"))]
    if targets:
        ours.append(option("--target-format", type=READ_FORMAT, help="Format of the targets."))
        keys.append(option("--target-key", metavar="NAME", help=key_help("targets")))
    return together(
        *ours,
        *keys,
        option(
            "-d", "--delimiter", metavar="C", callback=_one_character, help="Between cells of text."
        ),
        option("--header/--no-header", default=False, help="Text starts with a line of names."),
    )


def _one_character(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    value = "\t" if value == r"\t" else value
    parts = value is None or (len(value) == 1 and value.isascii() and not value.isalnum())
    if not parts or value in ("+", "-", ".", "\r", "\n", "\0"):
        raise click.BadParameter(
            f"{visible(value or '')!r} is not one character that can part numbers"
        )
    return value


dtype_option = option(
    "--dtype",
    type=click.Choice(["auto", "f16", "bf16", "f32", "f64"]),
    default="auto",
    show_default=True,
    help="Of the result, and of logits whose file does not say it: bfloat16, and text, which is"
    " parsed as f64 first.",
)

write_options = together(
    option("-o", "--output", metavar="PATH", type=PATH, help="Write here; - is standard output."),
    option(
        "-f",
        "--format",
        type=WRITE_FORMAT,
        help="Format of the output. [default: by its suffix, else as the logits]",
    ),
    option(
        "--decimals", type=click.IntRange(0, 20), metavar="N", help="Round text output; else exact."
    ),
    option("-n", "--no-clobber", is_flag=True, help="Never replace an existing file."),
    option("--fsync", is_flag=True, help="Wait for the disk, for new files too."),
)

machine_options = together(
    option(
        "--backend",
        type=click.Choice(["auto", "numpy", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="What computes; auto takes numpy or cpu, by the number of logits.",
    ),
    option(
        "-t",
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="At most this many threads.",
    ),
    option("--strict", is_flag=True, help="Results that are not finite are an error."),
    option("--no-progress", is_flag=True, help="No progress bar."),
)

json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    ctx.find_root().ensure_object(dict)[parameter.name] = value
    return value


common_options = together(
    option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_remember, help="Errors only."
    ),
    option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        expose_value=False,
        callback=_remember,
        is_eager=True,
        help="Colour on a terminal; NO_COLOR is honoured.",
    ),
    option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        is_eager=True,
        help="Show tracebacks.",
    ),
)
