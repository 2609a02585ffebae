"""llama.cpp's files of log-probabilities, as `perplexity --kl-divergence-base` writes them.

Little-endian: 8 bytes `_logits_`; int32 n_ctx, n_vocab, n_chunk; int32 tokens[n_chunk·n_ctx]; then
for each chunk n_ctx − 1 − n_ctx/2 rows of 2·((V+1)/2) + 4 uint16: float32 scale, float32
min_log_prob, and V codes (one of padding where V is odd).

    log p = scale·code + min_log_prob

Row j of a chunk predicts its token n_ctx/2 + j + 1. Classes 16 nats below the largest and more are
stored as if they were 16 nats below, so that the probabilities of a row may sum to more than 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array
from xentcli.errors import FormatError, Words
from xentcli.files.options import ReadOptions
from xentcli.files.reader import chunks
from xentcli.files.source import Source

MAGIC = b"_logits_"
HEAD = 4  # numbers of 2 bytes before the codes of a row: its scale and its least log p


def open_kld(source: Source, options: ReadOptions) -> KldReader:
    """The reader of the log-probabilities; they are float64, which holds them exactly."""
    start = source.read(len(MAGIC))
    if start != MAGIC:
        raise FormatError(source.name, f"not a .kld file: it starts with {start!r}")
    n_ctx, vocab, n_chunk = (int(n) for n in _integers(source, 3, "its header"))
    if n_ctx < 3 or vocab < 1 or n_chunk < 0:
        what = f"n_ctx {n_ctx}, n_vocab {vocab}, n_chunk {n_chunk}"
        raise FormatError(source.name, f"damaged header: {what} are not sizes of a .kld file")
    tokens = _integers(source, n_chunk * n_ctx, "its tokens").reshape(n_chunk, n_ctx)
    return KldReader(source, vocab, tokens)


def _integers(source: Source, count: int, what: str) -> Array:
    data = source.read_buffer(4 * count)
    if len(data) < 4 * count:
        raise FormatError(source.name, f"ends within {what}, after {source.position} bytes")
    return data.view("<i4")


class KldReader:
    """The log-probabilities (rows, V) of a .kld file, whole rows at a time."""

    format = "kld"
    best_count = 1
    remarks: tuple[Words, ...] = ()

    def __init__(self, source: Source, vocab: int, tokens: Array) -> None:
        self._source, self.name = source, source.name
        first = tokens.shape[1] // 2
        predicted = tokens[:, first + 1 :]
        self.shape, self.dtype, self.unit = (predicted.size, vocab), NAMES["f64"], vocab
        self._width = 2 * ((vocab + 1) // 2) + HEAD
        self._tokens = predicted.reshape(-1)
        expected = source.position + 2 * self._width * predicted.size
        if source.size is not None and source.size != expected:
            what = f"{source.size} bytes, but its header makes {expected}"
            raise FormatError(source.name, what)

    @property
    def targets(self) -> Array:
        """The token that each row predicts, int64 (rows,)."""
        return self._tokens.astype(np.int64)

    def make_buffer(self, count: int) -> None:
        """None: the numbers are computed."""

    def read(self, count: int, buffer: Array | None = None) -> Array:
        """The next rows, flat."""
        rows = count // self.unit
        data = self._source.read_buffer(2 * self._width * rows)
        if len(data) < 2 * self._width * rows:
            raise FormatError(self.name, f"ends within a row, after {self._source.position} bytes")
        codes = data.view("<u2").reshape(rows, self._width)
        scale, least = np.ascontiguousarray(codes[:, :HEAD]).view("<f4").astype(np.float64).T
        stored = codes[:, HEAD : HEAD + self.unit]
        return np.asarray(stored * scale[:, None] + least[:, None]).reshape(-1)

    def skip(self, count: int) -> None:
        """Skip the next rows."""
        self._source.skip(2 * self._width * (count // self.unit))

    def finish(self) -> None:
        """Check that nothing follows the last row and that the file has not changed."""
        if self._source.peek(1):
            raise FormatError(self.name, "data follow the last row")
        self._source.verify()

    def chunks(self) -> Iterator[Array]:
        """The whole array in pieces."""
        return chunks(self)

    def whole(self) -> Array:
        """The whole array."""
        array = self.read(prod(self.shape)).reshape(self.shape)
        self.finish()
        return array
