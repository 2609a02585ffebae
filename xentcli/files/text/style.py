"""How text is read and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from xentcli.errors import Setting

Header: TypeAlias = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class TextStyle:
    """How text is read and written; without a `delimiter`, that of the format or what is found.

    `decimal` is the decimal mark of inputs. `prefix` is what the user's options for this input
    begin with, and `of_targets` says that it holds targets. Outputs have a point, and neither
    header nor quotes.
    """

    delimiter: str | None = None
    header: Header = "auto"
    decimals: int | None = None
    decimal: str = "."
    prefix: str = ""
    of_targets: bool = False

    def option(self, name: str, value: str | None = None) -> Setting:
        """One of this input's options inside a message."""
        return Setting(f"{self.prefix}{name}", value)
