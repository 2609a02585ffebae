"""The signs of a table: its delimiter, its decimal mark, and quotes (RFC 4180)."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.records import dataclass

_QUOTE, _LINE, _RETURN, _BLANK = b'"\n\r '
_OTHER = ord("_")  # stands for a sign that is part of a cell, and of no number
_END = b"\x1f"  # ends a cell in marked text where a blank is the delimiter


@dataclass(frozen=True)
class Marked:
    """Text in which only numbers can be told: as long as the text that it stands for.

    `end` ends a cell. With `runs` several in a row count as one.
    """

    text: bytes
    end: bytes
    runs: bool = False


@dataclass(frozen=True)
class Dialect:
    """A delimiter and a decimal mark; quotes are always understood.

    A quote that is not closed hides all delimiters and line feeds that follow.
    """

    delimiter: bytes = b","
    decimal: bytes = b"."

    def marked(self, text: bytes) -> Marked:
        """Text without quotes, with points as decimal marks; it begins with a cell.

        >>> Dialect(b";", b",").marked(b'"a;b";1,5;"2"').text
        b' a_b ;1.5; 2 '
        """
        end, runs = self.delimiter, self.delimiter == b" "
        if b'"' in text:
            text, end = _unquoted(text, self.delimiter[0]), _END if runs else end
        if self.decimal != b".":
            text = text.translate(self._points)
        return Marked(text, end, runs)

    @cached_property
    def _points(self) -> bytes:
        """The decimal mark becomes a point, and a point no part of a number."""
        return bytes.maketrans(self.decimal + b".", b"." + bytes([_OTHER]))


def _unquoted(text: bytes, delimiter: int) -> bytes:
    """Text without delimiters in quotes, and without the quotes around a whole cell."""
    signs = np.frombuffer(text, np.uint8).copy()
    is_quote, is_line, is_delimiter = signs == _QUOTE, signs == _LINE, signs == delimiter
    inside = np.cumsum(is_quote) % 2 == 1
    ends = (is_line | is_delimiter) & ~inside
    quotes = _around_cells(np.flatnonzero(is_quote), inside, ends, signs)
    if delimiter == _BLANK:
        signs[signs == _END[0]] = _OTHER
        signs[ends & is_delimiter] = _END[0]
    signs[inside & (is_delimiter | is_line | (signs == _RETURN))] = _OTHER
    signs[quotes] = _BLANK
    return signs.tobytes()


def _around_cells(places: Array, inside: Array, ends: Array, signs: Array) -> Array:
    """The quotes, of those at some places, that stand at the beginning and the end of a cell.

    A blank may come before the first, as after a comma in a sentence.
    """
    begins = np.append(True, ends[:-1])
    begins[1:] |= begins[:-1] & (signs[:-1] == _BLANK)
    opens = inside[places]
    pairs = np.flatnonzero(opens[:-1] & ~opens[1:])
    first, last = places[pairs], places[pairs + 1]
    finishes = np.append(ends | (signs == _RETURN), True)[last + 1]
    whole = begins[first] & finishes
    return np.concatenate([first[whole], last[whole]])


def unquoted(cell: bytes) -> str:
    """What a cell says: without blanks and quotes around it.

    >>> unquoted(b' "a ""b"" c" '), unquoted(b"a ")
    ('a "b" c', 'a')
    """
    text = cell.decode("utf-8", "replace").strip(" \r")
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"').strip()
    return text
