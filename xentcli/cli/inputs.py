"""The inputs of a command: open files, with the names that messages call them by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import field, replace
from typing import TYPE_CHECKING

from xentcli.cli.once import read_once
from xentcli.cli.options import (
    ArrayReading,
    LogitsReading,
    LossReading,
    TargetsReading,
    WeightFiles,
)
from xentcli.cli.raw_layout import raw_layout
from xentcli.cli.session import current
from xentcli.cli.table_options import LogitsTable, class_names, logits_options, targets_options
from xentcli.cli.text_shapes import line_as_targets, set_row_count
from xentcli.cli.upstream import number_of
from xentcli.errors import OptionError, plural, visible
from xentcli.records import dataclass

if TYPE_CHECKING:
    from xentcli.arrays.dtypes import Array
    from xentcli.engine.notes import Note
    from xentcli.engine.problem import Extras
    from xentcli.files.options import ReadOptions
    from xentcli.files.outputs import Outputs
    from xentcli.files.reader import Reader
    from xentcli.files.text.style import TextStyle


@dataclass(frozen=True)
class InputPaths:
    """Where each array of a command comes from; `-` is standard input.

    Logits and targets may also be readers, of numbers from the command line.
    """

    logits: str | Reader
    targets: str | Reader | None = None
    grad: str | None = None
    weight: str | None = None
    sample_weight: str | None = None
    upstream: str | None = None
    loss: str | None = None
    base: str | None = None
    group: str | None = None
    teacher: str | None = None
    teacher_indices: str | None = None
    teacher_rest: str | None = None

    def given(self) -> dict[str, str | Reader]:
        """The arrays that are given, by their role."""
        return {role: value for role, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Reading:
    """How each array is read: those that are named by their role, the rest as plain text.

    `class_names` are those that the user gave. Targets that are not given are in the file of the
    logits, or, where `elsewhere`, may be missing.
    """

    style: TextStyle
    logits: ReadOptions
    targets: ReadOptions | None = None
    grad: ReadOptions | None = None
    base: ReadOptions | None = None
    class_names: tuple[str, ...] = ()
    elsewhere: bool = False
    teacher: dict[str, ReadOptions] = field(default_factory=dict)  # by role


@dataclass(frozen=True)
class Inputs:
    """The arrays of one command: what is large as readers, the rest whole.

    `grad` and `loss` are the candidates that `xent check` judges; `base` and `group` are those of
    `xent report`. `class_names` are those given, or of the columns of the logits; they may be none.
    `teacher` are its values, and its indices and rest where there are any.
    """

    logits: Reader
    targets: Reader | None
    extras: Extras
    grad: Reader | None = None
    loss: Array | None = None
    base: Reader | None = None
    group: Array | None = None
    class_names: tuple[str, ...] = ()
    teacher: tuple[Reader, ...] = ()

    def notes(self) -> list[Note]:
        """What may have been meant otherwise than it was read."""
        from xentcli.engine.notes import Note

        readers = {
            "logits": self.logits,
            "targets": self.targets,
            "grad": self.grad,
            "base": self.base,
        }
        remarks = {role: reader.remarks for role, reader in readers.items() if reader}
        remarks |= current().remarks
        return [Note(role, words, strict=True) for role in remarks for words in remarks[role]]


def loss_paths(
    logits: str | Reader, targets: str | Reader | None, files: WeightFiles
) -> InputPaths:
    """Where the arrays of a loss come from."""
    return InputPaths(
        logits,
        targets,
        weight=files.weight,
        sample_weight=files.sample_weight,
        upstream=files.upstream,
    )


def text_style(inputs: LogitsTable, decimals: int | None = None) -> TextStyle:
    """How a command writes text, and reads what has no options of its own, such as weights."""
    from xentcli.files.text.style import TextStyle

    return TextStyle(inputs.delimiter, "auto", decimals, inputs.decimal, has_columns=False)


def logits_reading(inputs: ArrayReading, dtype: str = "auto") -> Reading:
    """How the logits are read; `dtype` is theirs if the file does not name one."""
    from xentcli.files.options import ReadOptions

    raw = raw_layout(
        "--", inputs.raw, inputs.shape, inputs.offset, inputs.input_format or inputs.key
    )
    kind = inputs.logits_kind if isinstance(inputs, LogitsReading) else "logits"
    how = ReadOptions(inputs.input_format, inputs.key, dtype=dtype, raw=raw, kind=kind)
    names = class_names(inputs.names)
    return Reading(text_style(inputs), logits_options(inputs, how), class_names=names)


def loss_reading(inputs: LossReading, dtype: str = "auto") -> Reading:
    """How the logits and the targets are read."""
    return replace(logits_reading(inputs, dtype), targets=targets_reading(inputs))


def targets_reading(inputs: TargetsReading) -> ReadOptions:
    """How the targets are read."""
    from xentcli.files.options import ReadOptions

    other = inputs.target_format or inputs.target_key
    raw = raw_layout(
        "--target-", inputs.target_raw, inputs.target_shape, inputs.target_offset, other
    )
    how = ReadOptions(inputs.target_format, inputs.target_key, key_option="target_key", raw=raw)
    return targets_options(inputs, how)


@contextmanager
def open_inputs(
    paths: InputPaths, reading: Reading, outputs: Outputs, class_axis: int | None
) -> Iterator[Inputs]:
    """Open everything that a command names; standard input can be read only once."""
    from xentcli.engine.problem import Extras

    number = number_of(paths.upstream)
    if number is not None:
        paths = replace(paths, upstream=None)
    given = paths.given()
    _check_paths([path for path in given.values() if isinstance(path, str)], outputs)
    if reading.targets:
        given.setdefault("targets", paths.logits)  # they are in the same file
    current().names = {role: _name(path) for role, path in given.items()}
    with ExitStack() as stack:
        logits, targets = stack.enter_context(open_rows(paths, reading))
        if targets:
            set_row_count(logits, targets, class_axis)
            targets = line_as_targets(targets, logits.shape)
        grad = stack.enter_context(_open_second(paths.grad, reading.grad, logits))
        base = stack.enter_context(_open_second(paths.base, reading.base, logits))
        taught = tuple(_open_teacher(given, reading, logits, stack))
        whole = _whole(given, reading.style)
        upstream = whole.get("upstream", number)
        extras = Extras(whole.get("weight"), whole.get("sample_weight"), upstream)
        names = current().class_names = _class_names(logits, reading, class_axis)
        loss, group = whole.get("loss"), whole.get("group")
        yield Inputs(logits, targets, extras, grad, loss, base, group, names, taught)


def _open_teacher(
    given: dict[str, str | Reader], reading: Reading, logits: Reader, stack: ExitStack
) -> Iterator[Reader]:
    """The arrays of a teacher, which have the rows of the logits."""
    for role, how in reading.teacher.items():
        reader = stack.enter_context(_opened(given[role], how))
        set_row_count(logits, reader, None)
        yield reader


@contextmanager
def open_rows(paths: InputPaths, reading: Reading) -> Iterator[tuple[Reader, Reader | None]]:
    """Logits and targets, which may be in one file; without targets where none are asked for."""
    from xentcli.files.opening import column_names, open_both

    needed = not reading.elsewhere
    in_one = paths.targets is None and (needed or not reading.logits.raw)
    if in_one and reading.targets and isinstance(paths.logits, str):
        how = replace(reading.targets, class_names=reading.class_names)
        with open_both(paths.logits, reading.logits, how, required=needed) as both:
            yield both
        return
    with ExitStack() as stack:
        logits = stack.enter_context(_opened(paths.logits, reading.logits))
        targets = None
        if reading.targets and paths.targets is not None:
            names = reading.class_names or column_names(logits)
            how = replace(reading.targets, class_names=names)
            targets = stack.enter_context(_opened(paths.targets, how))
        yield logits, targets


def _class_names(logits: Reader, reading: Reading, class_axis: int | None) -> tuple[str, ...]:
    """The names of the classes: those given, else those of the columns of a table."""
    from xentcli.files.opening import column_names

    names = reading.class_names or column_names(logits)
    if not names:
        return ()
    shape = logits.shape
    axes = (-1,) if len(shape) < 3 else (1, -1)
    axes = axes if class_axis is None else (class_axis,)
    sizes = [shape[axis] for axis in axes if -len(shape) <= axis < len(shape)]
    if len(names) in sizes:
        return names
    if not reading.class_names:  # columns that are no classes
        return ()
    count = f"{plural(len(names), 'name')} given"
    raise OptionError("names", f"{count}, but there are {' or '.join(map(str, sizes))} classes")


def _whole(given: dict[str, str | Reader], style: TextStyle) -> dict[str, Array]:
    """The arrays that are small enough to be read whole."""
    from xentcli.files.opening import open_reader
    from xentcli.files.options import ReadOptions

    arrays, how = {}, ReadOptions(style=style, key_option=None)
    for role in ("weight", "sample_weight", "upstream", "loss", "group"):
        if isinstance(path := given.get(role), str):
            with open_reader(path, how) as reader:
                arrays[role] = reader.whole()
                current().remarks[role] = reader.remarks
    return arrays


def _check_paths(paths: list[str], outputs: Outputs) -> None:
    """No pipe twice, and no input that an output would overwrite in place."""
    read_once(paths)
    outputs.protect_inputs(paths)


@contextmanager
def _open_second(
    path: str | None, how: ReadOptions | None, logits: Reader
) -> Iterator[Reader | None]:
    """An array of the logits' shape, if it is asked for."""
    from xentcli.files.opening import open_reader

    if path is None or how is None:
        yield None
        return
    with open_reader(path, how) as second:
        set_row_count(logits, second, None)
        yield second


def _opened(path: str | Reader, how: ReadOptions) -> AbstractContextManager[Reader]:
    from xentcli.files.opening import open_reader

    return open_reader(path, how) if isinstance(path, str) else nullcontext(path)


def _name(path: str | Reader) -> str:
    """An input's name in messages."""
    if not isinstance(path, str):
        return path.name
    return "<stdin>" if path == "-" else visible(path)
