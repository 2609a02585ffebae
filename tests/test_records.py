"""Classes by `xentcli.records` against those of the standard library."""

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field

import pytest

from xentcli import records


def classes(decorator):
    """A class, one that inherits from it, and one that may be changed, all by one decorator."""

    @decorator(frozen=True)
    class Base:
        a: int
        b: str = "x"

    @decorator(frozen=True, kw_only=True)
    class Child(Base):
        c: list = field(default_factory=list, compare=False)
        hidden: int = field(default=3, repr=False)

        def __post_init__(self):
            object.__setattr__(self, "a", self.a + 1)

    @decorator
    class Open:
        a: int = 0

        def __repr__(self):
            return "own"

    return Base, Child, Open


OURS, STANDARD = classes(records.dataclass), classes(dataclasses.dataclass)


@pytest.mark.parametrize(
    ("ours", "standard"), [*zip(OURS, STANDARD, strict=True)], ids=["base", "child", "open"]
)
def test_it_does_what_the_standard_library_does(ours, standard):
    one, other = ours(1), standard(1)
    assert repr(one) == repr(other).replace(standard.__qualname__, ours.__qualname__)
    assert dataclasses.asdict(one) == dataclasses.asdict(other)
    for made in (one, other):
        same = type(made)(1)
        assert made == same
        assert made != type(made)(2)
        assert made != 1
        assert copy.copy(made) == copy.deepcopy(made) == made
        assert [item.name for item in dataclasses.fields(made)] == [
            item.name for item in dataclasses.fields(other)
        ]
    assert one != other
    assert (ours.__hash__ is None) == (standard.__hash__ is None)


@pytest.mark.parametrize("kinds", [OURS, STANDARD], ids=["ours", "standard"])
def test_what_is_frozen_stays_as_it_is(kinds):
    base, child, open_ = kinds
    for frozen in (base(1), child(a=1)):
        assert hash(frozen) == hash(copy.copy(frozen))
        with pytest.raises(FrozenInstanceError):
            frozen.a = 5
        with pytest.raises(FrozenInstanceError):
            frozen.unknown = 5
        with pytest.raises(FrozenInstanceError):
            del frozen.a
        assert frozen == type(frozen)(a=1)
        assert dataclasses.replace(frozen, b="y").b == "y"
    changed = open_(1)
    changed.a = 5
    assert changed.a == 5
    with pytest.raises(TypeError):
        hash(changed)
    with pytest.raises(TypeError):
        base()


def test_fields_that_are_not_compared_or_shown():
    child = OURS[1]
    assert child(a=1, c=[1]) == child(a=1, c=[2])
    assert repr(child(a=1, hidden=9)).endswith("Child(a=2, b='x', c=[])")
    assert child(a=1, hidden=9) != child(a=1)
    assert child(a=1) != OURS[0](2)


@records.dataclass(frozen=True)
class Kept:
    """At the top of a module, so that it can be pickled."""

    a: int


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(Kept(3))) == Kept(3)
