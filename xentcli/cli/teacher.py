"""The files of a teacher, and how they are read."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from xentcli.cli.declare import option
from xentcli.cli.inputs import InputPaths, Inputs, Reading, loss_paths, loss_reading
from xentcli.cli.options import LossInputs, key_option
from xentcli.errors import OptionError, Setting
from xentcli.options import LossOptions, TeacherOptions
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.engine.problem import Problem
    from xentcli.engine.teacher.task import TeacherTask
    from xentcli.files.options import ReadOptions

ROLES = ("teacher", "teacher_indices", "teacher_rest")
MEMBERS = {"teacher": "values", "teacher_indices": "indices", "teacher_rest": "rest"}


@dataclass(frozen=True, kw_only=True)
class TeacherFiles:
    """The files of a teacher, and the names of its arrays in them."""

    teacher: str | None = option(
        None,
        "Teacher's numbers, in the shape of the logits, or K per row with --teacher-indices. One "
        "archive may hold values, indices and rest.",
        group="Teacher",
        metavar="FILE",
        file=True,
    )
    teacher_key: str | None = key_option("teacher's numbers", group="Teacher")
    teacher_indices: str | None = option(
        None,
        "Classes of the teacher's numbers; -1 marks empty slots.",
        group="Teacher",
        metavar="FILE",
        file=True,
    )
    teacher_indices_key: str | None = key_option("teacher's classes", group="Teacher")
    teacher_rest: str | None = option(
        None,
        "Teacher's probability of all other classes, or its logarithm; by default 1 minus those "
        "that are stored.",
        group="Teacher",
        metavar="FILE",
        file=True,
    )
    teacher_rest_key: str | None = key_option("teacher's other probability", group="Teacher")

    @property
    def teacher_keys(self) -> dict[str, str | None]:
        """The keys of the three files, by their role."""
        keys = (self.teacher_key, self.teacher_indices_key, self.teacher_rest_key)
        return dict(zip(ROLES, keys, strict=True))


@dataclass(frozen=True, kw_only=True)
class TaughtInputs(LossInputs, TeacherFiles):
    """The inputs of a loss, with those of a teacher."""


def taught_inputs(
    sources: TaughtInputs, soft: TeacherOptions, dtype: str
) -> tuple[InputPaths, Reading]:
    """The paths of a loss and how they are read, with those of a teacher if there is one."""
    paths = loss_paths(sources.logits, sources.targets, sources)
    return with_teacher(sources, soft, paths, loss_reading(sources, dtype))


def with_teacher(
    sources: TeacherFiles, soft: TeacherOptions, paths: InputPaths, reading: Reading
) -> tuple[InputPaths, Reading]:
    """Paths and how they are read, with those of a teacher if there is one."""
    if sources.teacher is None:
        _require_unused(sources, soft)
        return paths, reading
    files = _with_members(sources)
    given = {role: path for role in ROLES if (path := getattr(files, role)) is not None}
    if "teacher_rest" in given and "teacher_indices" not in given:
        raise OptionError("teacher_rest", "applies to a teacher with --teacher-indices")
    read = {role: _read(files, role, reading) for role in given}
    if paths.targets is None and soft.alpha == 1:
        reading = replace(reading, targets=None)
    return replace(paths, **given), replace(reading, teacher=read)


def task_of_inputs(
    problem: Problem, inputs: Inputs, options: LossOptions, soft: TeacherOptions
) -> TeacherTask | None:
    """What is to be computed of a teacher, if there is one."""
    if not inputs.teacher:
        return None
    from xentcli.engine.teacher.arrays import require_use_of
    from xentcli.engine.teacher.task import task_of

    require_use_of(inputs.targets, problem, soft)
    rest = len(inputs.teacher) > 2
    return task_of(problem.layout, inputs.teacher, options, soft, inputs.extras, has_rest=rest)


def _read(files: TeacherFiles, role: str, reading: Reading) -> ReadOptions:
    from xentcli.files.options import ReadOptions

    key = files.teacher_keys[role]
    dtype = "auto" if role == "teacher_indices" else reading.logits.dtype
    return ReadOptions(None, key, reading.style, f"{role}_key", dtype)


def _with_members(sources: TeacherFiles) -> TeacherFiles:
    """The same with the files and keys that are members of the teacher's archive."""
    from xentcli.files.opening import names_in

    assert sources.teacher
    names = names_in(sources.teacher)
    changes: dict[str, Any] = {}
    is_ours = sources.teacher_key in (None, MEMBERS["teacher"])
    for role, name in MEMBERS.items():
        path, key = getattr(sources, role), sources.teacher_keys[role]
        if role != "teacher" and path is None and (key or (is_ours and name in names)):
            changes[role] = sources.teacher
        elif path != sources.teacher:
            continue
        if key is None and name in names and len(names) > 1:
            changes[f"{role}_key"] = name
    return replace(sources, **changes)


def _require_unused(sources: TeacherFiles, soft: TeacherOptions) -> None:
    """An error for options that have no effect without a teacher."""
    taught = {role: getattr(sources, role) for role in ROLES}
    taught |= {f"{role}_key": key for role, key in sources.teacher_keys.items()}
    taught |= {item.name: getattr(soft, item.name) for item in fields(soft)}
    defaults = {item.name: item.default for item in fields(soft)}
    for name, value in taught.items():
        if value != defaults.get(name):
            what = "applies to a loss against a teacher, and there is none"
            raise OptionError(name, what, (Setting("teacher"), " FILE"))
