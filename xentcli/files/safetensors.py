"""Hugging Face's .safetensors files: a JSON header, then the numbers of all arrays.

Read in order and in pieces, from pipes too; the package of that name maps the whole file, and has
no bfloat16 or float8 under NumPy. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, Array, name_of
from xentcli.errors import DtypeError, FormatError, visible
from xentcli.files import float8
from xentcli.files.contiguous import (
    ContiguousReader,
    Extent,
    check_size,
    ended_early,
    finish,
    little_endian,
)
from xentcli.files.format import Facts, Inspected, of_each
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions
from xentcli.files.reader import Reader, pieces
from xentcli.files.sink import Writable
from xentcli.files.source import Source
from xentcli.records import dataclass

MAX_HEADER = 100_000_000  # the package's own limit
MAX_AXES = 64  # NumPy's own limit
METADATA = "__metadata__"
FIELDS = ("dtype", "shape", "data_offsets")

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"{kind}{8 * n}": np.dtype(f"<{kind.lower()}{n}") for kind in "IU" for n in (1, 2, 4, 8)},
    **{f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
    "BF16": BF16,
}
FLOAT8 = {"F8_E4M3": ("float8_e4m3fn", float8.e4m3), "F8_E5M2": ("float8_e5m2", float8.e5m2)}
OTHERS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "C64": 64}  # only inspected
BITS = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} | OTHERS
BITS |= dict.fromkeys(FLOAT8, 8)


@dataclass(frozen=True)
class Tensor:
    """What the header says about one array: its place counts from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The arrays of a file in the order of their numbers, and what else the header says."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    start: int  # of the numbers, in bytes
    nbytes: int  # of all numbers


def open_safetensors(source: Source, options: ReadOptions) -> Reader:
    """The reader of the array that the options name, or of the only one."""
    header = read_header(source)
    return _reader(source, header, choose_key(list(header.tensors), options, source.name))


def member_names(source: Source) -> list[str]:
    """The names of the arrays."""
    return list(read_header(source).tensors)


