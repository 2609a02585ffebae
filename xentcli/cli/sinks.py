"""Results on their way out, piece by piece: the array, the losses, a preview."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from xentcli.cli.console import note, show, stdout_is_terminal
from xentcli.cli.options import WritingOptions
from xentcli.errors import OptionError
from xentcli.files import registry
from xentcli.files.writer import Written

if TYPE_CHECKING:
    from xentcli.arrays.dtypes import Array
    from xentcli.engine.notes import NonfiniteEntries
    from xentcli.engine.result import CrossEntropy
    from xentcli.files.format import Format
    from xentcli.files.outputs import Outputs
    from xentcli.files.sink import Sink
    from xentcli.files.text.style import TextStyle
    from xentcli.files.writer import Writer


@contextmanager
def open_outputs(writing: WritingOptions) -> Iterator[Outputs]:
    """A command's outputs, which are put in place together or not at all."""
    from xentcli.files.outputs import Outputs

    how = {"no_clobber": writing.no_clobber, "fsync": writing.fsync}
    with Outputs(**how, in_place=writing.in_place) as outputs:
        yield outputs
    for name in outputs.moved():
        note(f"{name}: its folder was renamed meanwhile; the file is in that folder")


class DeferredWriter:
    """A writer that holds back one piece: it starts with the second, and `finish` sends the last.

    So a short job that fails has printed nothing.
    """

    def __init__(self, create: Callable[[], Writer]) -> None:
        self._create = create
        self._started: Writer | None = None
        self._last: Array | None = None

    def write(self, values: Array) -> None:
        """Take the next values, and write those before."""
        last, self._last = self._last, values
        if last is not None:
            self._opened().write(last)

    def finish(self) -> None:
        """Write the rest; nothing has failed."""
        writer = self._opened()
        if self._last is not None:
            writer.write(self._last)
        writer.finish()

    def _opened(self) -> Writer:
        self._started = self._started or self._create()
        return self._started


class ArrayOutput:
    """The array that a command computes. It is opened before the work, which may be long.

    With `strict` all numbers have to be finite.
    """

    def __init__(
        self, outputs: Outputs, writing: WritingOptions, style: TextStyle, name: str, strict: bool
    ) -> None:
        self.name, self.decimals = name, style.decimals
        self._style, self._strict = style, strict
        path = "-" if writing.output is None else writing.output
        self._formats = registry.output_formats(path, writing.format, chosen=True)
        preview = writing.output is None and stdout_is_terminal()
        self.sink = None if preview else outputs.open(path, writing.format)
        self.shape: tuple[int, ...] = ()
        self.dtype: Any = None
        self._format = "npy"
        self._writer: Writer = DeferredWriter(self._create)
        self._check: NonfiniteEntries | None = None

    def words(self, name: str | None = None) -> str:
        """The array in words: name, shape, dtype."""
        from xentcli.arrays.dtypes import name_of

        return f"{name or self.name} {self.shape} {name_of(self.dtype)}"

    def about(self) -> dict[str, Any]:
        """Path, shape and dtype, for JSON."""
        from xentcli.arrays.dtypes import name_of

        path = self.sink.name if self.sink else None
        return {"path": path, "shape": list(self.shape), "dtype": name_of(self.dtype)}

    @property
    def destination(self) -> str:
        """The arrow and path in the summary line."""
        return "" if self.sink is None else f" -> {self.sink.name}"

    def expect(self, shape: tuple[int, ...], dtype: Any, like: str) -> None:
        """Set shape, dtype and format, which is that of the input (`like`) by default."""
        from xentcli.engine.notes import NonfiniteEntries

        self.shape, self.dtype = shape, dtype
        format = registry.choose(self._formats, like)
        self._format, most = format.name, format.max_axes
        if self.sink and most is not None and len(shape) > most:
            what = f"{format.name} holds at most {most} axes, but the result has {len(shape)}"
            raise OptionError("format", f"{what}: {shape}", "use -f npy")
        if self._strict:
            self._check = NonfiniteEntries(shape)
        if self.sink:
            _note_decimals(self.decimals, format)

    def write(self, values: Array) -> None:
        """Take the next values."""
        if self._check:
            self._check.add(values)
        self._writer.write(values)

    def finish(self) -> None:
        """Write the rest."""
        if self._check:
            self._check.require_none()
        self._writer.finish()

    def hand_over(self) -> tuple[Format, Callable[[], Writer]]:
        """Its format, and what writes the header: whoever calls this writes the numbers too."""
        self._writer = Written()
        return registry.get(self._format), self._create

    def _create(self) -> Writer:
        from xentcli.files.opening import create_writer
        from xentcli.files.options import WriteOptions

        if self.sink is None:
            return Preview(self)
        how = WriteOptions(self._format, self._style, self.name, self.sink.path)
        return create_writer(self.sink, self.shape, self.dtype, how)


