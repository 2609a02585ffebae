"""The hash of files and keys of the cache.

`hashlib` would load OpenSSL for it, which takes 2 to 8 ms of each command.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # another Python than CPython
    from hashlib import blake2b


def checksum(*parts: bytes) -> bytes:
    """32 bytes: BLAKE2b of all parts together."""
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.digest()
