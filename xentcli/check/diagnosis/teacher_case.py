"""A loss against a teacher with everything that a mistake may change, to simulate mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xentcli.check.diagnosis.hypothesis_case import Factor, Hypothesis, HypothesisCase
from xentcli.check.oracles.rows import FloatRows, GradientSpec, TeacherSpec
from xentcli.check.oracles.teacher_naive import NaiveTeacher, naive_teacher
from xentcli.check.oracles.ulp import FLOATS
from xentcli.engine.teacher.task import TeacherTask
from xentcli.options import LossOptions
from xentcli.records import dataclass

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
