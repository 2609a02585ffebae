"""The options of the loss: defaults, allowed values and help texts, declared once.

The command line and the Python functions are both made from these classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from functools import lru_cache, wraps
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from xentcli.errors import OptionError, Setting, shown
from xentcli.records import dataclass

T = TypeVar("T")

Reduction: TypeAlias = Literal["mean", "sum", "none"]
EmptyMean: TypeAlias = Literal["nan", "zero", "error"]
TargetKind: TypeAlias = Literal["auto", "index", "probs"]
Backend: TypeAlias = Literal["auto", "numpy", "cpu", "cuda"]
Divergence: TypeAlias = Literal["ce", "forward-kl", "reverse-kl", "jsd"]
Tail: TypeAlias = Literal["bucket", "uniform", "subset", "teacher", "drop"]
TeacherKind: TypeAlias = Literal["logits", "log-probs", "probs", "counts"]
TeacherClasses: TypeAlias = Literal["same", "pad"]

# The rules of options that are not fields of the classes below.
BACKEND = {"choices": get_args(Backend)}
THREADS = {"integer": True, "low": 1}
BOOLEAN = {"boolean": True}


def setting(default: Any, help: str, **rule: Any) -> Any:
    """A dataclass field with its help text and rule: `choices`, or a range `low`, `high`, `above`.

    `integer` is for whole numbers, `boolean` for true and false; `infinite` lets infinity pass.

    `group` is the heading under which `--help` lists it, `flag` its name on the command line
    where that is not the field's. With `saved` the command line also takes it from a file that a
    command wrote.
    """
    return field(default=default, metadata={"help": help, **rule})


def same_as(cls: type, name: str, **changes: Any) -> Any:
    """A dataclass field declared as the one of that name in another class."""
    found = next(item for item in fields(cls) if item.name == name)
    return field(default=found.default, metadata={**found.metadata, **changes})


@dataclass(frozen=True)
class LossOptions:
    """The scalar options of the loss; arrays such as weights are in `Extras`.

    >>> LossOptions(label_smoothing=0.1).reduction
    'mean'
    >>> LossOptions(label_smoothing=2)
    Traceback (most recent call last):
    xentcli.errors.OptionError: label_smoothing: 2 is not allowed; expected a number from 0 to 1
    """

    reduction: Reduction = setting(
        "mean",
        "Reduce the losses to their mean or sum, or keep one per row (none).",
        group="Loss",
        choices=get_args(Reduction),
    )
    ignore_index: int = setting(-100, "Ignore rows with this target.", group="Loss", integer=True)
    label_smoothing: float = setting(
        0.0,
        "Fraction of the target spread evenly over all classes.",
        group="Loss",
        low=0.0,
        high=1.0,
    )
    temperature: float = setting(
        1.0, "Divide the logits by this value.", group="Logits", above=0.0, saved=True
    )
    softcap: float | None = setting(
        None,
        "Cap the logits at ±F: z = F·tanh(z/F), after the temperature.",
        group="Logits",
        above=0.0,
    )
    z_loss: float = setting(
        0.0,
        "Add F times logsumexp² to each row's loss.",
        group="Loss",
        low=0.0,
    )
    normalizer: float | None = setting(
        None, "Denominator of the mean; computed from the data by default.", group="Loss", above=0.0
    )
    empty_mean: EmptyMean = setting(
        "nan", "Mean when every row is ignored.", group="Loss", choices=get_args(EmptyMean)
    )
    target_kind: TargetKind = setting(
        "auto",
        "Whether targets are class indices or probabilities; auto decides by shape.",
        group="Loss",
        choices=get_args(TargetKind),
        flag="targets",
    )
    class_axis: int | None = setting(
        None,
        "Class axis; by default inferred from the shapes, or the last one.",
        group="Logits",
        integer=True,
    )

    def __post_init__(self) -> None:
        require_allowed(self)
        if self.normalizer is not None and self.reduction != "mean":
            raise OptionError(
                "normalizer", f"applies to the reduction mean only, not to {self.reduction}"
            )


@dataclass(frozen=True)
class LogitsOptions:
    """Those of the options that softmax has too."""

    temperature: float = same_as(LossOptions, "temperature")
    softcap: float | None = same_as(LossOptions, "softcap")
    class_axis: int | None = same_as(
        LossOptions, "class_axis", help="Class axis; by default the last one."
    )

    def __post_init__(self) -> None:
        require_allowed(self)


@dataclass(frozen=True)
class TeacherOptions:
    """The options of soft targets from a teacher; its arrays are in `Teacher`.

    What would change the result and cannot be told from the arrays has no default: the loss itself,
    what the numbers are, and what the classes are that a row does not store.
    """

    teacher_kind: TeacherKind | None = setting(
        None,
        "What the teacher's numbers are; integers are counts.",
        group="Teacher",
        choices=get_args(TeacherKind),
    )
    divergence: Divergence | None = setting(
        None,
        "Loss against the teacher's probabilities q: ce, KL(q, p), KL(p, q), or jsd of both.",
        group="Teacher",
        choices=get_args(Divergence),
    )
    beta: float | None = setting(
        None, "Weight of the teacher in jsd, between 0 and 1.", group="Teacher", low=0.0, high=1.0
    )
    tail: Tail | None = setting(
        None,
        "Meaning of the classes that a top-K teacher does not store: one class, an even share, "
        "left out with renormalising both or the teacher only, or nothing.",
        group="Teacher",
        choices=get_args(Tail),
    )
    alpha: float = setting(
        1.0,
        "Weight of the loss against the teacher; the rest is that of the loss with TARGETS, at "
        "temperature 1.",
        group="Teacher",
        low=0.0,
        high=1.0,
    )
    scale_t2: bool = setting(
        False,
        "Multiply the loss against the teacher by the squared temperature.",
        group="Teacher",
        boolean=True,
    )
    teacher_temperature: float | None = setting(
        None,
        "Divide the teacher's logits by this value; by default that of the student.",
        group="Teacher",
        above=0.0,
    )
    teacher_classes: TeacherClasses = setting(
        "same",
        "Whether the teacher has the classes of the logits; pad gives those that one of them "
        "lacks the probability 0.",
        group="Teacher",
        choices=get_args(TeacherClasses),
    )

    def __post_init__(self) -> None:
        require_allowed(self)
        if self.divergence == "jsd" and self.beta in (0, 1):
            limit = "reverse-kl" if self.beta else "forward-kl"
            what = f"{self.beta:g} is not allowed: jsd is 0 there whatever the logits are"
            raise OptionError("beta", what, ("use ", Setting("divergence", limit)))


def require_allowed(options: Any) -> None:
    """Put the options of a dataclass into Python's own types; an error for one out of range."""
    for item in fields(options):
        value = getattr(options, item.name)
        if "help" in item.metadata and not (value is None and item.default is None):
            object.__setattr__(options, item.name, allowed(item.name, value, item.metadata))


