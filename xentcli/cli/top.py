"""`xent softmax --top K`: the largest probabilities and their classes, as one archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xentcli.cli.options import WritingOptions
from xentcli.errors import OptionError
from xentcli.files import registry

if TYPE_CHECKING:
    from xentcli.arrays.dtypes import Array
    from xentcli.engine.top import TopArrays
    from xentcli.files.outputs import Outputs

MEMBERS = ("values", "indices", "rest")


class TopOutput:
    """The archive, whose file is opened before the work, which may be long."""

    def __init__(self, outputs: Outputs, writing: WritingOptions, *, strict: bool) -> None:
        path = "-" if writing.output is None else writing.output
        allowed = registry.output_formats(path, writing.format, chosen=True)
        kept = [format for format in allowed if format.save_members]
        if not kept:
            able = registry.names(f for f in registry.writable() if f.save_members)
            what = f"--top writes several arrays into one file, which {' and '.join(able)} can hold"
            raise OptionError("output", what, f"-o top.{able[0]}")
        self._format, self._strict = kept[0], strict
        self.sink = outputs.open(path)
        self.members: dict[str, Array] = {}

    def write(self, arrays: TopArrays) -> None:
        """Write the arrays that are there."""
        from xentcli.files.opening import save_members

        given = zip(MEMBERS, arrays, strict=True)
        self.members = {name: array for name, array in given if array is not None}
        if self._strict:
            self._require_finite()
        save_members(self.sink, self.members, self._format, self.sink.path)

    def _require_finite(self) -> None:
        from xentcli.engine.notes import NonfiniteEntries

        values = self.members["values"]
        check = NonfiniteEntries(values.shape)
        check.add(values.reshape(-1))
        check.require_none()

    @property
    def words(self) -> str:
        """The arrays, and where they are."""
        from xentcli.arrays.dtypes import name_of

        parts = [f"{k} {a.shape} {name_of(a.dtype)}" for k, a in self.members.items()]
        return f"{', '.join(parts)} -> {self.sink.name}"

    def about(self) -> dict[str, Any]:
        """Path, shapes and dtypes, for JSON."""
        from xentcli.arrays.dtypes import name_of

        arrays = {
            name: {"shape": list(array.shape), "dtype": name_of(array.dtype)}
            for name, array in self.members.items()
        }
        return {"path": self.sink.name, **arrays}


def require_top(top: int | None, *, rest: bool) -> None:
    """An error for the rest of nothing."""
    if rest and top is None:
        what = "is the sum over all classes that --top does not write"
        raise OptionError("rest", what, "--top 64 --rest")
