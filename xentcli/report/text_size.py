"""The size of the text whose tokens are the rows: in bytes, and in words."""

from __future__ import annotations

from collections.abc import Iterator

from xentcli.files.source import open_source

CHUNK = 1 << 20


def byte_count(path: str) -> int:
    """The size of a file in bytes."""
    return sum(map(len, _parts(path)))


def word_count(path: str) -> int:
    """The number of words of a file: of runs of bytes that are not ASCII white space."""
    words, inside = 0, False
    for part in _parts(path):
        words += len(part.split())
        words -= inside and not part[:1].isspace()  # the word goes on
        inside = not part[-1:].isspace()
    return words


def _parts(path: str) -> Iterator[bytes]:
    with open_source(path) as source:
        while part := source.read(CHUNK):
            yield part
        source.verify()