PYTHONS_OWN = frozenset({str, int, float, bool, type(None)})


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """A function of positional arguments that is called again only for those it has not had.

    Only arguments of Python's own immutable types are looked up; others may compare in any way.

    >>> double = remembered(lambda value: 2 * value)
    >>> double(2), double(2.0), double(True)
    (4, 4.0, 2)
    """
    known = lru_cache(maxsize=256, typed=True)(function)

    @wraps(function)
    def call(*arguments: Any) -> T:
        plain = PYTHONS_OWN.issuperset(map(type, arguments))
        return known(*arguments) if plain else function(*arguments)

    return call


def allowed(name: str, value: Any, rule: Mapping[str, Any]) -> Any:
    """An option's value in Python's own type; an `OptionError` where its rule forbids it.

    Scalars of NumPy and other libraries are taken as Python's.

    >>> allowed("threads", 2.0, THREADS), allowed("grad", 0, BOOLEAN)
    (2, False)
    >>> allowed("threads", "2", THREADS)
    Traceback (most recent call last):
    xentcli.errors.OptionError: threads: '2' is not allowed; expected an integer, at least 1
    """
    found, cause, kind = None, None, type(value)
    if (kind is bool and "boolean" in rule) or (kind is str and value in rule.get("choices", ())):
        return value  # as usual
    try:
        found = _converted(value, rule)
    except Exception as error:  # noqa: BLE001 (a caller's object may raise anything)
        cause = error
    if found is None:
        what = f"{shown(value)} is not allowed; expected {rule_text(rule)}"
        raise OptionError(name, what) from cause
    return found


def _converted(value: Any, rule: Mapping[str, Any]) -> Any:
    """The value as its rule wants it; None where it is not allowed."""
    if "choices" in rule:
        choices = rule["choices"] if isinstance(value, str) else ()
        return choices[choices.index(value)] if value in choices else None
    if hasattr(value, "dtype"):
        if value.shape != () or hasattr(value, "mask"):
            return None
        value = value.item()
    if rule.get("boolean"):
        return bool(value) if isinstance(value, int) and value in (0, 1) else None
    numeric = hasattr(value, "__float__") or hasattr(value, "__index__")
    if isinstance(value, bool) or not numeric:  # float() and int() take text too
        return None
    number = float(value)
    if not _between(number, rule):
        return None
    if not rule.get("integer"):
        return number + 0.0  # never −0.0
    return int(value) if int(value) == value else None


def _between(number: float, rule: Mapping[str, Any]) -> bool:
    inside = rule.get("low", -math.inf) <= number <= rule.get("high", math.inf)
    finite = math.isfinite(number) or (rule.get("infinite") and number == math.inf)
    return bool(inside and finite and number > rule.get("above", -math.inf))


def rule_text(rule: Mapping[str, Any]) -> str:
    """A field's rule in words, for errors and help.

    >>> rule_text({"low": 0.0, "high": 1.0}), rule_text({"above": 0.0})
    ('a number from 0 to 1', 'a finite number above 0')
    """
    if "choices" in rule:
        *others, last = rule["choices"]
        return f"{', '.join(others)} or {last}"
    if rule.get("boolean"):
        return "True or False"
    if rule.get("integer"):
        return f"an integer, at least {rule['low']}" if "low" in rule else "an integer"
    if "high" in rule:
        return f"a number from {rule['low']:g} to {rule['high']:g}"
    if "above" in rule:
        return f"a finite number above {rule['above']:g}"
    kind = "number" if rule.get("infinite") else "finite number"
    return f"a {kind}, at least {rule['low']:g}"
