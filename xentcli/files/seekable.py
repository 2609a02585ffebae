"""A file as `zipfile` and other libraries that seek need it."""

from __future__ import annotations

import errno
import io
from typing import IO

from xentcli.files.descriptor import file_errors


class Seekable:
    """A file for `zipfile`, which takes an OSError, but not a FileError, for a damaged archive."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        with file_errors(self._name, "reading"):
            return self._stream.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek; an impossible offset is the archive's fault, an error that `zipfile` expects."""
        with file_errors(self._name, "reading"):
            try:
                return self._stream.seek(offset, whence)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        raise io.UnsupportedOperation("it points outside of itself")

    def tell(self) -> int:
        """The offset of the next byte."""
        with file_errors(self._name, "reading"):
            return self._stream.tell()

    def seekable(self) -> bool:
        """True."""
        return True
