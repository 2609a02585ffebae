"""All output files of one command, which are replaced together or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType

from xentcli import signals
from xentcli.errors import OptionError, Setting, visible
from xentcli.files import registry
from xentcli.files.sink import Sink


class Outputs:
    """Sinks that are opened together, and replace the old files together at the end.

    An input is replaced only with `in_place`, which is None where the user cannot ask for it.
    """

    def __init__(
        self, *, no_clobber: bool = False, fsync: bool = False, in_place: bool | None = None
    ) -> None:
        self._no_clobber, self._fsync, self._in_place = no_clobber, fsync, in_place
        self._sinks: list[Sink] = []
        self._inputs: list[tuple[str, os.stat_result]] = []  # paths and identities

    def __enter__(self) -> Outputs:
        return self

    def open(self, path: str, format: str | None = None) -> Sink:
        """Open another output, a folder where its format is one; the same one twice is an error."""
        if any(sink.is_at(path) for sink in self._sinks):
            raise OptionError(visible(path), "is given as output twice")
        create: Callable[..., Sink] = _open_folder if registry.writes_folder(path, format) else Sink
        sink = create(path, no_clobber=self._no_clobber, fsync=self._fsync)
        others = [other.name for other in self._sinks if sink.shares_stream(other)]
        self._sinks.append(sink)
        if others:
            raise OptionError(sink.name, f"is given as output twice, once as {others[0]}")
        for given, state in self._inputs:
            self._require_apart(sink, given, state)
        return sink

    def moved(self) -> list[str]:
        """The names of files that are in place, but in a folder that was renamed meanwhile."""
        return [sink.name for sink in self._sinks if sink.was_moved]

    def protect_inputs(self, paths: Iterable[str]) -> None:
        """An error for an input that is an output too, by any name, now or when it is opened.

        With `in_place` one that is replaced at the end is fine; one that is written into while it
        is read, as by `>> INPUT`, never is.
        """
        for path in paths:
            try:
                state = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116 (nor changed)
            except (OSError, ValueError):  # opening it will say why
                continue
            self._inputs.append((path, state))
            for sink in self._sinks:
                self._require_apart(sink, path, state)

    def _require_apart(self, sink: Sink, path: str, state: os.stat_result) -> None:
        if not sink.would_overwrite(path, state):
            return
        name = "<stdin>" if path == "-" else visible(path)
        if not sink.is_file:
            raise OptionError(name, f"is written to as {sink.name} while it is read")
        if not self._in_place:
            same = "" if sink.name == name else f", which is the input {name} by another name"
            hint = None if self._in_place is None else (Setting("in_place", True), " replaces it")
            raise OptionError(sink.name, f"is an input too{same}", hint)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                for sink in self._sinks:
                    sink.finish()
                with signals.deferred():
                    self._replace_all()
        finally:
            for sink in self._sinks:
                sink.discard()

    def _replace_all(self) -> None:
        if sum(sink.is_file for sink in self._sinks) > 1:
            for sink in self._sinks:
                sink.back_up()
        try:
            for sink in self._sinks:
                sink.replace_target()
        except BaseException:
            for sink in self._sinks:
                sink.restore()
            raise
        for sink in self._sinks:
            sink.remove_backup()


def _open_folder(path: str, **how: bool) -> Sink:
    from xentcli.files.folder_sink import open_folder  # few jobs need it

    return open_folder(path, **how)
