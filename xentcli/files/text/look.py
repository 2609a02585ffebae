"""What the first bytes of a text say: the delimiter, and whether the first line holds names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress

from xentcli.errors import Words
from xentcli.files.class_names import ClassNames
from xentcli.files.text.style import TextStyle
from xentcli.records import dataclass

BYTES = 1 << 16  # that are looked at
_LINES = 50
_SHOWN = {"\t": "tab", ",": "comma"}


@dataclass(frozen=True)
class Look:
    """What was found; `remarks` say what was guessed."""

    delimiter: str
    header: bool
    remarks: tuple[Words, ...] = ()


def is_number(cell: str) -> bool:
    """Whether a cell is a number, with any decimal mark.

    >>> [is_number(cell) for cell in ("1e5", "-1,5", "nan", "1_0", "")]
    [True, True, True, False, False]
    """
    if "_" in cell or not cell.isascii():
        return False
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _is_name(cell: str) -> bool:
    """Whether a cell can be a name: printable UTF-8 with a letter, and neither nan nor inf."""
    is_text = cell.replace("\n", " ").isprintable() and "\ufffd" not in cell
    return is_text and not is_number(cell) and any(map(str.isalpha, cell))


def counts(cells: Sequence[str]) -> bool:
    """Whether cells are 0, 1, 2, … or 1, 2, 3, …"""
    return (
        bool(cells)
        and cells[0] in ("0", "1")
        and list(cells) == [str(int(cells[0]) + place) for place in range(len(cells))]
    )


def rows_of(start: bytes, delimiter: str, count: int = _LINES) -> list[list[str]]:
    r"""The cells of the first lines that are complete; of the only line, those that are.

    >>> rows_of(b'"a, b",c\n1,2\n3,4', ","), rows_of(b"1,2,3", ",")
    ([['a, b', 'c'], ['1', '2']], [['1', '2']])
    """
    found = _lines(start.decode("utf-8-sig", "replace"), count)
    rows = [cells_of(line, delimiter) for line in found[:count]]
    if 1 < len(found) <= count:
        rows.pop()
    elif len(found) == 1 and rows[0]:
        rows[0].pop()
    return [row for row in rows if row]


def _lines(text: str, count: int) -> list[str]:
    """The first lines, and what follows as one more; a line feed in quotes ends none."""
    start, lines = 0, list[str]()
    while len(lines) < count:
        end = text.find("\n", start)
        while end >= 0 and text.count('"', start, end) % 2:
            end = text.find("\n", end + 1)
        if end < 0:
            break
        lines.append(text[start:end])
        start = end + 1
    return [*lines, text[start:]]


def cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of a line, without quotes; none of a blank line, and where it is no CSV."""
    line = line.strip(" \r\n") if delimiter == " " else line.rstrip("\r\n")
    with suppress(csv.Error):
        reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
        return [cell.strip() for cell in next(reader, [])]
    return []


def look(start: bytes, style: TextStyle, default: str, classes: ClassNames) -> Look:
    """What the first bytes say where the options do not; `classes` may occur as targets.

    `start` ends with a line feed where it is the whole text.
    """
    usual = ";" if style.decimal == default else default
    delimiter, remarks = style.delimiter or _delimiter(start, usual, style.decimal), []
    if not style.delimiter and delimiter != usual:
        found, missing = (_SHOWN.get(sign, f"'{sign}'") for sign in (delimiter, usual))
        what = f"the first lines have no {missing}, and the delimiter seems to be {found}; "
        remarks.append((what, style.option("delimiter", delimiter), " says so"))
    header = style.header == "yes"
    if style.header == "auto":
        header = _is_header(rows_of(start, delimiter, 2), classes)
    return Look(delimiter, header, tuple(remarks))


def _delimiter(start: bytes, usual: str, decimal: str) -> str:
    """The usual one where it occurs, else what parts the lines into equal numbers of numbers."""
    if any(usual.encode() in line for line in start.split(b"\n", _LINES)[:_LINES]):
        return usual
    others = (sign for sign in "\t; ," if sign not in (usual, decimal))
    return next((sign for sign in others if _parts(rows_of(start, sign))), usual)


def _parts(rows: list[list[str]]) -> bool:
    """Whether lines have the same number of cells, most of them numbers, but for a header."""
    head, body = rows[:1], rows[1:]
    if not head or (not body and not all(map(is_number, head[0]))):
        return False
    body = body or head
    width = len(body[0])
    shorter = len(head[0]) == width - 1 and not any(map(is_number, head[0]))  # R's header
    same = all(len(row) == width for row in body) and (len(head[0]) == width or shorter)
    numbers = min(sum(map(is_number, row)) for row in body)
    return same and width > 1 and 2 * numbers > width


def _is_header(rows: list[list[str]], classes: ClassNames) -> bool:
    """Whether the first line holds names: all cells are there, with letters, and no number.

    The first may be empty: it stands above the names or numbers of the rows. So may the last, where
    a delimiter ends each line.
    """
    if not rows:
        return False
    head, body = rows[0], rows[1:]
    cells = head if head[0] else head[1:]
    if len(cells) < len(head) and counts(cells):  # pandas numbers columns that have no names
        return True
    cells = cells if cells[-1:] != [""] else cells[:-1]
    if not cells or not all(map(_is_name, cells)):
        return False
    is_data = all(cell in classes for cell in head)  # targets that are words
    return not is_data or any(all(map(is_number, row)) for row in body)