def _note_decimals(decimals: int | None, format: Format) -> None:
    """A note where decimals are asked for that a format does not have."""
    if decimals is not None and format.keeps_dtype:
        note(f"--decimals: applies to text and JSON; {format.name} holds the exact numbers")


class Preview:
    """Keeps the first rows, for a table on the terminal."""

    def __init__(self, output: ArrayOutput) -> None:
        from xentcli.cli.tables import ROWS

        self._of = output
        self._first: list[Array] = []
        self._left = ROWS * output.shape[-1]

    def write(self, values: Array) -> None:
        """Take the next values."""
        if self._left > 0:
            self._first.append(values[: self._left].copy())
            self._left -= len(values)

    def finish(self) -> None:
        """Print the table."""
        import numpy as np

        from xentcli.cli.session import current
        from xentcli.cli.tables import ROWS, preview

        of = self._of
        first = np.concatenate([np.empty(0, of.dtype), *self._first])
        rows = min(ROWS, prod(of.shape[:-1]))
        first = first.reshape(rows, of.shape[-1])
        names = current().class_names if len(of.shape) == 2 else ()
        show(lambda width: preview(first, of.words(), of.shape, (of.decimals, width), names))


class LossOutput:
    """The loss of each row, or the one of all rows.

    `chosen` is whether the user can ask for its format.
    """

    def __init__(
        self, sink: Sink, style: TextStyle, format: str | None = None, *, chosen: bool = False
    ) -> None:
        self._sink, self._style = sink, style
        allowed = registry.output_formats(sink.path, format, chosen=chosen)
        self._format = registry.choose(allowed, registry.TEXT)
        _note_decimals(style.decimals, self._format)
        self._shape: tuple[int, ...] = ()
        self._writer = DeferredWriter(self._create)

    def expect(self, shape: tuple[int, ...]) -> None:
        """Set the shape of the losses."""
        self._shape = (prod(shape),) if self._format.is_table else shape

    def write(self, losses: Array) -> None:
        """Take the next values."""
        self._writer.write(losses)

    def finish(self, result: CrossEntropy) -> None:
        """Write the rest: the reduced loss, if there is one."""
        import numpy as np

        if result.loss is not None:
            self._writer.write(np.asarray([result.loss]))
        self._writer.finish()

    def _create(self) -> Writer:
        import numpy as np

        from xentcli.files.opening import create_writer
        from xentcli.files.options import WriteOptions

        how = WriteOptions(self._format.name, self._style, "loss", self._sink.path)
        return create_writer(self._sink, self._shape, np.dtype(np.float64), how)


class LossPreview:
    """The first losses of the rows, for a table on the terminal."""

    def __init__(self, decimals: int | None) -> None:
        self._decimals = decimals
        self._shape: tuple[int, ...] = ()
        self._first: list[Array] = []
        self._left = 0

    def expect(self, shape: tuple[int, ...]) -> None:
        """Set the shape of the losses."""
        from xentcli.cli.tables import ROWS

        self._shape, self._left = shape, ROWS

    def write(self, losses: Array) -> None:
        """Take the next values."""
        self._first.append(losses[: self._left].copy())
        self._left -= len(self._first[-1])

    def finish(self, result: CrossEntropy) -> None:
        """Print the table."""
        import numpy as np

        from xentcli.cli.tables import preview

        first = np.concatenate([np.empty(0), *self._first])[:, None]
        title = f"loss {self._shape} float64"
        shape, decimals = (*self._shape, 1), self._decimals
        show(lambda width: preview(first, title, shape, (decimals, width)))


class LossBuffer:
    """The loss of each row, or the one of all rows, for a JSON object."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._shape: tuple[int, ...] = ()

    def expect(self, shape: tuple[int, ...]) -> None:
        """Set the shape of the losses."""
        self._shape = shape

    def write(self, losses: Array) -> None:
        """Take the next values."""
        self._parts.append(losses)

    def value(self, result: CrossEntropy) -> Any:
        """The loss of the result, or all of them."""
        import numpy as np

        if result.loss is not None:
            return result.loss
        return np.concatenate([np.empty(0), *self._parts]).reshape(self._shape)


class LossConsumers:
    """Everything that the losses of the rows go to: a file, a JSON object, both or nothing."""

    def __init__(self, *consumers: LossOutput | LossPreview | LossBuffer | None) -> None:
        self._consumers = [consumer for consumer in consumers if consumer]

    def expect(self, shape: tuple[int, ...]) -> None:
        """Set the shape of the losses."""
        for consumer in self._consumers:
            consumer.expect(shape)

    def write(self, losses: Array) -> None:
        """Take the next values."""
        for consumer in self._consumers:
            consumer.write(losses)
