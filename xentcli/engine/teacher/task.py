"""A teacher's arrays and options, checked against the logits before any number is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from xentcli.arrays.dtypes import BF16, name_of
from xentcli.arrays.layout import Layout, Shape
from xentcli.backends.teacher import Divergence, Kind, Tail, TeacherScalars
from xentcli.engine.problem import Extras
from xentcli.errors import DtypeError, OptionError, Setting, ShapeError, plural
from xentcli.options import LossOptions, TeacherKind, TeacherOptions

DIVERGENCES = {
    "ce": Divergence.CE,
    "forward-kl": Divergence.FORWARD_KL,
    "reverse-kl": Divergence.REVERSE_KL,
    "jsd": Divergence.JSD,
}
KINDS = {
    "logits": Kind.LOGITS,
    "log-probs": Kind.LOG_PROBS,
    "probs": Kind.PROBS,
    "counts": Kind.PROBS,  # divided by their sum before a kernel gets them
}
TAILS = {
    "bucket": (
        Tail.BUCKET,
        "all others are one class (TRL by default, verl, DistillKit symmetric)",
    ),
    "uniform": (Tail.UNIFORM, "the rest of the mass is spread evenly over them (mlx-kld)"),
    "subset": (Tail.SUBSET, "both are renormalised on the stored ones (TRL without tail, MaxText)"),
    "teacher": (Tail.TEACHER, "only the teacher is renormalised (DistillKit zero)"),
    "drop": (Tail.DROP, "nothing (Megatron by default, verl before its PR 7855)"),
}


class Described(Protocol):
    """An array of which shape and dtype are known: in memory, or a reader."""

    @property
    def shape(self) -> Shape:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""


@dataclass(frozen=True)
class TeacherTask:
    """What is to be computed of a teacher's arrays.

    `columns` is how many numbers of it a row has, of `dtype`: C, or K where `top`, which has
    indices. `factor` multiplies its loss.
    """

    options: TeacherOptions
    scalars: TeacherScalars
    kind: TeacherKind
    layout: Layout
    columns: int
    top: bool
    has_rest: bool
    factor: float
    dtype: np.dtype[Any]

    @property
    def hard_share(self) -> float:
        """What multiplies the cross-entropy with the hard targets."""
        return 1 - self.options.alpha

    @property
    def partial(self) -> bool:
        """Whether a known part of the teacher's probability is stored."""
        return self.top and self.kind in ("log-probs", "probs")


def task_of(
    layout: Layout,
    arrays: Sequence[Described],
    loss: LossOptions,
    teacher: TeacherOptions,
    extras: Extras,
    *,
    has_rest: bool,
) -> TeacherTask:
    """The task for a teacher's values, and its indices and rest where there are any."""
    top = len(arrays) > 1
    kind = _kind_of(arrays[0].dtype, teacher)
    columns = _columns(arrays[0].shape, layout, teacher, top=top)
    if top:
        _require_indices(arrays[0].shape, arrays[1])
    if has_rest:
        _require_rest(arrays[-1].shape, layout, kind)
    tail = _tail_of(teacher, kind, columns, layout, top=top)
    _require_consistent(loss, teacher, kind, tail)
    _require_weight(extras, teacher, tail)
    _require_uncapped(loss, layout, columns, tail)
    t = loss.temperature
    scalars = TeacherScalars(
        DIVERGENCES[teacher.divergence or ""],
        tail,
        KINDS[kind],
        teacher.beta or 0.5,
        t,
        teacher.teacher_temperature or t,
        math.inf if loss.softcap is None else loss.softcap,
    )
    factor = teacher.alpha * (t * t if teacher.scale_t2 else 1.0)
    return TeacherTask(
        teacher, scalars, kind, layout, columns, top, has_rest, factor, arrays[0].dtype
    )


def _kind_of(dtype: np.dtype[Any], teacher: TeacherOptions) -> TeacherKind:
    if dtype.kind not in "iuf" and dtype not in (BF16,) and dtype.name != "bfloat16":
        raise DtypeError("teacher", f"dtype {name_of(dtype)} is not supported")
    if teacher.teacher_kind is not None:
        return teacher.teacher_kind
    if dtype.kind in "iu":
        return "counts"
    what = (
        f"is required: numbers of dtype {name_of(dtype)} may be logits, log-probs, probs or counts"
    )
    raise OptionError("teacher_kind", what, ("such as ", Setting("teacher_kind", "log-probs")))


def _columns(shape: Shape, layout: Layout, teacher: TeacherOptions, *, top: bool) -> int:
    """The numbers per row, from a shape that is that of the logits but for the class axis."""
    axis = layout.class_axis
    rows = shape[:axis] + shape[axis + 1 :]
    if len(shape) != len(layout.shape) or rows != layout.row_shape:
        expected = f"expected the rows of the logits, whose shape is {layout.shape}"
        raise ShapeError("teacher", f"shape {shape} does not fit; {expected}")
    columns = shape[axis]
    if top and columns == 0:
        raise ShapeError("teacher", f"shape {shape} stores no class")
    if top or columns == layout.classes or teacher.teacher_classes == "pad":
        return columns
    what = f"the teacher has {plural(columns, 'class')}, the logits have {layout.classes}"
    hint = (
        Setting("teacher_indices"),
        " names the classes of a top-K teacher; ",
        Setting("teacher_classes", "pad"),
        " gives missing classes the probability 0",
    )
    raise ShapeError("teacher", what, hint)


