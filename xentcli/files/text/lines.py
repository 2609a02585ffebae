"""Lines of text from a source, some at a time, with the line number of the first."""

from __future__ import annotations

import numpy as np

from xentcli.errors import FormatError
from xentcli.files.source import Source

CHUNK = 1 << 19  # bytes read at a time: their numbers still fit into the CPU cache
LONGEST = 1 << 27  # bytes of a line; a whole line has to be in memory
_BLANKS = b" \r\n"


class Lines:
    """Complete lines, each ended by a line feed alone, without blank lines at the end.

    Blank lines are held back until it is known whether more text follows: at the end they are
    ignored, elsewhere they are an error. Of several in a row the first is kept.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rest = b""
        self._complete = 0  # lines, in all
        self._blank = (0, b"")  # the first of the blank lines that are held back

    def skip(self) -> bytes:
        """Skip one line, whatever it holds; the line."""
        text = self._read()
        end = text.find(b"\n") + 1
        self._rest = text[end:] + self._rest
        self._complete -= _count(text[end:])
        return text[:end]

    def read(self) -> tuple[int, bytes]:
        """The next lines and the line number of the first; no bytes at the end."""
        while text := self._read():
            number = self._complete - _count(text) + 1
            if b"\r" in text:  # searching is faster than replacing
                text = text.replace(b"\r\n", b"\n")
            filled = len(text.rstrip(_BLANKS))
            end = text.find(b"\n", filled) + 1 if filled else 0
            blank = text[end : text.find(b"\n", end) + 1]
            after = (number + _count(text[:end]) if blank else 0, blank)
            held = self._blank
            if filled:
                self._blank = after
                return (held[0], held[1] + text[:end]) if held[1] else (number, text[:end])
            self._blank = held if held[1] else after
        return 0, b""

    def left(self) -> int:
        """The number of lines that are not read yet; they can still be read afterwards."""
        before = self._rest, self._complete, self._blank
        with self._source.lookahead():
            count = sum(_count(text) for _, text in iter(self.read, (0, b"")))
        self._rest, self._complete, self._blank = before
        return count

    def _read(self) -> bytes:
        """Text up to a line feed; the last line gets one if it has none."""
        parts, size, end = [self._rest], len(self._rest), 0
        self._rest = b""
        while not end and (data := self._source.read(CHUNK)):
            end = data.rfind(b"\n") + 1
            parts.append(data[: end or None])
            self._rest = data[end:] if end else b""
            size += len(data)
            if size > LONGEST and not end:
                number = self._complete + _count(parts[0]) + 1
                what = f"line {number} is longer than {LONGEST} bytes"
                raise FormatError(self._source.name, what)
        text = b"".join(parts)
        text += b"\n" if text and not text.endswith(b"\n") else b""
        self._complete += _count(text)
        return text


def _count(text: bytes) -> int:
    """The number of line feeds; several times as fast as `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
