"""The errors for cells that are not numbers: where they are, and what was probably meant."""

from __future__ import annotations

import re

from xentcli.errors import FormatError, Setting, Words, plural, visible
from xentcli.files.class_names import ClassNames
from xentcli.files.text.cells import NUMBER
from xentcli.files.text.dialect import Dialect, unquoted
from xentcli.files.text.look import cells_of
from xentcli.files.text.parsing import LONGEST, Cells, Place
from xentcli.files.text.style import TextStyle
from xentcli.records import dataclass

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_MISSING = ("na", "n/a", "#n/a", "null", "none")  # of R, spreadsheets, databases, Python
_SIGNS = ((";", "';'"), ("\t", "tab"), (" ", "' '"), ("|", "'|'"), (",", "','"))


@dataclass(frozen=True)
class Mistakes:
    """Makes the errors of one table; `names` are those of its columns, if it has a header."""

    where: str
    style: TextStyle
    dialect: Dialect
    classes: ClassNames
    names: tuple[str, ...] = ()

    def of(self, start: Place, piece: bytes, cells: Cells, bad: int) -> FormatError:
        """The error for a cell that is not a number, in a piece that begins at `start`."""
        place = start.after(piece[: cells.starts[bad]], cells.before(bad))
        raw = piece[cells.starts[bad] : cells.ends[bad]]
        line = f"line {place.line}"
        at = f"{line}, column {place.column + 1}"
        if len(raw) > LONGEST and raw[:1] == b'"':
            return FormatError(self.where, f"{at}: a quote that is not closed")
        if len(raw) > LONGEST:
            return FormatError(self.where, f"{at}: more than {LONGEST} characters are no number")
        ends_line = piece[cells.ends[bad] :].lstrip(b" ")[:1] == b"\n"
        if ends_line and not place.column and not raw.strip(b" \r"):
            return FormatError(self.where, f"{line} is blank")
        if b"\r" in raw:
            return FormatError(self.where, f"{line}: a carriage return without a line feed")
        if b"\0" in raw:
            byte = place.byte + raw.index(0) + 1
            return FormatError(self.where, f"{line}: a NUL byte in column {byte} of the line")
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = place.byte + error.start + 1
            return FormatError(self.where, f"{line}: byte {byte} is not UTF-8", "save it as UTF-8")
        return self._not_a_number(raw, at, (place, ends_line))

    def _not_a_number(self, raw: bytes, at: str, around: tuple[Place, bool]) -> FormatError:
        """The error for a cell of at most LONGEST characters."""
        cell, number = raw.decode().strip(" "), self.dialect.marked(raw).text.decode().strip(" ")
        if not number:
            last = around[1] and around[0].column  # a delimiter may end every line
            hint = self._drops(around[0].column) if last and self.style.has_columns else None
            return FormatError(self.where, f"{at}: an empty field", hint)
        if NUMBER.fullmatch(number):
            what = f"{at}: {visible(cell[:40])} is out of the range of float64"
            return FormatError(self.where, what)
        if raw.count(b'"') % 2:
            what = f"{at}: '{visible(cell[:40])}' has a quote that is not closed"
            return FormatError(self.where, what)
        sign_hint = self._of_signs(cell, *around)
        if sign_hint is None and self.classes.names:
            return self.classes.unknown(unquoted(raw), self.where, f"{at}: ")
        word_hint = sign_hint or self._of_word(cell.strip('"'), *around)
        return FormatError(self.where, f"{at}: '{visible(cell[:40])}' is not a number", word_hint)

    def _of_signs(self, cell: str, place: Place, ends_line: bool) -> Words | None:
        """What to do about another delimiter or decimal mark than was expected."""
        if _DECIMAL_COMMA.fullmatch(cell):
            return self._decimal_comma()
        for sign, name in _SIGNS:
            parts = cells_of(cell, sign)
            known = sign.encode() in (self.dialect.delimiter, self.dialect.decimal)
            if known or len(parts) < 2 or not all(map(NUMBER.fullmatch, parts)):
                continue
            is_line = ends_line and not place.column
            if not is_line and sign in ";\t" and all(map(_INTEGER.fullmatch, parts)):
                return self._decimal_comma()  # 1,5;2,5 has the cell 5;2
            return f"the delimiter seems to be {name}: ", self.style.option("delimiter", sign)
        return None

    def _decimal_comma(self) -> Words | None:
        what = "the numbers seem to have decimal commas: "
        return (what, self.style.option("decimal", ",")) if self.style.decimal == "." else None

    def of_header(self, count: int, width: int, line: str) -> FormatError:
        """The error for a first line of `count` names above a line of `width` cells."""
        what = f"line 1 has {plural(count, 'name')}, and the next line {plural(width, 'field')}"
        skips = self.style.option("header", "yes"), " skips line 1"
        hint: Words | None = skips if self.style.has_columns else None
        rows = [cells for sign in ";\t" if (cells := cells_of(line, sign))[1:]]
        if any(_DECIMAL_COMMA.fullmatch(cell) for row in rows for cell in row):
            hint = self._decimal_comma() or hint
        return FormatError(self.where, what, hint)

    def _drops(self, column: int) -> tuple[str | Setting, ...]:
        """How to leave a column out."""
        name = self.names[column] if column < len(self.names) else ""
        what = f" leaves column {column + 1} out"
        return self.style.option("drop", name or str(column + 1)), what

    def _of_word(self, word: str, place: Place, ends_line: bool) -> Words | None:
        """What to do about a word, in a column of words or in a header."""
        if word.casefold() in _MISSING and place.line > 1:
            return "for a missing number write nan, or leave the row out"
        if not word[:1].isalpha() and word[:1] not in "_#":
            return None
        if self.style.of_targets:
            hint = "if it names a class, give the names: ", Setting("names"), " FILE or a,b,c"
            return None if self.classes.names else hint
        if not self.style.has_columns:
            return None
        is_only = ends_line and not place.column  # without it nothing is left
        drops = () if is_only else self._drops(place.column)
        if place.line > 1 or self.style.header == "yes":
            return drops or None
        comma = (", ",) if drops else ()
        return (*drops, *comma, self.style.option("header", "yes"), " skips line 1")
