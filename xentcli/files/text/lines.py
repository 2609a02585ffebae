"""Lines of text from a source, some at a time, with the line number of the first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from mmap import mmap
from typing import TypeAlias

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import FormatError
from xentcli.files.source import Source

NAMES = 64  # chunks of a header line that is kept: 4 MiB
CHUNK = 1 << 16  # bytes read at a time: their numbers still fit into the CPU cache
LONG = 1 << 22  # bytes of a line, from which on its memory is given back chunk by chunk
LONGEST = 1 << 27  # bytes of a line; a whole line has to be in memory
_BLANKS = b" \r\n"
Chunk: TypeAlias = bytes | mmap


class Lines:
    """Complete lines, each ended by a line feed, without blank lines at the end.

    They come in chunks as they were read, since a line may be long. Blank lines are held back
    until it is known whether more text follows: at the end they are ignored, elsewhere they are an
    error. Of several in a row the first is kept. A line feed in quotes ends no line here, and is
    counted in line numbers.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rest = b""
        self._complete = 0  # lines, in all
        self._inner = 0  # line feeds in quotes, in the chunks before the last
        self._blank = (0, b"")  # the first of the blank lines that are held back

    def skip(self) -> bytes:
        """Skip one line, whatever it holds; the line, or nothing if it is very long."""
        chunks = self._read()
        if not chunks:
            return b""
        is_open = any(_parity(chunk) for chunk in list(chunks)[:-1])
        ends = _ends(chunks[-1], is_open)
        end = int(ends[0]) + 1 if len(ends) else len(chunks[-1])  # else a quote is not closed
        line = chunks[-1][:end]
        self._rest = chunks[-1][end:] + self._rest
        self._complete -= _count(chunks[-1][end:])
        return b"".join(c[:] for c in [*list(chunks)[:-1], line]) if len(chunks) <= NAMES else b""

    def read(self) -> tuple[int, deque[Chunk]]:
        """The next lines and the line number of the first; no chunks at the end."""
        while chunks := self._read():
            last = chunks[-1][:]
            before = self._complete - _count(last)
            number = before - self._inner + 1
            filled = len(last.rstrip(_BLANKS))
            is_blank = not filled and not any(chunk[:].strip(_BLANKS) for chunk in chunks)
            end = 0 if is_blank else last.find(b"\n", filled) + 1
            blank = last[end : last.find(b"\n", end) + 1]
            after = (before + _count(last[:end]) + 1 if blank else 0, blank)
            held = self._blank
            self._blank = held if is_blank and held[1] else after
            if not is_blank:
                chunks[-1] = last[:end]
                if held[1]:
                    chunks.appendleft(held[1])
                return held[0] or number, chunks
        return 0, deque()

    def left(self) -> int:
        """The number of lines that are not read yet; they can still be read afterwards."""
        before = self._rest, self._complete, self._blank
        count = 0
        with self._source.lookahead():
            while chunks := self.read()[1]:
                count += _lines(chunks)
        self._rest, self._complete, self._blank = before
        return count

    def _read(self) -> deque[Chunk]:
        """Text up to a line feed, which is in the last chunk; the last line gets one if need be."""
        chunks: deque[Chunk] = deque()
        text, size, is_open, self._inner = self._rest, 0, False, 0
        if b"\n" not in text:
            text += self._source.read(CHUNK)
        while text:
            end, is_open = _last_end(text, is_open)
            chunks.append(text[:end] if end else _parked(text) if size > LONG else text)
            self._rest = text[end:] if end else b""
            size += len(text)
            if end:
                break
            self._inner += _count(text) if b"\n" in text else 0
            if size > LONGEST:
                what = f"line {self._complete + 1} is longer than {LONGEST} bytes"
                hint = "a quote in it is not closed" if is_open else None
                raise FormatError(self._source.name, what, hint)
            text = self._source.read(CHUNK)
        if chunks and chunks[-1][-1:] != b"\n":
            chunks[-1] = chunks[-1][:] + b"\n"
        self._complete += self._inner + _count(chunks[-1]) if chunks else 0
        return chunks


def _parked(data: bytes) -> mmap:
    """Bytes in memory that goes back to the system when they are freed, as malloc's does not."""
    memory = mmap(-1, len(data))
    memory.write(data)
    return memory


def _count(text: Chunk) -> int:
    """The number of line feeds; several times as fast as `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def _parity(text: Chunk) -> bool:
    """Whether there is an odd number of quotes."""
    return bool(text[:].count(b'"') % 2)


def _ends(text: Chunk, is_open: bool) -> Array:
    """The places of the line feeds outside of quotes; `is_open` if the text begins in them."""
    signs = np.frombuffer(text, np.uint8)
    quotes = np.cumsum(signs == ord('"')) + is_open
    return np.flatnonzero((signs == ord("\n")) & (quotes % 2 == 0))


def _last_end(text: bytes, is_open: bool) -> tuple[int, bool]:
    """Where the last complete line ends, 0 if none does; and whether a quote is open at the end."""
    if b'"' not in text:
        return (0 if is_open else text.rfind(b"\n") + 1), is_open
    ends = _ends(text, is_open)
    return (int(ends[-1]) + 1 if len(ends) else 0), _parity(text) != is_open


def _lines(chunks: Iterable[Chunk]) -> int:
    """The number of complete lines."""
    count, is_open = 0, False
    for chunk in chunks:
        if is_open or chunk.find(b'"') >= 0:
            count += len(_ends(chunk, is_open))
            is_open ^= _parity(chunk)
        else:
            count += _count(chunk)
    return count
