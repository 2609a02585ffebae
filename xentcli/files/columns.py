"""Which columns of a table are read, in every format whose tables have columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from xentcli.errors import OptionError, plural, visible
from xentcli.records import dataclass

_NUMBERS = r"([0-9]{1,9})(?:(-)([0-9]{1,9})?)?"
_LISTED = 10  # names in a message


@dataclass(frozen=True)
class ColumnOptions:
    """The columns to keep, by default all, and those to leave out.

    Each is named, or matched by a pattern such as `logit_*`, or numbered from 1 such as `3`,
    `2-11` and `2-`. A name comes before a pattern and a number.
    """

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


ALL = ColumnOptions()


def chosen(options: ColumnOptions, names: Sequence[str], count: int, where: str) -> tuple[int, ...]:
    """The indices from 0 of the columns to read, in the order of `keep`.

    `names` are those of all `count` columns, or none where the table has no names. Errors:
    `OptionError` at `where` for what is not there, is named twice, or leaves no column.

    >>> chosen(ColumnOptions(drop=("id", "label")), ["id", "a", "b", "label"], 4, "a table")
    (1, 2)
    >>> chosen(ColumnOptions(keep=("b*", "2")), ["id", "a", "b", "label"], 4, "a table")
    (2, 1)
    >>> chosen(ColumnOptions(keep=("2-3", "4-")), [], 5, "a table")
    (1, 2, 3, 4)
    """
    finder = _Finder(names, count, where)
    kept = finder.all_of(options.keep) if options.keep else list(range(count))
    finder.require_once(kept)
    dropped = set(finder.all_of(options.drop))
    left = tuple(column for column in kept if column not in dropped)
    if not left:
        raise OptionError(where, f"all of {plural(count, 'column')} are left out")
    return left


class _Finder:
    """Finds the columns of one table by what the user wrote."""

    def __init__(self, names: Sequence[str], count: int, where: str) -> None:
        self._names, self._count, self._where = names, count, where
        self._by_name: dict[str, list[int]] = {}
        for column, name in enumerate(names):
            self._by_name.setdefault(name, []).append(column)

    def all_of(self, wanted: Sequence[str]) -> list[int]:
        """The columns of all these words."""
        return [column for word in wanted for column in self._found(word)]

    def require_once(self, columns: Sequence[int]) -> None:
        """An error for a column that is there twice."""
        seen: set[int] = set()
        for column in columns:
            if column in seen:
                name = f" ('{visible(self._names[column])}')" if self._names else ""
                raise OptionError(self._where, f"column {column + 1}{name} is chosen twice")
            seen.add(column)

    def _found(self, word: str) -> Sequence[int]:
        named = self._by_name.get(word, [])
        if len(named) > 1:
            places = ", ".join(str(column + 1) for column in named[:_LISTED])
            what = f"{len(named)} columns are called '{visible(word)}': {places}"
            raise OptionError(self._where, what, "choose by number")
        if named:
            return named
        numbers = re.fullmatch(_NUMBERS, word)
        if numbers:
            last = numbers[3] or (self._count if numbers[2] else numbers[1])
            return self._numbered(word, int(numbers[1]), int(last))
        from fnmatch import fnmatchcase  # few jobs need it

        matching = [column for column, name in enumerate(self._names) if fnmatchcase(name, word)]
        if not matching:
            raise self._unknown(word)
        return matching

    def _numbered(self, word: str, first: int, last: int) -> Sequence[int]:
        if not 1 <= first <= last <= self._count:
            what = f"there is no column {visible(word)}; they are numbered from 1 to {self._count}"
            raise OptionError(self._where, what)
        return range(first - 1, last)

    def _unknown(self, word: str) -> OptionError:
        what = f"there is no column '{visible(word)}'"
        if not self._names:
            hint = f"the columns have no names; they are numbered from 1 to {self._count}"
            return OptionError(self._where, what, hint)
        listed = ", ".join(visible(name) or "''" for name in self._names[:_LISTED])
        more = ", …" if len(self._names) > _LISTED else ""
        return OptionError(
            self._where, f"{what}; it has {listed}{more}", nearest(word, self._names)
        )


def nearest(word: str, names: Sequence[str]) -> str | None:
    """A hint at the name that was probably meant, if any is near.

    >>> nearest("Ct", ["dog", "cat"]), nearest("bird", ["dog", "cat"])
    ("did you mean 'cat'?", None)
    """
    from difflib import get_close_matches  # only errors need it

    folded = {name.casefold(): name for name in reversed(names)}
    close = get_close_matches(word[:100].casefold(), folded, n=1)
    return f"did you mean '{visible(folded[close[0]])}'?" if close else None
