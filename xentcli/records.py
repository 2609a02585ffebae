"""`dataclass` of the standard library, for the classes that every command defines when it starts.

The library compiles up to seven methods for each class, 0.3 ms for a frozen one, and a command
defines sixty. Here `__init__` alone is compiled, and the other methods are the same for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # what type checkers know
else:

    def dataclass(cls=None, /, *, frozen=False, **settings):
        """A class with fields, as by `dataclasses.dataclass` (without `order` and `slots`).

        >>> @dataclass(frozen=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> Point(1), Point(1) == Point(1, 0), {Point(1): "one"}[Point(1)]
        (Point(x=1, y=0), True, 'one')
        >>> Point(1).x = 2
        Traceback (most recent call last):
        dataclasses.FrozenInstanceError: cannot assign to field 'x'
        """
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, **settings)
        own = {"__repr__": _repr, "__eq__": _eq, "__hash__": _hash if frozen else None}
        if frozen:
            own |= {"__setattr__": _set_once, "__delattr__": _refuse}
        for name, method in own.items():
            if name not in cls.__dict__:
                setattr(cls, name, method)
        made = dataclasses.dataclass(cls, repr=False, eq=False, **settings)
        made._values = _values_of(made)
        return made


def _repr(self: Any) -> str:
    shown = [item.name for item in dataclasses.fields(self) if item.repr]
    text = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({text})"


def _values_of(cls: Any) -> Callable[[Any], Any]:
    """A function that takes what tells objects of a class apart."""
    names = [item.name for item in dataclasses.fields(cls) if item.compare]
    return attrgetter(*names or ["__class__"])  # no method, so it is called with the object


def _eq(self: Any, other: object) -> bool:
    same = type(other) is type(self)
    return self._values(self) == self._values(other) if same else NotImplemented


def _hash(self: Any) -> int:
    return hash(self._values(self))


def _set_once(self: Any, name: str, value: object) -> None:
    """What `__init__` uses: each field is assigned once."""
    if name in self.__dict__ or name not in self.__dataclass_fields__:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    self.__dict__[name] = value


def _refuse(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
