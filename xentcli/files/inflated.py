"""The bytes of a compressed source, as a source."""

from __future__ import annotations

from typing import IO, Any, cast

from xentcli.errors import FormatError
from xentcli.files.compression import Compression, Decoder
from xentcli.files.source import Source

PIECE = 1 << 18  # compressed bytes that are read at a time
FREE = 1 << 26  # bytes that may be copied to a file, whatever they were compressed to
MAX_RATIO = 20  # beyond that; numbers compress to a third at best, a bomb to a thousandth


class Inflater:
    """A stream of the decompressed bytes."""

    def __init__(self, source: Source, kind: Compression) -> None:
        self._source, self._kind = source, kind
        self._decoder: Decoder = kind.decoder()
        self.count = 0  # of bytes so far

    def read(self, count: int) -> bytes:
        """At most `count` of the next bytes; none only at the end."""
        pending = b""
        while count:
            if self._decoder.eof:
                pending = self._next_stream()
                if not pending:
                    return b""
            elif self._decoder.needs_input and not pending:
                pending = self._source.read(PIECE)
                if not pending:
                    raise self._damaged("it ends too early")
            data = self._decompress(pending, count)
            pending = b""
            self.count += len(data)
            if data:
                return data
        return b""

    def readinto(self, view: memoryview) -> int:
        """Some of the next bytes; returns how many, 0 only at the end."""
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _next_stream(self) -> bytes:
        """The beginning of a stream that follows; empty where there is only padding of zeros."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest:
            data = self._source.read(PIECE)
            if not data:
                return b""
            rest = data.lstrip(b"\0")
        self._decoder = self._kind.decoder()
        return rest

    def _decompress(self, data: bytes, count: int) -> bytes:
        try:
            return self._decoder.decompress(data, count)
        except MemoryError:
            raise
        except Exception as error:  # each library has its own: zlib.error, OSError, LZMAError, …
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> FormatError:
        return FormatError(self._source.name, f"the {self._kind.name} stream is damaged: {what}")


class InflatedSource(Source):
    """A compressed source, decompressed."""

    def __init__(self, source: Source, kind: Compression) -> None:
        self._inflater = Inflater(source, kind)
        super().__init__(cast(IO[bytes], self._inflater), source.name)
        self._compressed, self.compression = source, kind.name
        self._is_copied = False

    @property
    def can_be_opened_again(self) -> bool:
        """Whether the path of the compressed source is that of a plain file."""
        return self._compressed.can_be_opened_again

    def make_seekable(self) -> None:
        """Copy it to a temporary file, unless it is far larger than its compressed form."""
        self._is_copied = True
        super().make_seekable()

    def verify(self) -> None:
        """An error where the compressed file has changed since it was opened."""
        self._compressed.verify()

    def _into(self, view: Any) -> int:
        count = super()._into(view)
        allowed = FREE + MAX_RATIO * self._compressed.position
        if self._is_copied and self._inflater.count > allowed:
            what = f"more than {MAX_RATIO} times as large as its {self.compression} stream"
            raise FormatError(self.name, what, "decompress it first, and give the file")
        return count
