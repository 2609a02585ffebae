"""What a command is for, on its way out piece by piece: the array, the losses, a preview."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from xentcli.cli.console import show, stdout_is_terminal
from xentcli.cli.inputs import text_style
from xentcli.errors import OptionError
from xentcli.files import registry

if TYPE_CHECKING:
    from xentcli.arrays.dtypes import Array
    from xentcli.engine.notes import NonfiniteEntries
    from xentcli.engine.result import CrossEntropy
    from xentcli.files.outputs import Outputs
    from xentcli.files.sink import Sink
    from xentcli.files.writer import Writer


def open_outputs(given: dict[str, Any]) -> Outputs:
    """The command's destinations, all new at the end or all old."""
    from xentcli.files.outputs import Outputs

    return Outputs(no_clobber=given["no_clobber"], fsync=given["fsync"])


class Late:
    """A writer that begins with the second piece, and sends the last one off in `finish`.

    So of a short job that fails nothing was printed.
    """

    def __init__(self, create: Callable[[], Writer]) -> None:
        self._create = create
        self._writer: Writer | None = None
        self._last: Array | None = None

    def write(self, values: Array) -> None:
        """Take the next numbers, and send off those before."""
        last, self._last = self._last, values
        if last is not None:
            self._opened().write(last)

    def finish(self) -> None:
        """There are no more, and nothing has failed."""
        writer = self._opened()
        if self._last is not None:
            writer.write(self._last)
        writer.finish()

    def _opened(self) -> Writer:
        self._writer = self._writer or self._create()
        return self._writer


class Artefact:
    """The array that a command is for. It is opened before the work, which may be long."""

    def __init__(self, outputs: Outputs, given: dict[str, Any], name: str) -> None:
        self.given, self.name = given, name
        path = "-" if given["output"] is None else given["output"]
        self._formats = registry.output_formats(path, given["format"], "-f")
        preview = given["output"] is None and stdout_is_terminal()
        self.sink = None if preview else outputs.open(path)
        self.shape: tuple[int, ...] = ()
        self.dtype: Any = None
        self._format = "npy"
        self._late = Late(self._create)
        self._check: NonfiniteEntries | None = None

    def words(self, name: str | None = None) -> str:
        """What kind of array it is."""
        from xentcli.arrays.dtypes import name_of

        return f"{name or self.name} {self.shape} {name_of(self.dtype)}"

    def about(self) -> dict[str, Any]:
        """The same for JSON."""
        from xentcli.arrays.dtypes import name_of

        path = self.sink.name if self.sink else None
        return {"path": path, "shape": list(self.shape), "dtype": name_of(self.dtype)}

    @property
    def destination(self) -> str:
        """Where it goes, for the summary."""
        return "" if self.sink is None else f" -> {self.sink.name}"

    def expect(self, shape: tuple[int, ...], dtype: Any, like: str) -> None:
        """What will come, and in which format: the input's unless something says otherwise."""
        from xentcli.engine.notes import NonfiniteEntries

        self.shape, self.dtype = shape, dtype
        format = registry.choose(self._formats, like)
        self._format, most = format.name, format.max_axes
        if self.sink and most is not None and len(shape) > most:
            what = f"{format.name} has at most {most} axes, the result has {len(shape)}: {shape}"
            raise OptionError("--format", what, "-f npy keeps the shape")
        if self.given["strict"]:
            self._check = NonfiniteEntries(shape)

    def write(self, values: Array) -> None:
        """The next numbers."""
        if self._check:
            self._check.add(values)
        self._late.write(values)

    def finish(self) -> None:
        """Under --strict all numbers have to be finite."""
        if self._check:
            self._check.require_none()
        self._late.finish()

    def _create(self) -> Writer:
        from xentcli.files.options import WriteOptions
        from xentcli.files.writer import create_writer

        if self.sink is None:
            return Preview(self)
        how = WriteOptions(self._format, text_style(self.given), self.name)
        return create_writer(self.sink, self.shape, self.dtype, how)


class Preview:
    """Keeps the first rows and shows them to whoever sits at the terminal."""

    def __init__(self, artefact: Artefact) -> None:
        from xentcli.cli.tables import ROWS

        self._of = artefact
        self._first: list[Array] = []
        self._left = ROWS * artefact.shape[-1]

    def write(self, values: Array) -> None:
        """The next numbers."""
        if self._left > 0:
            self._first.append(values[: self._left].copy())
            self._left -= len(values)

    def finish(self) -> None:
        """Print a table."""
        import numpy as np

        from xentcli.cli.tables import ROWS, preview

        of = self._of
        first = np.concatenate([np.empty(0, of.dtype), *self._first])
        rows = min(ROWS, prod(of.shape[:-1]))
        first = first.reshape(rows, of.shape[-1])
        show(lambda width: preview(first, of.words(), of.shape, (of.given["decimals"], width)))


class Losses:
    """The losses of all rows as they come, or the one of all of them.

    `option` is what the format of this output is asked for with, if there is such an option.
    """

    def __init__(self, sink: Sink, given: dict[str, Any], option: str | None = None) -> None:
        self._sink, self._style = sink, text_style(given)
        allowed = registry.output_formats(sink.path, given["format"] if option else None, option)
        self._format = registry.choose(allowed, registry.TEXT)
        self._shape: tuple[int, ...] = ()
        self._late = Late(self._create)

    def expect(self, shape: tuple[int, ...]) -> None:
        """One number for each place of this shape."""
        self._shape = (prod(shape),) if self._format.is_table else shape

    def write(self, losses: Array) -> None:
        """The next numbers."""
        self._late.write(losses)

    def finish(self, result: CrossEntropy) -> None:
        """Where there is one number for all, this is it."""
        import numpy as np

        if result.loss is not None:
            self._late.write(np.asarray([result.loss]))
        self._late.finish()

    def _create(self) -> Writer:
        import numpy as np

        from xentcli.files.options import WriteOptions
        from xentcli.files.writer import create_writer

        how = WriteOptions(self._format.name, self._style, "loss")
        return create_writer(self._sink, self._shape, np.dtype(np.float64), how)


class Kept:
    """Numbers that are kept for a JSON object."""

    def __init__(self) -> None:
        self._parts: list[Array] = []

    def write(self, values: Array) -> None:
        """The next numbers."""
        self._parts.append(values)

    def array(self, shape: tuple[int, ...]) -> Array:
        """All of them."""
        import numpy as np

        return np.concatenate([np.empty(0), *self._parts]).reshape(shape)
