"""Standard output and error of a run: they wait where they are non-blocking, and take any text."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

from xentcli.errors import FileError
from xentcli.files.descriptor import Descriptor, file_errors, is_writable, reserve_standard_streams

if TYPE_CHECKING:
    from typing_extensions import Buffer

# What stands for a character that the stream's encoding does not have.
_PLAIN = {
    "−": "-",
    "–": "-",
    "·": "*",
    "×": "x",
    "±": "+/-",
    "…": "...",
    "→": "->",
    "∞": "inf",
    "²": "^2",
    "Σ": "sum",
    "∂": "d",
    "κ": "kappa",
    "λ": "lambda",
    "δ": "delta",
    "≥": ">=",
    "ε": "eps",
    "▲": "^",
    "▼": "v",
}


def _replace(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: known symbols as ASCII; others, as in names of files, escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("unicode_escape").decode() for c in missing), error.end


ERRORS = "xent-plain"
codecs.register_error(ERRORS, _replace)


class _Output(Descriptor):
    """Standard output, which names itself in errors."""

    def write(self, data: Buffer, /) -> int:
        if not is_writable(self.fileno()):
            raise FileError("<stdout>", "standard output is closed")
        with file_errors("<stdout>", "writing"):
            return super().write(data)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Standard output and error wait, and replace characters that their encoding does not have.

    A closed standard output is one that cannot be written to: an error where there is output.
    """
    reserve_standard_streams()
    out = (
        _waiting(_Output(1, "wb", closefd=False))
        if sys.stdout is None
        else _safe(sys.stdout, _Output)
    )
    with redirect_stdout(out), redirect_stderr(_safe(sys.stderr, Descriptor)):
        yield


def _safe(stream: Any, kind: type[Descriptor]) -> Any:
    """A stream like a standard one, over the same descriptor; itself where it has none."""
    with suppress(AttributeError, OSError, ValueError):  # it is closed, or in memory
        if os.name == "posix":  # a console of Windows takes text and not bytes
            raw = kind(stream.fileno(), "wb", closefd=False)
            return _waiting(raw, stream.encoding, stream.line_buffering)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=ERRORS)
    return stream


def _waiting(raw: Descriptor, encoding: str = "utf-8", line_buffering: bool = False) -> Any:
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, ERRORS, line_buffering=line_buffering)
