"""Mistakes with a teacher: the tail, the temperature, the divergence, beta and alpha.

Each is the loss with other options; what is made of them has formulas of its own in
`oracles.teacher_naive`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xentcli.check.diagnosis import mistakes
from xentcli.check.diagnosis.hypothesis_case import Factor, Hypothesis, HypothesisCase
from xentcli.check.diagnosis.mistakes import Mistake
from xentcli.check.oracles.rows import FloatRows, GradientSpec, TeacherSpec
from xentcli.check.oracles.teacher_naive import NaiveTeacher, naive_teacher
from xentcli.check.oracles.ulp import FLOATS
from xentcli.engine.teacher.task import DIVERGENCES, TAILS, TeacherTask
from xentcli.errors import Setting
from xentcli.options import LossOptions

NO_T2 = "the factor T² of the loss is left out"
EXTRA_T2 = "it has a factor T² of the loss, which was not asked for"


@dataclass(frozen=True)
class Setup:
    """A loss against a teacher with everything that a mistake may change."""

    options: LossOptions
    task: TeacherTask
    rows: FloatRows

    @property
    def temperature(self) -> float:
        """The student's."""
        return self.options.temperature

    @property
    def divergence(self) -> str:
        """Its name."""
        return self.task.options.divergence or ""

    def with_options(self, **changes: Any) -> Setup:
        """The same with other options of the teacher, its factor included."""
        options = replace(self.task.options, **changes)
        t2 = self.temperature**2 if options.scale_t2 else 1.0
        scalars = self.task.scalars._replace(beta=options.beta or 0.5)
        task = replace(self.task, options=options, scalars=scalars, factor=options.alpha * t2)
        return replace(self, task=task)

    def times(self, factor: float) -> Setup:
        """The same with another factor on the loss against the teacher."""
        return replace(self, task=replace(self.task, factor=self.task.factor * factor))

    def at(self, student: float, teacher: float) -> Setup:
        """The same at other temperatures."""
        scalars = self.task.scalars._replace(temperature=student, teacher_temperature=teacher)
        options = replace(self.options, temperature=student)
        return replace(self, options=options, task=replace(self.task, scalars=scalars))

    def made(self, spec: GradientSpec) -> NaiveTeacher:
        """Gradient and losses; `spec` has the denominators."""
        assert spec.teacher
        teacher = TeacherSpec(self.task, spec.teacher.hard_scale)
        return naive_teacher(
            self.rows, GradientSpec(self.options, spec.scale, FLOATS["f64"], teacher)
        )


