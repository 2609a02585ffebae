"""Writes llama.cpp's .kld files from their published layout; nothing of the package is used."""

import struct

import numpy as np


def log_softmax(logits):
    """Log-probabilities in float64."""
    z = np.asarray(logits, dtype=np.float64)
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def row_bytes(logits):
    """One row: scale, least log-probability, and a code of 16 bits for each class."""
    z = np.asarray(logits, dtype=np.float32)
    top = z.max()
    least = max(z.min(), np.float32(top - 16))
    total = np.log(np.exp((z - top).astype(np.float64)).sum())
    scale = np.float32((top - least) / np.float32(65535))
    codes = np.zeros(2 * ((len(z) + 1) // 2), dtype="<u2")
    if scale:
        codes[: len(z)] = np.where(z > least, np.rint((z - least) / scale), 0)
    return struct.pack("<ff", scale, np.float32(least - top - total)) + codes.tobytes()


def kld(logits, tokens):
    """The file: logits (chunks, rows per chunk, V), tokens (chunks, n_ctx)."""
    logits, tokens = np.asarray(logits), np.asarray(tokens, dtype="<i4")
    chunks, rows, vocabulary = logits.shape
    n_ctx = tokens.shape[1]
    assert rows == n_ctx - 1 - n_ctx // 2
    head = b"_logits_" + struct.pack("<iii", n_ctx, vocabulary, chunks) + tokens.tobytes()
    data = head + b"".join(row_bytes(row) for chunk in logits for row in chunk)
    row_length = 2 * ((vocabulary + 1) // 2) + 4
    assert len(data) == 20 + 4 * chunks * n_ctx + 2 * chunks * rows * row_length
    return data


def predicted(tokens):
    """The token that each row predicts."""
    tokens = np.asarray(tokens)
    return tokens[:, tokens.shape[1] // 2 + 1 :].reshape(-1)
