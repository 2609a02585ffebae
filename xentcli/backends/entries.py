"""Files of the cache: machine code under a checksum, which is verified before the code is loaded.

    8 bytes   b"xentcode"
    32 bytes  BLAKE2b of the rest of the file
    4 bytes   length of the key, little-endian
    4 bytes   length of the symbol
    8 bytes   length of the code
    the key, the symbol, the code

The key is text that names everything the code depends on; of it, the file's name has the hash.
"""

from __future__ import annotations

import struct

from xentcli.backends.checksum import checksum
from xentcli.backends.private_folder import DamagedError
from xentcli.records import dataclass

MAGIC = b"xentcode"
_LENGTHS = struct.Struct("<IIQ")
_START = len(MAGIC) + 32


@dataclass(frozen=True)
class Entry:
    """An object file, and the name of the function in it."""

    symbol: str
    code: bytes


def name_of(key: str) -> str:
    """The name of the file with this key."""
    return checksum(key.encode()).hex()[:32]


def pack(key: str, entry: Entry) -> bytes:
    """The bytes of a file."""
    parts = [key.encode(), entry.symbol.encode(), entry.code]
    rest = b"".join([_LENGTHS.pack(*map(len, parts)), *parts])
    return MAGIC + checksum(rest) + rest


def unpack(key: str, data: bytes) -> Entry:
    """What is in a file; an error unless each of its bytes is as it was written.

    >>> unpack("key", pack("key", Entry("f", b"code")))
    Entry(symbol='f', code=b'code')
    """
    rest = data[_START:]
    if data[:_START] != MAGIC + checksum(rest) or len(rest) < _LENGTHS.size:
        raise DamagedError("the checksum does not match")
    lengths = _LENGTHS.unpack_from(rest)
    if _LENGTHS.size + sum(lengths) != len(rest):
        raise DamagedError("the length does not match")
    symbol_at = _LENGTHS.size + lengths[0]
    code_at = symbol_at + lengths[1]
    if rest[_LENGTHS.size : symbol_at] != key.encode():
        raise DamagedError("it is for another kernel")
    return Entry(rest[symbol_at:code_at].decode(), rest[code_at:])
