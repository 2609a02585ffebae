"""How arrays are read and written: frozen objects that the formats get, without the file's path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentcli.files.columns import ALL, ColumnOptions
from xentcli.files.text.style import TextStyle
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.files.raw import RawLayout

PLAIN = TextStyle()


@dataclass(frozen=True)
class ReadOptions:
    """How one input is read.

    `format` is the name of a registered format, by default that of the suffix or of the first
    bytes. `key` chooses one array of a file that holds several; `key_option` is what the user
    calls that option, or None where an input has no such option. `dtype` is for data whose file
    does not say it: text, and numbers of two bytes, which are bfloat16 with "bf16". `raw` is the
    layout of a file without a header, which has no format then. `kind` is what numbers that are
    read as logits are: "logits", "log-probs" or "probs". `columns` chooses those of a table that
    has columns. `class_names` are looked up where targets are words.
    """

    format: str | None = None
    key: str | None = None
    style: TextStyle = PLAIN
    key_option: str | None = "key"
    dtype: str = "auto"
    raw: RawLayout | None = None
    kind: str = "logits"
    columns: ColumnOptions = ALL
    class_names: tuple[str, ...] = ()

    @property
    def bfloat16(self) -> bool:
        """Whether numbers of two bytes that are no floats are bfloat16."""
        return self.dtype == "bf16"

    @property
    def probabilities(self) -> bool:
        """Whether the logits are the logarithms of the numbers."""
        return self.kind == "probs"


DEFAULT = ReadOptions()


@dataclass(frozen=True)
class WriteOptions:
    """How one array is written; `key` is its name in a file that can hold several.

    `path` is that of the output, whose suffix may ask for compression.
    """

    format: str
    style: TextStyle = PLAIN
    key: str = "array"
    path: str = ""
