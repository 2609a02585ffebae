"""Every error that xent raises on purpose, and how its text is made safe to print.

    XentError
    ├── DataError (ValueError)       exit 1: the data are wrong
    │   ├── FormatError              a file that is not what it claims to be
    │   ├── ShapeError               arrays that do not fit each other
    │   ├── DtypeError               numbers of a kind that cannot be used here
    │   ├── TargetError              targets that name no class
    │   └── StrictError              what --strict does not let pass
    ├── OptionError (ValueError)     exit 2: a value or a combination of options
    ├── UnavailableError             exit 3: something asked for is not here
    └── FileError                    exit 4: reading or writing failed

An error is raised where it is found, with WHERE (a file, or the argument's name), WHAT was
found and is allowed, and a HINT where there is something to do. It is printed in one place,
`xentcli.cli`.
"""

from __future__ import annotations


class XentError(Exception):
    """Base of all errors of xent: `where: what`, with an optional hint.

    >>> print(XentError("targets", "row 3 is 10, allowed are 0 to 9"))
    targets: row 3 is 10, allowed are 0 to 9
    """

    exit_code = 1

    def __init__(self, where: str, what: str, hint: str | None = None) -> None:
        super().__init__(where, what, hint)
        self.where = where
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class DataError(XentError, ValueError):
    """The data are wrong."""


class FormatError(DataError):
    """A file that is not what it claims to be."""


class ShapeError(DataError):
    """Arrays that do not fit each other."""


class DtypeError(DataError):
    """Numbers of a kind that cannot be used here."""


class TargetError(DataError):
    """Targets that name no class."""


class StrictError(DataError):
    """Something that is a note otherwise and an error under `--strict`."""


class OptionError(XentError, ValueError):
    """An option's value, or a combination of options, that has no meaning."""

    exit_code = 2


class UnavailableError(XentError):
    """Something asked for is not here: a device, an extra that is not installed."""

    exit_code = 3


class FileError(XentError):
    """Reading or writing failed."""

    exit_code = 4


class Shown(str):
    """Text from outside that is safe to print, told apart from the names of arguments."""

    __slots__ = ()


def visible(text: str) -> Shown:
    r"""Text from outside with every character escaped that a terminal would act on.

    >>> visible("a\x1b[31m.npy"), visible("two\nlines")
    ('a\\x1b[31m.npy', 'two\\nlines')
    """
    return Shown(
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    )


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "row"), plural(2, "row"), plural(2, "class")
    ('1 row', '2 rows', '2 classes')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"
