"""gzip, xz, bzip2 and zstd around any format: read from anywhere, written by suffix.

Streams that follow each other are read as one. One that is cut, or followed by other bytes than
zeros, is an error; `gzip`, `bz2` and `lzma` of the standard library ignore some of these.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from xentcli.errors import UnavailableError
from xentcli.records import dataclass

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xentcli.arrays.dtypes import Array
    from xentcli.files.sink import Writable
    from xentcli.files.writer import Writer

MAX_MEMORY = 1 << 28  # bytes for decompressing one stream
BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first, or the end of an empty file


class Decoder(Protocol):
    """What decompresses one stream; the standard library's for bzip2 and xz are such."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without more input."""

    @property
    def unused_data(self) -> bytes:
        """What follows the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most that many of the next bytes."""


class Encoder(Protocol):
    """What compresses one stream."""

    def compress(self, data: Any, /) -> bytes:
        """The next compressed bytes."""

    def flush(self) -> bytes:
        """The last compressed bytes."""


class GzipDecoder:
    """zlib's decompressor for one gzip stream, as the others are."""

    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(31)  # with gzip's header and checksum
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        """What follows the stream."""
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most that many of the next bytes."""
        found = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(found) < max_length and not self._zlib.unconsumed_tail
        return found


def _gzip_encoder() -> Encoder:
    import zlib

    return zlib.compressobj(wbits=31)


def _bzip2_decoder() -> Decoder:
    import bz2

    return bz2.BZ2Decompressor()


def _bzip2_encoder() -> Encoder:
    import bz2

    return bz2.BZ2Compressor()


def _xz_decoder() -> Decoder:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_MEMORY)


def _xz_encoder() -> Encoder:
    import lzma

    return lzma.LZMACompressor()


def _zstd() -> Any:
    from importlib import import_module

    for name in ("compression.zstd", "backports.zstd"):  # the first from Python 3.14
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UnavailableError(
        "zstd",
        "files compressed with zstd need the extra zstd",
        "pip install 'xentcli[zstd]', or: zstd -dc FILE | xent … -",
    )


def _zstd_decoder() -> Decoder:
    decoder: Decoder = _zstd().ZstdDecompressor()
    return decoder


def _zstd_encoder() -> Encoder:
    encoder: Encoder = _zstd().ZstdCompressor()
    return encoder


@dataclass(frozen=True)
class Compression:
    """A kind of compression; the suffix of its files has no dot."""

    name: str
    suffix: str
    matches: Callable[[bytes], bool]
    decoder: Callable[[], Decoder]
    encoder: Callable[[], Encoder]
    require: Callable[[], object] = tuple  # an error where its library is not installed


def _is_bzip2(start: bytes) -> bool:
    return start.startswith(b"BZh") and start[4:10] in BZIP2_BLOCKS


def _is_zstd(start: bytes) -> bool:
    return start.startswith(b"(\xb5/\xfd")


COMPRESSIONS = (
    Compression("gzip", "gz", lambda b: b[:3] == b"\x1f\x8b\x08", GzipDecoder, _gzip_encoder),
    Compression("xz", "xz", lambda b: b[:6] == b"\xfd7zXZ\0", _xz_decoder, _xz_encoder),
    Compression("bzip2", "bz2", _is_bzip2, _bzip2_decoder, _bzip2_encoder),
    Compression("zstd", "zst", _is_zstd, _zstd_decoder, _zstd_encoder, _zstd),
)


def by_first_bytes(start: bytes) -> Compression | None:
    """The compression of a file that starts like this."""
    return next((kind for kind in COMPRESSIONS if kind.matches(start)), None)


def by_suffix(path: str) -> Compression | None:
    """The compression that the suffix of a path names.

    >>> getattr(by_suffix("a.npy.GZ"), "name", None), by_suffix("a.npy")
    ('gzip', None)
    """
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    return next((kind for kind in COMPRESSIONS if kind.suffix == suffix), None)


def require_library(path: str) -> None:
    """An error where an output asks for a compression that is not available."""
    kind = by_suffix(path)
    if kind:
        kind.require()


def without_suffix(path: str) -> str:
    """The path without the suffix of a compression.

    >>> without_suffix("a.npy.gz"), without_suffix("a.gz"), without_suffix("a.npy")
    ('a.npy', 'a', 'a.npy')
    """
    return path[: -len(PurePath(path).suffix)] if by_suffix(path) else path


class CompressedStream:
    """A stream that compresses what is written to it."""

    def __init__(self, stream: Writable, kind: Compression) -> None:
        self._stream, self._encoder = stream, kind.encoder()

    def write(self, data: Buffer, /) -> int:
        """Write the next bytes."""
        self._stream.write(self._encoder.compress(data))
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: what the encoder keeps comes with `finish`."""

    def finish(self) -> None:
        """Write the end of the compressed stream."""
        self._stream.write(self._encoder.flush())


class CompressedWriter:
    """A writer whose bytes are compressed on their way to the stream."""

    def __init__(
        self, stream: Writable, kind: Compression, create: Callable[[Writable], Writer]
    ) -> None:
        self._stream = CompressedStream(stream, kind)
        self._writer = create(self._stream)

    def write(self, values: Array) -> None:
        """Write the next numbers."""
        self._writer.write(values)

    def finish(self) -> None:
        """Write what comes after the last number, and the end of the stream."""
        self._writer.finish()
        self._stream.finish()


def compressed(data: bytes, path: str) -> bytes:
    """Bytes as they are in a file of this name."""
    kind = by_suffix(path)
    if kind is None:
        return data
    encoder = kind.encoder()
    return encoder.compress(data) + encoder.flush()
