"""The exceptions that xent raises, and helpers that make their text safe to print.

    XentError
    ├── DataError (ValueError)       exit 1: invalid data
    │   ├── FormatError              a malformed file, or a file of another format
    │   ├── ShapeError               shapes that do not match
    │   ├── DtypeError               an unsupported dtype
    │   ├── TargetError              class indices out of range, or not integers
    │   └── StrictError              a note that strict mode turns into an error
    ├── OptionError (ValueError)     exit 2: an invalid option, or options that exclude each other
    ├── UnavailableError             exit 3: a device, backend or extra that is not available
    └── FileError                    exit 4: reading or writing failed

Each carries WHERE (a file, or an argument's name), WHAT was found and what is allowed, and a HINT
if there is something to do about it. They are printed in one place, `xentcli.cli`.

Options inside a message are `Setting`s, not text: Python callers read `ignore_index=255`, users
of the command line `--ignore-index 255`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

SHOWN = 40  # characters of a caller's value in a message
REASON = 300  # characters of another library's message


@dataclass(frozen=True)
class Setting:
    """An option inside a message, with its value where one is meant.

    `in_python` is what to write in Python where that is not the same option.

    >>> Setting("reduction", "none").python(), Setting("ignore_index").python()
    ("reduction='none'", 'ignore_index')
    """

    name: str
    value: str | bool | int | float | None = None
    in_python: str | None = None

    def python(self) -> str:
        """The option as a keyword argument."""
        if self.in_python is not None:
            return self.in_python
        return self.name if self.value is None else f"{self.name}={self.value!r}"


Words: TypeAlias = "str | tuple[str | Setting, ...]"
Speak: TypeAlias = Callable[[Setting], str]


def worded(words: Words, speak: Speak = Setting.python) -> str:
    """A message as text that is safe to print, its settings written by `speak`.

    >>> worded(("use ", Setting("class_axis", 1), " or ", Setting("class_axis", -1)))
    'use class_axis=1 or class_axis=-1'
    """
    parts = (words,) if isinstance(words, str) else words
    return visible("".join(part if isinstance(part, str) else speak(part) for part in parts))


class XentError(Exception):
    """Base of all errors of xent: `where: what`, with an optional hint.

    >>> print(XentError("targets", "row 3 is 10, allowed are 0 to 9"))
    targets: row 3 is 10, allowed are 0 to 9
    >>> print(DataError("upstream", "3 numbers", ("use ", Setting("reduction", "none"))))
    upstream: 3 numbers (use reduction='none')
    """

    exit_code = 1

    def __init__(self, where: str, what: Words, hint: Words | None = None) -> None:
        super().__init__(where, what, hint)
        self.where = where
        self._what, self._hint = what, hint

    @property
    def what(self) -> str:
        """What was found and what is allowed, for Python callers."""
        return worded(self._what)

    @property
    def hint(self) -> str | None:
        """What to do about it, for Python callers."""
        return worded(self._hint) if self._hint else None

    def in_words(self, speak: Speak) -> tuple[str, str | None]:
        """What and hint, with options written by `speak`."""
        return worded(self._what, speak), worded(self._hint, speak) if self._hint else None

    def __str__(self) -> str:
        return f"{visible(self.where)}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class DataError(XentError, ValueError):
    """Invalid data."""


class FormatError(DataError):
    """A malformed file, or a file of another format."""


class ShapeError(DataError):
    """Shapes that do not match."""


class DtypeError(DataError):
    """An unsupported dtype."""


class TargetError(DataError):
    """Class indices out of range, or not integers."""


class StrictError(DataError):
    """A note that strict mode turns into an error."""


class OptionError(XentError, ValueError):
    """An invalid option, or options that exclude each other."""

    exit_code = 2


class UnavailableError(XentError):
    """A device, backend or optional dependency that is not available."""

    exit_code = 3


class FileError(XentError):
    """Reading or writing failed."""

    exit_code = 4


class SafeText(str):
    """Untrusted text, escaped for printing; the type tells it from the names of arguments."""

    __slots__ = ()


_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>]*)")
_LOGIN = re.compile(r"^(?:[^/@?#]*:[^\s]*|[^/?#]*)@")  # a password may hold any character


def visible(text: str) -> SafeText:
    r"""Untrusted text with control characters escaped, and addresses without their secrets.

    >>> visible("a\x1b[31m.npy"), visible("two\nlines")
    ('a\\x1b[31m.npy', 'two\\nlines')
    >>> visible("https://me:secret@host/x.zarr?token=secret: no such file")
    'https://***@host/x.zarr?***: no such file'
    """
    if "://" in text:
        text = _ADDRESS.sub(_without_secrets, text)
    return SafeText(
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    )


def _without_secrets(found: re.Match[str]) -> str:
    """An address without its user, password and query, which signed addresses have."""
    rest, query, _ = _LOGIN.sub("***@", found[2]).partition("?")
    colon = ":" if found[2].endswith(":") and query else ""
    return f"{found[1]}{rest}{query and '?***'}{colon}"


def shown(value: object) -> SafeText:
    """A caller's value in a message: its repr on one line, cut short; its type where that fails.

    >>> shown(2.5), shown("x" * 100)
    ('2.5', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…")
    """
    try:
        line = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 (a caller's object may raise anything)
        line = f"this {type(value).__name__}"
    return visible(line if len(line) <= SHOWN else line[:SHOWN] + "…")


def reason(error: BaseException) -> SafeText:
    r"""What another library's exception says, on one line; its type where it says nothing.

    >>> reason(ValueError("two\n  lines")), reason(KeyError())
    ('two lines', 'KeyError')
    """
    try:
        line = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 (a caller's exception may raise anything)
        line = ""
    return visible(line[:REASON] or type(error).__name__)


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that there is too little memory.

    Libraries that cannot be loaded for that reason raise an ImportError or an OSError.

    >>> lacks_memory(ImportError("libx.so: failed to map segment from shared object"))
    True
    >>> lacks_memory(ImportError("No module named 'x'"))
    False
    """
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if any(words in str(error) for words in ("failed to map segment", "allocate memory")):
            return True
        error = error.__cause__ or error.__context__
    return False


def plural(count: int, noun: str) -> str:
    """A count with its noun, singular or plural.

    >>> plural(1, "row"), plural(2, "row"), plural(2, "class")
    ('1 row', '2 rows', '2 classes')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"
