"""What the metadata of a zarr array say, checked before anything is allocated for it.

Versions 2 (.zarray) and 3 (zarr.json). The JSON is read here and not by zarr: zarr-python has no
bfloat16, and the codec `pickle` of version 2 would run whatever a chunk says.
Specification: https://zarr-specs.readthedocs.io
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, TypeAlias

import numpy as np

from xentcli.arrays.dtypes import BF16, Array
from xentcli.errors import SHOWN, DtypeError, FormatError, shown, visible
from xentcli.files.contiguous import Extent
from xentcli.files.zarr.fill import fill_value
from xentcli.records import dataclass

Document: TypeAlias = "dict[str, Any]"
Shape: TypeAlias = "tuple[int, ...]"

MAX_AXES = 64  # NumPy's own limit
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
NAMED = {n: np.dtype(n) for n in ("bool", "float16", "float32", "float64", *INTEGERS)}
OPAQUE = np.dtype("V2")  # two bytes without a meaning, which may be those of bfloat16
SHARDING = "sharding_indexed"
NOT_COMPRESSION = ("bytes", SHARDING, "transpose", "crc32c")
ANY_CODE = "pickle"  # the codec that runs whatever a chunk says
SUPPORTED = "supported: float16, bfloat16, float32, float64, integers"


@dataclass(frozen=True)
class ZarrArray:
    """An array as its metadata describe it.

    `chunks` are what is decoded at a time, `stored` what a file holds: a chunk, or a shard of
    chunks. `plain` is whether a file is the numbers and nothing else. `document` is what zarr gets
    to open it. `dtype` is None where xent has none such, which is then called `dtype_name`.
    """

    key: str
    version: int
    shape: Shape
    chunks: Shape
    stored: Shape
    dtype: np.dtype[Any] | None
    dtype_name: str
    fill: Array
    separator: str
    prefix: str
    plain: bool
    compression: str
    document: Document

    @property
    def grid(self) -> Shape:
        """How many files there are along each axis."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.stored, strict=True))

    def file_key(self, place: Shape) -> str:
        """The key of the file at a place of the grid."""
        parts = [*([self.prefix] if self.prefix else []), *map(str, place)] or ["0"]
        name = self.separator.join(parts)
        return f"{self.key}/{name}" if self.key else name

    def place_of(self, name: str) -> Shape | None:
        """The place of a file in the grid, by its key below the array; None for other files."""
        parts = re.split(r"[/.]", name)
        if self.prefix and parts[:1] == [self.prefix]:
            parts = parts[1:]
        parts = [] if not self.shape and parts == ["0"] else parts
        if len(parts) != len(self.shape) or not all(part.isdecimal() for part in parts):
            return None
        place = tuple(map(int, parts))
        inside = all(n < size for n, size in zip(place, self.grid, strict=True))
        return place if inside else None

    def is_same(self, other: ZarrArray) -> bool:
        """Whether the metadata are the same; as text, in which NaN is equal to NaN."""
        return json.dumps(self.document) == json.dumps(other.document)

    def require_dtype(self, where: str) -> np.dtype[Any]:
        """The dtype; an error where xent has none such."""
        if self.dtype is None:
            raise DtypeError(where, f"dtype {self.dtype_name} is not supported", SUPPORTED)
        return self.dtype


def parse_json(raw: bytes, where: str) -> Document:
    """The object in a file of metadata."""
    try:
        found = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(where, f"is not valid JSON: {visible(str(error)[:200])}") from error
    if not isinstance(found, dict):
        raise FormatError(where, "does not hold a JSON object")
    return found


def parse_array(document: Document, version: int, key: str, where: str) -> ZarrArray:
    """An array from its metadata."""
    _refuse_pickle(document, where)
    shape = _sizes(document.get("shape"), "shape", 0, where)
    make = _version_3 if version == 3 else _version_2
    array = make(document, key, shape, where)
    if len(array.chunks) != len(shape) or len(array.stored) != len(shape):
        raise FormatError(where, f"shape {shape} and chunks {array.stored} differ in axes")
    if any(big % small for big, small in zip(array.stored, array.chunks, strict=True)):
        what = f"shards {array.stored} are not made of whole chunks {array.chunks}"
        raise FormatError(where, what)
    dtype = array.dtype or np.dtype(np.uint8)
    for size in (shape, array.stored):
        if Extent(shape=size, dtype=dtype).is_too_large:
            raise FormatError(where, f"shape {size} is larger than the address space")
    return array


def _version_3(document: Document, key: str, shape: Shape, where: str) -> ZarrArray:
    stored = chunks = _regular_grid(document, where)
    codecs = document.get("codecs")
    if not isinstance(codecs, list) or not codecs:
        raise FormatError(where, "the metadata name no codecs")
    first = _codec(codecs[0], where)
    if first["name"] == SHARDING:
        chunks = _sizes(first["configuration"].get("chunk_shape"), "chunk_shape", 1, where)
    name, dtype = _dtype_3(document.get("data_type"), where)
    plain = len(codecs) == 1 and first["name"] == NOT_COMPRESSION[0]
    if plain and dtype is not None and first["configuration"].get("endian") == "big":
        dtype = dtype.newbyteorder(">") if dtype.kind != "V" else dtype
    used = dict.fromkeys(_names_of(codecs))
    prefix, separator = _key_encoding(document, where)
    return ZarrArray(
        key, 3, shape, chunks, stored, dtype, name, fill_value(document, dtype, where),
        prefix=prefix, separator=separator, plain=plain,
        compression="+".join(name for name in used if name not in NOT_COMPRESSION),
        document=_for_zarr(document, "data_type", "uint16", dtype, where),
    )  # fmt: skip


