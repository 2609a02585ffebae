"""PyTorch files as `torch.save` writes them since version 1.6: a zip with a pickle and numbers.

The numbers are stored and not compressed, so that they are read from the file as they are.
"""

from __future__ import annotations

import zipfile
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16
from xentcli.errors import DtypeError, FormatError, visible
from xentcli.files import float8, foreign
from xentcli.files.contiguous import SAFE, ContiguousReader, Extent
from xentcli.files.format import Facts, Inspected, of_each
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions
from xentcli.files.reader import InMemoryReader, Reader
from xentcli.files.source import Source
from xentcli.files.tensor_pickle import Tensor, tensors_of
from xentcli.files.zipped import DAMAGED, open_archive, open_member
from xentcli.records import dataclass

MAX_PICKLE = 1 << 26  # bytes; it holds names and shapes, and no numbers
MAX_AXES = 64  # NumPy's own limit

FLOATS = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bool": "?"}
INTEGERS = {f"{u}int{8 * n}": f"<{u or 'i'}{n}" for u in ("", "u") for n in (1, 2, 4, 8)}
DTYPES = {name: np.dtype(text) for name, text in (FLOATS | INTEGERS).items()} | {"bfloat16": BF16}
FLOAT8 = {"float8_e4m3fn": float8.e4m3, "float8_e5m2": float8.e5m2}
STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
UNTYPED = "UntypedStorage"
LOCAL_HEADER = 30  # bytes, before the name of a member


@dataclass(frozen=True)
class File:
    """A PyTorch file: its tensors, and the archive with their numbers."""

    source: Source
    archive: zipfile.ZipFile
    prefix: str  # of all members
    tensors: dict[str, Tensor]

    def where(self, key: str) -> str:
        """A tensor's name in messages."""
        return f"{self.source.name}[{visible(key)}]"


def open_pytorch(source: Source, options: ReadOptions) -> Reader:
    """The reader of the tensor that the options name, or of the only one."""
    file = _open(source)
    return _reader(file, choose_key(list(file.tensors), options, source.name))


def member_names(source: Source) -> list[str]:
    """The names of the tensors."""
    return list(_open(source).tensors)