def _require_indices(shape: Shape, indices: Described) -> None:
    if indices.shape != shape:
        what = f"shape {indices.shape} is not that of the teacher's values, {shape}"
        raise ShapeError("teacher_indices", what)
    if indices.dtype.kind not in "iuf":
        what = f"dtype {name_of(indices.dtype)} is not supported; class indices are integers"
        raise DtypeError("teacher_indices", what)


def _require_rest(shape: Shape, layout: Layout, kind: TeacherKind) -> None:
    if prod(shape) != layout.rows:
        what = f"shape {shape} does not fit; expected one number per row, {layout.row_shape}"
        raise ShapeError("teacher_rest", what)
    if kind in ("logits", "counts"):
        raise OptionError("teacher_rest", f"applies to log-probs and probs, not to {kind}")


def _tail_of(
    teacher: TeacherOptions, kind: TeacherKind, columns: int, layout: Layout, *, top: bool
) -> Tail:
    if not top:
        if teacher.tail is not None:
            what = "applies to a teacher that stores some classes; this one stores all"
            raise OptionError("tail", what, (Setting("teacher_indices"), " names those it stores"))
        return Tail.ALL
    if teacher.tail is not None:
        return TAILS[teacher.tail][0]
    if kind == "counts":
        return Tail.TEACHER  # a class that was not drawn has the probability 0
    what = (
        f"is required: the teacher stores {columns} of {plural(layout.classes, 'class')}, "
        "and the loss depends on what the others are"
    )
    raise OptionError(
        "tail", what, "; ".join(f"{name}: {text}" for name, (_, text) in TAILS.items())
    )


def _require_consistent(
    loss: LossOptions, teacher: TeacherOptions, kind: TeacherKind, tail: Tail
) -> None:
    """Errors for options that contradict each other, or would have no effect."""
    if teacher.divergence is None:
        what = "is required with a teacher; expected ce, forward-kl, reverse-kl or jsd"
        raise OptionError("divergence", what)
    if teacher.divergence == "jsd" and teacher.beta is None:
        raise OptionError("beta", "is required for jsd; expected a number between 0 and 1")
    if teacher.divergence != "jsd" and teacher.beta is not None:
        raise OptionError("beta", f"applies to jsd, not to {teacher.divergence}")
    if teacher.teacher_temperature is not None and kind != "logits":
        what = f"applies to logits; {kind} are those of a temperature already"
        raise OptionError("teacher_temperature", what)
    zero_elsewhere = tail == Tail.TEACHER or (
        kind == "counts" and tail in (Tail.BUCKET, Tail.UNIFORM)
    )
    if teacher.divergence == "reverse-kl" and zero_elsewhere:
        what = "is infinite where the teacher's probability of the classes it does not store is 0"
        raise OptionError("divergence", f"reverse-kl {what}", ("use ", Setting("tail", "subset")))
    if loss.softcap is not None and loss.temperature != 1:
        what = "beside a teacher it applies at temperature 1 only: whether a model's logits are "
        what += "capped before or after they are divided changes the loss"
        raise OptionError("softcap", what, "pass logits that are capped already")
    _require_alpha(loss, teacher)


def _require_uncapped(loss: LossOptions, layout: Layout, columns: int, tail: Tail) -> None:
    """A softcap would give the classes that only the teacher has a probability above 0."""
    if loss.softcap is not None and tail == Tail.ALL and columns > layout.classes:
        what = f"applies to the {layout.classes} classes of the logits; the teacher has {columns}"
        raise OptionError("softcap", what, "pass logits that are capped already")


def _require_alpha(loss: LossOptions, teacher: TeacherOptions) -> None:
    if teacher.alpha == 0:
        what = "0 leaves the teacher out"
        raise OptionError("alpha", what, "leave it out, and the teacher too")
    if teacher.alpha < 1:
        return
    for name in ("label_smoothing", "z_loss"):
        if getattr(loss, name):
            what = "applies to the hard targets, which alpha 1 leaves out"
            raise OptionError(name, what, ("such as ", Setting("alpha", 0.5)))


def _require_weight(extras: Extras, teacher: TeacherOptions, tail: Tail) -> None:
    """Class weights multiply the term of their class, so that it needs one of its own."""
    if extras.weight is None:
        return
    if teacher.divergence not in ("ce", "forward-kl"):
        raise OptionError("weight", f"applies to ce and forward-kl, not to {teacher.divergence}")
    if tail == Tail.BUCKET:
        raise OptionError("weight", "the bucket of all other classes has no class weight")