@dataclass(frozen=True)
class TeacherCase(HypothesisCase):
    """A case whose loss is one against a teacher."""

    teacher: TeacherSpec | None = None

    @property
    def spec(self) -> GradientSpec:
        """What the gradient should be."""
        return GradientSpec(self.options, self.scale, self.finfo, self.teacher)

    @property
    def setup(self) -> Setup:
        """The loss as it is meant."""
        assert self.teacher
        return Setup(self.options, self.teacher.task, self.rows)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The squared temperature, where the gradient has no other part."""
        assert self.teacher
        t2 = self.options.temperature**2
        if self.teacher.task.options.scale_t2:
            return (Factor(1 / t2, "no-t2", NO_T2),)
        return (Factor(t2, "extra-t2", EXTRA_T2),)

    def make(self, **replaced: Any) -> Hypothesis:
        """The right gradient; its parts cannot be replaced one by one."""
        assert not replaced
        return self.of(self.setup)

    def of(self, setup: Setup) -> Hypothesis:
        """The gradient of another loss."""
        found = setup.made(self.spec)
        return Hypothesis(found.grad, found.size)


Change = Callable[[Setup], Setup | None]


@dataclass(frozen=True)
class TeacherMistake:
    """A mistake as another loss; None where it changes nothing."""

    name: str
    words: str
    change: Change
    settings: tuple[Setting, ...] = ()
    only_loss: bool = False  # the gradient is the same
    only_gradient: bool = False

    def as_mistake(self) -> Mistake:
        """The same for a gradient."""

        def make(case: HypothesisCase) -> Hypothesis | None:
            assert isinstance(case, TeacherCase)
            changed = self.change(case.setup)
            return None if changed is None else case.of(changed)

        return Mistake(self.name, self.words, make, settings=self.settings)


def _other_tail(name: str) -> Change:
    def change(setup: Setup) -> Setup | None:
        given = setup.task.options.tail or "teacher"
        if not setup.task.top or name == given:
            return None
        return setup.with_options(tail=name)

    return change


def _other_divergence(name: str, given: tuple[str, ...]) -> Change:
    beta = 0.5 if name == "jsd" else None

    def change(setup: Setup) -> Setup | None:
        if setup.divergence not in given:
            return None
        return setup.with_options(divergence=name, beta=beta)

    return change


def _beta_swapped(setup: Setup) -> Setup | None:
    beta = setup.task.options.beta
    return None if beta is None else setup.with_options(beta=1 - beta)


def _no_t2(setup: Setup) -> Setup | None:
    return setup.times(setup.temperature**-2) if setup.task.options.scale_t2 else None


def _extra_t2(setup: Setup) -> Setup | None:
    return None if setup.task.options.scale_t2 else setup.times(setup.temperature**2)


def _no_temperature(setup: Setup) -> Setup | None:
    return setup.at(1.0, 1.0)


def _no_teacher_temperature(setup: Setup) -> Setup | None:
    return setup.at(setup.temperature, 1.0) if setup.task.kind == "logits" else None


def _no_student_temperature(setup: Setup) -> Setup | None:
    return setup.at(1.0, setup.task.scalars.teacher_temperature)


def _no_hard_part(setup: Setup) -> Setup | None:
    if not setup.task.hard_share:
        return None
    options = replace(setup.task.options, alpha=1.0)  # its factor stays
    return replace(setup, task=replace(setup.task, options=options))


def _alpha_swapped(setup: Setup) -> Setup | None:
    alpha = setup.task.options.alpha
    return None if alpha == 1 else setup.with_options(alpha=1 - alpha)


def _no_weight(setup: Setup) -> Setup | None:
    rows = replace(setup.rows, weight=np.ones_like(setup.rows.weight))
    return replace(setup, rows=rows) if (setup.rows.weight != 1).any() else None


def _row_factor(name: str, power: int) -> Change:
    def change(setup: Setup) -> Setup | None:
        values = getattr(setup.rows, name)
        if (values == values[:1]).all():
            return None  # a constant: one of the factors
        return replace(setup, rows=replace(setup.rows, **{name: values**power}))

    return change


KLS = ("ce", "forward-kl")
FORWARD, REVERSE = "forward-kl", "reverse-kl"
SWAPPED = "teacher and student are swapped"

TEACHER_MISTAKES = [
    *(
        TeacherMistake(
            f"tail-{name}",
            f"another tail, {name}: {text.partition(' (')[0]}",
            _other_tail(name),
            (Setting("tail", name),),
        )
        for name, (_, text) in TAILS.items()
    ),
    TeacherMistake(
        "swapped",
        f"{SWAPPED}: it is KL(p, q), not KL(q, p)",
        _other_divergence(REVERSE, KLS),
        (Setting("divergence", REVERSE),),
    ),
    TeacherMistake(
        "swapped",
        f"{SWAPPED}: it is KL(q, p), not KL(p, q)",
        _other_divergence(FORWARD, (REVERSE,)),
        (Setting("divergence", FORWARD),),
    ),
    TeacherMistake(
        "beta-swapped",
        "beta is swapped: it is the weight of the student, and 1 - beta that of the teacher",
        _beta_swapped,
    ),
    TeacherMistake(
        "kl-for-ce",
        "KL for CE: the teacher's own entropy is subtracted, as forward-kl does",
        _other_divergence(FORWARD, ("ce",)),
        (Setting("divergence", FORWARD),),
        only_loss=True,
    ),
    TeacherMistake(
        "ce-for-kl",
        "CE for KL: the teacher's own entropy is not subtracted",
        _other_divergence("ce", (FORWARD, REVERSE)),
        (Setting("divergence", "ce"),),
        only_loss=True,
    ),
    *(
        TeacherMistake(
            f"divergence-{name}",
            f"another loss: it is {name}",
            _other_divergence(name, ("jsd",) if name != "jsd" else (*KLS, REVERSE)),
            (Setting("divergence", name),),
            only_loss=name == "ce",
        )
        for name in DIVERGENCES
    ),
    TeacherMistake("no-t2", NO_T2, _no_t2),
    TeacherMistake("extra-t2", EXTRA_T2, _extra_t2, (Setting("scale_t2", True),)),
    TeacherMistake(
        "no-temperature-factor",
        "the factor 1/T of the temperature is left out",
        lambda setup: setup.times(setup.temperature),
        only_gradient=True,
    ),
    TeacherMistake(
        "twice-temperature",
        "the factor 1/T is applied twice",
        lambda setup: setup.times(1 / setup.temperature),
        only_gradient=True,
    ),
    TeacherMistake("no-temperature", "the temperature is left out altogether", _no_temperature),
    TeacherMistake(
        "no-teacher-temperature", "the teacher's temperature is left out", _no_teacher_temperature
    ),
    TeacherMistake(
        "no-student-temperature", "the student's temperature is left out", _no_student_temperature
    ),
    TeacherMistake("no-hard-part", "the loss with the hard targets is left out", _no_hard_part),
    TeacherMistake("alpha-swapped", "alpha and 1 - alpha are swapped", _alpha_swapped),
    TeacherMistake("no-weight", "the class weights are left out", _no_weight),
    *(
        TeacherMistake(
            f"{times}-{name.replace('_', '-')}", f"the {what} {done}", _row_factor(name, k)
        )
        for name, what in (
            ("sample_weight", "row weights are"),
            ("upstream", "upstream gradient is"),
        )
        for times, done, k in (("no", "left out", 0), ("twice", "applied twice", 2))
    ),
]
ANY_LOSS = ("right", "next-row", "last-row", "next-column", "last-column", "memory-order")
OF_GRADIENTS = (
    *(mistake for mistake in mistakes.MISTAKES if mistake.name in ANY_LOSS),
    *(mistake.as_mistake() for mistake in TEACHER_MISTAKES if not mistake.only_loss),
)
