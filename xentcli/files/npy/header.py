"""The header of .npy files, versions 1 to 3, and the array that follows it.

The header is parsed by its grammar and never evaluated: `numpy.load` runs Python's parser on it,
which a hostile file can crash or make allocate. Format: numpy.lib.format, NEP 1.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array
from xentcli.errors import DtypeError, FormatError
from xentcli.files.contiguous import Extent, check_size, ended_early, finish
from xentcli.files.foreign import PICKLE
from xentcli.files.source import Source
from xentcli.records import dataclass

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000  # NumPy's own limit
MAX_AXES = 64  # NumPy's own limit

_GAP = r"[ \t\n]*"
_VALUE = r"""'[^'\\]*'|"[^"\\]*"|True|False|\([0-9L, ]*\)"""
_KEY = r"""(?P<quote>['"])(?P<key>descr|fortran_order|shape)(?P=quote)"""
_ENTRY = re.compile(rf"{_GAP}{_KEY}{_GAP}:{_GAP}(?P<value>{_VALUE}){_GAP}(,|(?=\}}))")
_SIZE = "(?:0|[1-9][0-9]{0,18})L?"  # as Python writes integers, Python 2 included
_TUPLE = re.compile(rf"\( *((?:{_SIZE} *, *)*)({_SIZE})? *\)")
_DESCR = re.compile(r"[<>|=]?(f[248]|[iu][1248]|b1)|[<>|=]V2")
_NAMES = {f"float{8 * size}": f"<f{size}" for size in (2, 4, 8)}  # that other programs write
_NAMES |= {f"{u}int{8 * n}": f"<{u or 'i'}{n}" for u in ("", "u") for n in (1, 2, 4, 8)}


@dataclass(frozen=True, kw_only=True)
class Header(Extent):
    """What the header of an .npy file says about its array."""

    fortran_order: bool
    version: tuple[int, int]


def read_header(source: Source) -> Header:
    """Parse the header; the next byte of the stream is the first of the data."""
    where = source.name
    start = source.read(8)
    if not start:
        raise FormatError(where, "the file is empty")
    if start[:6] == MAGIC and len(start) < 8:
        raise FormatError(where, "ends after the signature, before the version")
    if start[:6] != MAGIC:
        raise FormatError(where, f"not an .npy file: it starts with {start[:6]!r}", _hint(start))
    major, minor = start[6], start[7]
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise FormatError(where, f"version {major}.{minor} of .npy is not supported: 1.0, 2.0, 3.0")
    width = 2 if major == 1 else 4
    length = int.from_bytes(_exactly(source, width, "the header's length"), "little")
    if length > MAX_HEADER:
        raise FormatError(where, f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    raw = _exactly(source, length, "the header")
    try:
        text = raw.decode("utf-8" if major == 3 else "latin-1")
    except UnicodeDecodeError as error:
        raise FormatError(where, f"byte {8 + width + error.start} is not UTF-8") from error
    return replace(_parse(text, where, (major, minor)), start=source.position)


def _hint(start: bytes) -> str | None:
    if start[:2] == b"PK":
        return "it looks like an .npz file (zip): read it with the format npz"
    if start[:1] == b"\x80":
        return f"it looks like {PICKLE.description}; {PICKLE.convert}"
    return None


def _exactly(source: Source, count: int, what: str) -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise FormatError(source.name, f"ends within {what}: {len(data)} of {count} bytes")
    return data


def _parse(text: str, where: str, version: tuple[int, int]) -> Header:
    entries = _entries(text.rstrip(" \n"), where)
    sizes = _sizes(entries.get("shape", ""), long=version != (3, 0))
    order, descr = entries.get("fortran_order"), entries.get("descr", "")
    if sizes is None or order not in ("True", "False") or descr[:1] not in ("'", '"'):
        raise FormatError(
            where,
            f"cannot parse the header: {text.strip()[:80]!r}",
            "expected descr, a plain dtype; fortran_order, True or False; shape, a tuple",
        )
    dtype = _dtype(descr[1:-1], where)
    header = Header(shape=sizes, dtype=dtype, fortran_order=order == "True", version=version)
    if len(sizes) > MAX_AXES:
        raise FormatError(where, f"{len(sizes)} axes; at most {MAX_AXES} are allowed")
    if header.is_too_large:
        raise FormatError(where, f"shape {sizes} is larger than the address space")
    return header


def _sizes(shape: str, long: bool) -> tuple[int, ...] | None:
    """The integers of a tuple, None for anything else; `long`: Python 2 may have written it."""
    found = _TUPLE.fullmatch(shape)
    in_brackets = found and found[2] and not found[1]  # (3) is a number, (3,) a tuple
    if not found or in_brackets or ("L" in shape and not long):
        return None
    return tuple(map(int, re.findall("[0-9]+", shape)))


def _entries(text: str, where: str) -> dict[str, str]:
    """The three entries of the header as text; none where the header is not such a dictionary."""
    entries: dict[str, str] = {}
    position = 1
    while match := _ENTRY.match(text, position):
        if match["key"] in entries:
            raise FormatError(where, f"the header names {match['key']!r} twice")
        entries[match["key"]] = match["value"]
        position = match.end()
    closed = text[:1] == "{" and text[position:].strip(" \t\n") == "}"
    return entries if closed else {}


def _dtype(descr: str, where: str) -> np.dtype[Any]:
    if descr == "bfloat16":
        return BF16
    descr = _NAMES.get(descr, descr)
    if not _DESCR.fullmatch(descr):
        raise DtypeError(
            where,
            f"dtype {descr[:40]!r} is not supported",
            "supported: float16, bfloat16 (as V2), float32, float64 and integers",
        )
    return np.dtype(descr)


def read_data(source: Source, header: Header) -> Array:
    """The array after its header."""
    check_size(source, header)
    data = source.read_buffer(header.nbytes)
    if len(data) < header.nbytes:
        raise ended_early(source, header)
    finish(source, header)
    flat = data.view(header.dtype)
    if header.fortran_order:
        return flat.reshape(header.shape[::-1]).T
    return flat.reshape(header.shape)
