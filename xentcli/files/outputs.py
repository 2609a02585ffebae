"""All output files of one command, which are replaced together or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

from xentcli import signals
from xentcli.errors import OptionError, visible
from xentcli.files import registry
from xentcli.files.folder_sink import open_folder
from xentcli.files.sink import Sink


class Outputs:
    """Sinks that are opened together, and replace the old files together at the end."""

    def __init__(self, *, no_clobber: bool = False, fsync: bool = False) -> None:
        self._no_clobber, self._fsync = no_clobber, fsync
        self._sinks: list[Sink] = []

    def __enter__(self) -> Outputs:
        return self

    def open(self, path: str, format: str | None = None) -> Sink:
        """Open another output, a folder where its format is one; the same one twice is an error."""
        if any(sink.is_at(path) for sink in self._sinks):
            raise OptionError(visible(path), "is given as output twice")
        create: Callable[..., Sink] = open_folder if registry.writes_folder(path, format) else Sink
        sink = create(path, no_clobber=self._no_clobber, fsync=self._fsync)
        others = [other.name for other in self._sinks if sink.shares_stream(other)]
        self._sinks.append(sink)
        if others:
            raise OptionError(sink.name, f"is given as output twice, once as {others[0]}")
        return sink

    def moved(self) -> list[str]:
        """The names of files that are in place, but in a folder that was renamed meanwhile."""
        return [sink.name for sink in self._sinks if sink.was_moved]

    def protect_inputs(self, paths: Iterable[str]) -> None:
        """An error for an input that is written in place, as `>> INPUT` does.

        An input that is replaced at the end is fine.
        """
        for path in paths:
            with suppress(OSError):  # opening it will say why
                state = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116 (nor changed)
                for sink in self._sinks:
                    if sink.would_overwrite(state):
                        name = "<stdin>" if path == "-" else visible(path)
                        raise OptionError(name, f"is written to as {sink.name} while it is read")

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
