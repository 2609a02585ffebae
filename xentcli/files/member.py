"""A part of a file, such as a member of an archive, as a source."""

from __future__ import annotations

from typing import IO

from xentcli.errors import FormatError
from xentcli.files.source import Source


class Member(Source):
    """A member of an archive; its size is only `declared`, so no memory is allocated for it.

    `damaged` are the exceptions that a damaged archive raises.
    """

    def __init__(
        self, stream: IO[bytes], name: str, size: int, damaged: tuple[type[Exception], ...]
    ) -> None:
        super().__init__(stream, name)
        self.declared, self._damaged = size, damaged

    def _into(self, view: memoryview) -> int:
        try:
            return super()._into(view)
        except self._damaged as error:
            raise FormatError(self.name, f"the archive is damaged: {error}") from error

    def _read_some(self, count: int) -> bytes:
        try:
            return super()._read_some(count)
        except self._damaged as error:
            raise FormatError(self.name, f"the archive is damaged: {error}") from error
