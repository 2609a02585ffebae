"""Names of classes, from a list or from a file."""

from __future__ import annotations

from pathlib import Path

from xentcli.errors import FormatError, OptionError, visible
from xentcli.files.opening import open_input
from xentcli.files.text.look import cells_of

LARGEST = 1 << 26  # bytes of a file of names


def read_names(given: str) -> tuple[str, ...]:
    """The names in `a,b,c`, or in a file that has one per line or all in one line.

    >>> read_names('cat, "dog, small"')
    ('cat', 'dog, small')
    """
    if _is_file(given):
        return _in_file(given)
    if "," not in given:
        what = f"'{visible(given)}' is neither a file nor a list such as a,b,c"
        raise OptionError("names", what)
    return _checked(cells_of(given, ","), "names")


def _is_file(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or a NUL
        return False


def _in_file(path: str) -> tuple[str, ...]:
    with open_input(path) as (source, _):
        data = source.read(LARGEST + 1)
        source.verify()
        if len(data) > LARGEST:
            raise FormatError(source.name, f"is larger than {LARGEST} bytes, too many for names")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} is not UTF-8: this is no list of names"
            raise FormatError(source.name, what) from error
        lines = text.rstrip("\r\n ").split("\n")
        cells = cells_of(lines[0], ",") if len(lines) == 1 else [_first(line) for line in lines]
        return _checked(cells, source.name)


def _first(line: str) -> str:
    """The name in a line of its own, which may be quoted."""
    cells = cells_of(line, ",")
    return cells[0] if len(cells) == 1 else line.strip()


def _checked(names: list[str], where: str) -> tuple[str, ...]:
    empty = next((place for place, name in enumerate(names) if not name), None)
    if not names or empty is not None:
        what = f"name {(empty or 0) + 1} is empty; give one name for each class"
        raise OptionError(where, what)
    return tuple(names)
