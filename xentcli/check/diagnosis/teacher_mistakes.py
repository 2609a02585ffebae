"""Mistakes with a teacher: the tail, the temperature, the divergence, beta and alpha.

Each is the loss with other options; what is made of them has formulas of its own in
`oracles.teacher_naive`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from xentcli.check.diagnosis import mistakes
from xentcli.check.diagnosis.hypothesis_case import Hypothesis, HypothesisCase
from xentcli.check.diagnosis.mistakes import Mistake
from xentcli.check.diagnosis.teacher_case import EXTRA_T2, NO_T2, Setup, TeacherCase
from xentcli.engine.teacher.task import DIVERGENCES, TAILS
from xentcli.errors import Setting
from xentcli.records import dataclass

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
    TeacherMistake(
        "no-temperature", "the temperature is left out altogether", lambda setup: setup.at(1.0, 1.0)
    ),
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
