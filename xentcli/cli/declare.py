"""Options as fields of dataclasses: their declaration, and Click's parameter for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, field
from typing import Any

import click

from xentcli.cli.help import Option
from xentcli.errors import visible

# For shell completion only: whether a path can be opened is checked on opening it.
PATH = click.Path(allow_dash=True, readable=False)
LARGEST = 1 << 24  # characters of a file that holds one saved number


class SavedNumber(click.ParamType[float]):
    """A number, or @FILE.json: the value of that name in a file that a command saved."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or that of the file."""
        if not (isinstance(value, str) and value.startswith("@")):
            return float(click.FLOAT.convert(value, param, ctx))
        assert param
        assert param.name
        return self._saved(value[1:], param.name, param, ctx)

    def _saved(
        self, path: str, name: str, param: click.Parameter, ctx: click.Context | None
    ) -> float:
        import json  # few commands need it

        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 (Path would change the name)
                saved = json.loads(file.read(LARGEST))
            number = saved[name]
            if saved.get("biases"):
                self.fail(
                    f"{visible(path)} holds biases too; only logits / T can be had", param, ctx
                )
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError
        except OSError as error:
            self.fail(f"cannot read {visible(path)}: {error.strerror}", param, ctx)
        except (ValueError, KeyError, TypeError):
            self.fail(f"{visible(path)} is not JSON with a number '{name}'", param, ctx)
        return float(number)


def argument(
    metavar: str, *, required: bool = True, many: bool = False, type: click.ParamType[Any] = PATH
) -> Any:
    """A dataclass field that is given by its position, by default a path."""
    settings = {"metavar": metavar, "required": required, "nargs": -1 if many else 1, "type": type}
    if required:
        return field(metadata={"argument": settings})
    return field(default=None, metadata={"argument": settings})


def option(default: Any, help: str, *names: str, group: str, **settings: Any) -> Any:
    """A dataclass field that is an option; `names` where they are not made of the field's name.

    `settings` are Click's; `file=True` makes it a path.
    """
    metadata = {"help": help, "names": names, "group": group, "click": settings}
    return field(default=default, metadata=metadata)


def _long_names(item: Field[Any]) -> list[str]:
    names = item.metadata.get("names") or ()
    return [name.split("/")[0] for name in names if name.startswith("--")]


def _variable(flag: str) -> str:
    """The environment variable of an option."""
    return "XENT_" + flag.removeprefix("--").replace("-", "_").upper()


def flag_of(item: Field[Any]) -> str:
    """What an option of the command line is called: its longest name."""
    long = _long_names(item)
    name: str = item.metadata.get("flag", item.name)
    return max(long, key=len) if long else "--" + name.replace("_", "-")


def parameter(item: Field[Any]) -> click.Parameter:
    """Click's parameter for a field."""
    rule = item.metadata
    if "argument" in rule:
        return click.Argument([item.name], **rule["argument"])
    given = dict(rule["click"]) if "click" in rule else _library_settings(rule)
    settings = {"default": item.default, "help": rule["help"], "show_default": True, **given}
    if settings.pop("file", False):
        settings["type"] = PATH
    if isinstance(settings.get("type"), click.types.IntRange | click.types.FloatRange):
        settings.setdefault("metavar", "N")
    variables = [_variable(flag) for flag in _long_names(item) or [flag_of(item)]]
    variable = variables if len(variables) > 1 else variables[0]
    names = rule.get("names") or (flag_of(item),)
    return Option([*names, item.name], rule["group"], envvar=variable, **settings)


def _library_settings(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Click's settings for a field of the library, which checks the value itself."""
    if "choices" in rule:
        return {"type": click.Choice(rule["choices"])}
    if rule.get("boolean"):
        return {"is_flag": True}
    if rule.get("integer"):
        return {"type": click.INT, "metavar": "INT"}
    words = f"{rule['help']} {_limits(rule)}"
    if rule.get("saved"):
        return {"type": SavedNumber(), "metavar": "F|@FILE", "help": words}
    return {"type": click.FLOAT, "metavar": "F", "help": words}


def _limits(rule: Mapping[str, Any]) -> str:
    """The range of a number, for help.

    >>> _limits({"low": 0.0, "high": 1.0}), _limits({"above": 0.0}), _limits({"low": 0.0})
    ('(0 to 1)', '(above 0)', '(at least 0)')
    """
    if "high" in rule:
        return f"({rule['low']:g} to {rule['high']:g})"
    return f"(above {rule['above']:g})" if "above" in rule else f"(at least {rule['low']:g})"
