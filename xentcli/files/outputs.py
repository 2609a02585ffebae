"""All destinations of one command: every one is new afterwards, or none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any

from xentcli import signals
from xentcli.errors import OptionError, visible
from xentcli.files.sink import Sink


class Outputs:
    """Sinks that are opened together, and put in place together at the end."""

    def __init__(self, *, no_clobber: bool = False, fsync: bool = False) -> None:
        self._how: dict[str, Any] = {"no_clobber": no_clobber, "fsync": fsync}
        self._sinks: list[Sink] = []

    def __enter__(self) -> Outputs:
        return self

    def open(self, path: str) -> Sink:
        """Another destination; the same one twice is an error."""
        if any(sink.is_called(path) for sink in self._sinks):
            raise OptionError(visible(path), "is named as output twice")
        sink = Sink(path, **self._how)
        others = [other.name for other in self._sinks if sink.same(other)]
        self._sinks.append(sink)
        if others:
            raise OptionError(sink.name, f"is named as output twice, once as {others[0]}")
        return sink

    def spare(self, paths: Iterable[str]) -> None:
        """Inputs must not be written in place, as `>> INPUT` does; to replace one is fine."""
        for path in paths:
            with suppress(OSError):  # what cannot be looked at is told where it is opened
                state = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116 (nor changed)
                for sink in self._sinks:
                    if sink.spoils(state):
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
                    self._place()
        finally:
            for sink in self._sinks:
                sink.discard()

    def _place(self) -> None:
        if sum(sink.is_file for sink in self._sinks) > 1:
            for sink in self._sinks:
                sink.keep_old()
        try:
            for sink in self._sinks:
                sink.place()
        except BaseException:
            for sink in self._sinks:
                sink.restore()
            raise
        for sink in self._sinks:
            sink.settle()
