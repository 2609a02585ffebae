"""How text is read and written."""

from __future__ import annotations

from typing import Literal, TypeAlias

from xentcli.errors import Setting, Words
from xentcli.records import dataclass

Header: TypeAlias = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class TextStyle:
    """How text is read and written; without a `delimiter`, that of the format or what is found.

    `decimal` is the decimal mark of inputs. `prefix` is what the user's options for this input
    begin with, `of_targets` says that it holds targets, and `has_columns` that there are options
    for its header and columns. Outputs have a point, and neither header nor quotes.
    """

    delimiter: str | None = None
    header: Header = "auto"
    decimals: int | None = None
    decimal: str = "."
    prefix: str = ""
    of_targets: bool = False
    has_columns: bool = True

    def option(self, name: str, value: str | None = None) -> Setting:
        """One of this input's options inside a message."""
        return Setting(f"{self.prefix}{name}", value)

    def noted(self, what: str, name: str, value: str, effect: str) -> Words:
        """What was found, and which option for header or columns is for that, if there is one."""
        return (f"{what}; ", self.option(name, value), effect) if self.has_columns else what