def _regular_grid(document: Document, where: str) -> Shape:
    """The shape of what one file holds."""
    grid = _named(document, "chunk_grid", where)
    if grid["name"] != "regular" or document.get("storage_transformers"):
        what = f"chunk grid {shown(grid['name'])}; only regular ones without storage transformers"
        raise FormatError(where, f"{what} are supported")
    return _sizes(grid["configuration"].get("chunk_shape"), "chunk_shape", 1, where)


def _key_encoding(document: Document, where: str) -> tuple[str, str]:
    """What the keys of chunks begin with, and what is between their numbers."""
    keys = _named(document, "chunk_key_encoding", where)
    prefix, usual = {"default": ("c", "/"), "v2": ("", ".")}.get(keys["name"], ("", ""))
    separator = keys["configuration"].get("separator", usual)
    return prefix, _separator(separator, where)


def _separator(value: Any, where: str) -> str:
    if value not in ("/", "."):
        raise FormatError(where, f"chunk keys with the separator {shown(value)}; allowed: / and .")
    return str(value)


def _version_2(document: Document, key: str, shape: Shape, where: str) -> ZarrArray:
    chunks = _sizes(document.get("chunks"), "chunks", 1, where)
    name, dtype = _dtype_2(document.get("dtype"), where)
    codecs = [document.get("compressor"), document.get("filters")]
    used = list(_names_of(codecs))
    return ZarrArray(
        key, 2, shape, chunks, chunks, dtype, name, fill_value(document, dtype, where),
        prefix="",
        separator=_separator(document.get("dimension_separator", "."), where),
        plain=not any(codecs) and document.get("order", "C") == "C",
        compression="+".join(used),
        document=_for_zarr(document, "dtype", "<u2", dtype, where),
    )  # fmt: skip


def _for_zarr(
    document: Document, field: str, bits: str, dtype: np.dtype[Any] | None, where: str
) -> Document:
    """The metadata as zarr gets them: two-byte dtypes that it does not have are integers."""
    if dtype in (BF16, OPAQUE):
        fill = int(fill_value(document, dtype, where).view(np.uint16)[0])
        document = {**document, field: bits, "fill_value": fill}
    return {name: value for name, value in document.items() if name != "consolidated_metadata"}


def _dtype_3(value: Any, where: str) -> tuple[str, np.dtype[Any] | None]:
    """The name of a dtype, and the dtype where xent has it."""
    if isinstance(value, Mapping):
        length = (value.get("configuration") or {}).get("length_bytes")
        value = value.get("name")
        value = "r16" if value == "raw_bytes" and length == 2 else value
    if not isinstance(value, str):
        raise DtypeError(where, f"data_type {shown(value)} is not one of zarr", SUPPORTED)
    known = {**NAMED, "bfloat16": BF16, "r16": OPAQUE}
    return visible(value[:SHOWN]), known.get(value)


def _dtype_2(value: Any, where: str) -> tuple[str, np.dtype[Any] | None]:
    if value == "bfloat16":  # as TensorStore writes it
        return value, BF16
    try:
        dtype = np.dtype(value if isinstance(value, str) else "V1")
    except (TypeError, ValueError) as error:
        raise DtypeError(where, f"dtype {shown(value)} is not one of zarr", SUPPORTED) from error
    known = dtype in (*NAMED.values(), OPAQUE) or dtype.newbyteorder("=") in NAMED.values()
    name = value if isinstance(value, str) else "structured"
    return visible(name[:SHOWN]), dtype if known else None


def _sizes(value: Any, what: str, low: int, where: str) -> Shape:
    """A list of sizes that fit 64 bits; true is no size."""
    fits = isinstance(value, list) and all(type(n) is int and low <= n < 2**63 for n in value)
    if not fits or len(value) > MAX_AXES:
        what = f"{what} {shown(value)} is not a list of at most {MAX_AXES} sizes"
        raise FormatError(where, what)
    return tuple(value)


def _named(document: Document, field: str, where: str) -> Document:
    return _codec(document.get(field), f"{where}: {field}")


def _codec(value: Any, where: str) -> Document:
    """A name with a configuration, which may be left out."""
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise FormatError(where, f"{shown(value)} has no name")
    configuration = value.get("configuration") or {}
    if not isinstance(configuration, dict):
        raise FormatError(where, f"the configuration of {shown(value['name'])} is no object")
    return {"name": value["name"], "configuration": configuration}


def _names_of(value: Any) -> Iterator[str]:
    """The names of all codecs, those inside shards too."""
    if isinstance(value, list):
        for item in value:
            yield from _names_of(item)
    elif isinstance(value, dict):
        yield visible(str(value.get("name", value.get("id", ""))))
        configuration = value.get("configuration")
        if isinstance(configuration, dict):
            yield from _names_of(configuration.get("codecs"))
    elif isinstance(value, str):
        yield visible(value)


def _refuse_pickle(value: Any, where: str) -> None:
    """An error for a codec that runs any code when a chunk is read."""
    codecs = [value.get(name) for name in ("codecs", "filters", "compressor")]
    if any(ANY_CODE in name.lower() for name in _names_of(codecs)):
        what = "its chunks are pickles, which can run any code when they are opened"
        raise FormatError(where, what, "write the array again with a dtype of numbers")


def nbytes(array: ZarrArray) -> int:
    """The size of all numbers."""
    return prod(array.shape) * (array.dtype.itemsize if array.dtype else 0)