def inspect_safetensors(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every array, or about the one that the options name."""
    from xentcli.files.statistics import statistics  # reading does not need it

    header = read_header(source)
    keys = list(header.tensors)
    if options.key is not None:
        keys = [choose_key(keys, options, source.name)]

    def facts_of(key: str) -> Facts:
        facts = _facts(header.tensors[key], f"{source.name}[{visible(key)}]")
        facts |= {"metadata": header.metadata} if header.metadata else {}
        if stats and header.tensors[key].dtype in (*DTYPES, *FLOAT8):
            facts |= statistics(pieces(_reader(source, header, key)))
        return facts

    yield from of_each(keys, facts_of)
    everything = Extent(shape=(header.nbytes,), dtype=np.dtype(np.uint8), start=header.start)
    source.skip(header.start + header.nbytes - source.position)
    if source.position < header.start + header.nbytes:
        raise ended_early(source, everything)
    finish(source, everything)  # a pipe is read to its end, or its writer would be killed


def _facts(tensor: Tensor, name: str) -> Facts:
    known = DTYPES.get(tensor.dtype)
    return {
        "name": name,
        "format": "safetensors",
        "shape": tensor.shape,
        "dtype": name_of(known) if known else FLOAT8.get(tensor.dtype, (tensor.dtype, None))[0],
        "order": "C",
        "byte_order": "none" if BITS[tensor.dtype] <= 8 else "little",
        "nbytes": tensor.end - tensor.start,
    }


def _reader(source: Source, header: Header, key: str) -> Reader:
    """The reader of one array, before which the source is."""
    tensor, where = header.tensors[key], f"{source.name}[{visible(key)}]"
    name, values = FLOAT8.get(tensor.dtype, (tensor.dtype, None))
    if not values and tensor.dtype not in DTYPES:
        supported = ", ".join([*DTYPES, *FLOAT8])
        raise DtypeError(where, f"dtype {name} is not supported", f"supported: {supported}")
    extent = Extent(
        shape=tensor.shape,
        dtype=np.dtype(np.uint8) if values else DTYPES[tensor.dtype],
        start=header.start + tensor.start,
        after=header.nbytes - tensor.end,
    )
    if extent.is_too_large:
        raise FormatError(where, f"shape {tensor.shape} is larger than the address space")
    source.skip(extent.start - source.position)
    if source.position < extent.start:
        raise FormatError(
            source.name, f"ends {extent.start - source.position} bytes before '{visible(key)}'"
        )
    reader = ContiguousReader(source, extent, "safetensors")
    return float8.Float8Reader(reader, values()) if values else reader


def read_header(source: Source) -> Header:
    """Parse the header; the next byte of the stream is the first of the numbers."""
    where = source.name
    start = source.read(8)
    if not start:
        raise FormatError(where, "the file is empty")
    length = int.from_bytes(start, "little")
    left = MAX_HEADER if source.size is None else min(source.size - 8, MAX_HEADER)
    if len(start) < 8 or length > left:
        what = f"not a safetensors file: its first 8 bytes announce a header of {length} bytes"
        raise FormatError(where, what, f"at most {max(left, 0)} are possible here")
    raw = source.read_buffer(length).tobytes()
    if len(raw) < length:
        raise FormatError(where, f"ends within the header: {len(raw)} of {length} bytes")
    tensors, metadata = _parse(raw, where)
    nbytes = _check_places(tensors, where)
    check_size(source, Extent(shape=(nbytes,), dtype=np.dtype(np.uint8), start=source.position))
    return Header(tensors, metadata, source.position, nbytes)


def _parse(raw: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The arrays in the order of their numbers, and the metadata."""
    try:
        if raw[:1] != b"{":
            raise ValueError("it does not start with '{'")
        entries = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(where, f"the header is not valid JSON: {visible(str(error))}") from error
    metadata = entries.pop(METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise FormatError(where, f"{METADATA} in the header is not an object of strings")
    tensors = {name: _tensor(name, entry, where) for name, entry in entries.items()}
    by_place = sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end))
    return dict(by_place), metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names '{twice}' twice")
    for name in found:
        name.encode()  # a lone surrogate is an error, which is a ValueError
    return found


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _tensor(name: str, entry: Any, where: str) -> Tensor:
    """One array as the header describes it, its size checked."""
    where = f"{where}[{visible(name)}]"
    if not isinstance(entry, dict) or entry.keys() != set(FIELDS):
        raise FormatError(where, f"the header does not say {', '.join(FIELDS)}, and only these")
    dtype, shape, offsets = (entry[field] for field in FIELDS)
    if not isinstance(dtype, str) or dtype not in BITS:
        what = f"dtype {visible(str(dtype)[:40])!r} is not one of safetensors"
        raise DtypeError(where, what, f"supported: {', '.join([*DTYPES, *FLOAT8])}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise FormatError(where, "shape and data_offsets in the header must be lists of integers")
    if len(shape) > MAX_AXES:
        raise FormatError(where, f"{len(shape)} axes; at most {MAX_AXES} are allowed")
    bits, (start, end) = prod(shape) * BITS[dtype], offsets
    if bits != 8 * (end - start):
        what = f"shape {tuple(shape)} of {dtype} needs {bits / 8:.15g} bytes, not {end - start}"
        raise FormatError(where, what)
    return Tensor(dtype, tuple(shape), start, end)


def _are_sizes(values: Any) -> bool:
    """Whether a value of JSON is a list of sizes that fit 64 bits; true is no size."""
    return isinstance(values, list) and all(type(x) is int and 0 <= x < 2**63 for x in values)


def _check_places(tensors: dict[str, Tensor], where: str) -> int:
    """The size of all arrays, which follow each other without holes or overlaps."""
    end = 0
    for name, tensor in tensors.items():
        if tensor.start != end:
            what = f"starts at byte {tensor.start} of the numbers, but those before end at {end}"
            raise FormatError(f"{where}[{visible(name)}]", what)
        end = tensor.end
    return end


def _header_bytes(members: Mapping[str, Extent]) -> bytes:
    """The header of arrays that follow each other."""
    entries, end = {}, 0
    for name, extent in members.items():
        dtype, start, end = extent.dtype.newbyteorder("="), end, end + extent.nbytes
        kind = next(key for key, known in DTYPES.items() if known == dtype)
        entries[name] = {"dtype": kind, "shape": extent.shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start aligned
    return len(text).to_bytes(8, "little") + text


def save_safetensors(stream: Writable, members: Mapping[str, Array]) -> None:
    """A file of several arrays, those of the widest numbers first: so all are aligned."""
    order = sorted(members.items(), key=lambda item: -item[1].dtype.itemsize)
    stream.write(_header_bytes({k: Extent(shape=a.shape, dtype=a.dtype) for k, a in order}))
    for _, array in order:
        stream.write(little_endian(np.ascontiguousarray(array).reshape(-1)))


class SafetensorsWriter:
    """A file with one array."""

    def __init__(
        self, stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], name: str
    ) -> None:
        self._stream = stream
        stream.write(_header_bytes({name: Extent(shape=shape, dtype=dtype)}))

    def write(self, values: Array) -> None:
        """The next numbers."""
        self._stream.write(little_endian(values))

    def finish(self) -> None:
        """Nothing follows the numbers."""
