"""Targets that are words: the index of the class that each names."""

from __future__ import annotations

from collections.abc import Sequence

from xentcli.errors import FormatError, Words, visible
from xentcli.files.columns import nearest

SHOWN = 40  # characters of a word in a message


class ClassNames:
    """The names of the classes in order, by which words are looked up.

    >>> names = ClassNames(["cat", "dog"])
    >>> names.index("dog"), names.index("dgo")
    (1, None)
    >>> names.unknown("dgo", "t.csv", "line 3: ")
    FormatError('t.csv', "line 3: 'dgo' is not a class name", "did you mean 'dog'?")
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._indices: dict[str, int] = {}
        self._twice: set[str] = set()
        for index, name in enumerate(names):
            if self._indices.setdefault(name, index) != index:
                self._twice.add(name)

    def __contains__(self, word: str) -> bool:
        return word in self._indices

    def index(self, word: str) -> int | None:
        """The index of the class with this name; None if none has it, or several have."""
        return None if word in self._twice else self._indices.get(word)

    def unknown(self, word: str, where: str, place: str = "") -> FormatError:
        """The error for a word that has no index; it begins with `place`, where it was found."""
        shown = visible(word[:SHOWN])
        if word in self._twice:
            what = f"{place}several classes are called '{shown}'"
            return FormatError(where, what, "give each class a name of its own")
        hint: Words | None = nearest(word, self.names)
        if hint is None:
            listed = ", ".join(map(visible, self.names[:5]))
            hint = f"the classes are {listed}{', …' if len(self.names) > 5 else ''}"
        return FormatError(where, f"{place}'{shown}' is not a class name", hint)