def inspect_pytorch(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    """Facts about every tensor, or about the one that the options name."""
    file = _open(source)
    keys = list(file.tensors)
    if options.key is not None:
        keys = [choose_key(keys, options, source.name)]
    return of_each(keys, lambda key: _facts(file, key, stats))


def _facts(file: File, key: str, stats: bool) -> Facts:
    """Facts about one tensor."""
    from xentcli.files.statistics import statistics  # reading does not need it

    tensor = file.tensors[key]
    dtype = _dtype_name(tensor)
    facts: Facts = {"name": file.where(key), "format": "pt", "shape": tensor.shape}
    facts["dtype"] = dtype
    if stats and (dtype in DTYPES or dtype in FLOAT8):
        facts |= statistics(_reader(file, key).chunks())
    return facts


def _open(source: Source) -> File:
    """The archive and what its pickle describes."""
    start = source.peek(12)
    for format in (foreign.OLD_PYTORCH, foreign.PICKLE):
        if format.recognises(start):
            raise foreign.refusal(format, source.name)
    archive = open_archive(source, "a PyTorch file")
    members = archive.namelist()
    if len(set(members)) < len(members):
        raise FormatError(source.name, "the archive has two members of the same name")
    names = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(names) != 1:
        what = f"not a PyTorch file: the archive has {len(names)} members data.pkl, not one"
        raise FormatError(source.name, what)
    prefix = names[0].removesuffix("data.pkl")
    if _read(archive, f"{prefix}byteorder", source.name) not in (b"little", None):
        what = "numbers with the most significant byte first are not supported in PyTorch files"
        raise FormatError(source.name, what, foreign.PYTORCH_CONVERT)
    data = _read(archive, names[0], source.name)
    return File(source, archive, prefix, tensors_of(data or b"", source.name))


def _read(archive: zipfile.ZipFile, name: str, where: str) -> bytes | None:
    """A small member; None where there is none."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        return None
    if info.file_size > MAX_PICKLE:
        what = f"member '{visible(name)}' has {info.file_size} bytes"
        raise FormatError(where, what, f"at most {MAX_PICKLE} are allowed")
    return open_member(archive, info, name, where).read_buffer(info.file_size).tobytes()


def _dtype_name(tensor: Tensor) -> str:
    return tensor.dtype or STORAGES.get(tensor.storage.kind, tensor.storage.kind)


def _reader(file: File, key: str) -> Reader:
    """The reader of one tensor: in pieces where it is contiguous, else of the stretch it is in."""
    tensor, where = file.tensors[key], file.where(key)
    name = _dtype_name(tensor)
    dtype = DTYPES.get(name, np.dtype(np.uint8))
    if name not in DTYPES and name not in FLOAT8:
        supported = ", ".join([*DTYPES, *FLOAT8])
        raise DtypeError(where, f"dtype {name} is not supported", f"supported: {supported}")
    last = _check(tensor, dtype, where)
    if tensor.strides == _contiguous(tensor.shape) or last == tensor.offset:
        flat = _stretch(file, key, tensor.shape, dtype)
        values = FLOAT8.get(name)
        return float8.Float8Reader(flat, values()) if values else flat
    numbers = _stretch(file, key, (last - tensor.offset,), dtype).whole()
    steps = zip(tensor.shape, tensor.strides, strict=True)  # any stride is right for one number
    strides = tuple(stride * dtype.itemsize if size > 1 else 0 for size, stride in steps)
    view = np.ndarray(tensor.shape, dtype, numbers, 0, strides)
    if name in FLOAT8:
        view = FLOAT8[name]()[view]
    return InMemoryReader(view, where, "pt")


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of C order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _check(tensor: Tensor, dtype: np.dtype[Any], where: str) -> int:
    """The end of the numbers of a tensor in its storage, after a check that they are in there."""
    extent = Extent(shape=tensor.shape, dtype=dtype)
    if len(tensor.shape) > MAX_AXES or extent.is_too_large:
        raise FormatError(where, f"shape {tensor.shape} is larger than NumPy can have")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    count = sum((size - 1) * stride for size, stride in steps) + 1 if prod(tensor.shape) else 0
    last, has = tensor.offset + count, tensor.storage.count
    if tensor.storage.kind == UNTYPED:
        has //= dtype.itemsize
    if last > has:
        what = f"its numbers reach to {last} in a storage of {has}"
        raise FormatError(where, what)
    if extent.nbytes > max(SAFE, has * dtype.itemsize):
        what = f"is {extent.nbytes} bytes expanded from {count * dtype.itemsize}"
        raise FormatError(where, what, "save tensor.contiguous()")
    return last


def _stretch(
    file: File, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ContiguousReader:
    """Numbers in a row from the beginning of a tensor."""
    tensor, where = file.tensors[key], file.where(key)
    info = _storage(file, tensor, dtype, where)
    begin, source = tensor.offset * dtype.itemsize, file.source
    if info.compress_type == zipfile.ZIP_STORED:
        start = begin + _data_start(file, info, where)
        end = source.size
        source.seek(start)
    else:  # somebody has packed it again
        source, start, end = (
            open_member(file.archive, info, key, source.name),
            begin,
            info.file_size,
        )
        source.skip(begin)
    assert end is not None
    after = end - start - prod(shape) * dtype.itemsize
    extent = Extent(shape=shape, dtype=dtype, start=start, after=after)
    reader = ContiguousReader(source, extent, "pt")
    reader.name = where
    return reader


def _storage(file: File, tensor: Tensor, dtype: np.dtype[Any], where: str) -> zipfile.ZipInfo:
    """The member with the numbers of a tensor, its size checked."""
    member = f"{file.prefix}data/{tensor.storage.key}"
    try:
        info = file.archive.getinfo(member)
    except KeyError as error:
        raise FormatError(where, f"there is no member '{visible(member)}'") from error
    width = 1 if tensor.storage.kind == UNTYPED else dtype.itemsize
    if tensor.storage.count * width != info.file_size:
        what = f"its storage has {info.file_size} bytes, not {tensor.storage.count * width}"
        raise FormatError(where, what)
    return info


def _data_start(file: File, info: zipfile.ZipInfo, where: str) -> int:
    """Where the bytes of a stored member begin in the file."""
    try:
        file.archive.open(info).close()  # checks the local header against the directory
    except DAMAGED as error:
        raise FormatError(where, f"the archive is damaged: {error}") from error
    source = file.source
    source.seek(info.header_offset + LOCAL_HEADER - 4)
    lengths = np.frombuffer(source.read(4), "<u2")
    start = info.header_offset + LOCAL_HEADER + int(lengths.sum())
    if source.size is None or start + info.file_size > source.size:
        raise FormatError(where, "the archive is damaged: it ends within these numbers")
    return start
