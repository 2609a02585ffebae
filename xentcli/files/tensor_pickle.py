"""The tensors that the pickle inside of a PyTorch file describes. The pickle is never run.

`pickletools.genops` lists its instructions. The few that make tensors, dicts and lists are followed
here, with data in place of objects; a file with any other instruction or name is refused.
Source: `_rebuild_tensor_v2` and `_rebuild_tensor_v3` in torch/_utils.py, torch/serialization.py.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any

from xentcli.errors import FormatError, visible
from xentcli.files.foreign import PYTORCH_CONVERT
from xentcli.records import dataclass

DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
PLAIN = {
    f"torch._utils.{name}": name
    for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
} | {"collections.OrderedDict": "OrderedDict"}
SCALARS = (
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2"),
    *("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
)
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
COUNTS = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A function, storage class or dtype that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """The member `data/KEY` of the archive; `dtype` is None where the tensor says it."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None  # None: that of its storage


MARK = object()
MAX_NAMES = 1 << 24  # characters of the names around those of tensors


class _RefusedError(Exception):
    """What cannot be followed, in words."""


def tensors_of(data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors by name: of a dict by its keys, of a list by their numbers, of one `tensor`.

    Those in a dict or list inside of another have both names, with a dot between.
    """
    try:
        root = _Machine().run(data)
    except _RefusedError as error:
        raise FormatError(
            where, f"the pickle in this PyTorch file {error}", PYTORCH_CONVERT
        ) from error
    except (ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
        what = f"the pickle in this PyTorch file is damaged: {visible(str(error))}"
        raise FormatError(where, what) from error
    if isinstance(root, Tensor):
        return {"tensor": root}
    found = list(_inside(root, where))
    if not found:
        raise FormatError(where, "the pickle in this PyTorch file holds no tensors")
    if len(dict(found)) < len(found):
        raise FormatError(where, "has two tensors of the same name")
    return dict(found)


def _inside(root: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors with their names; a dict or list that is there twice has the first name."""
    todo: list[tuple[str, Any]] = [("", root)]
    seen: set[int] = set()
    length = 0
    while todo:
        prefix, value = todo.pop()
        if isinstance(value, Tensor):
            yield prefix.removesuffix("."), value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            length += len(value) * len(prefix)
            if length > MAX_NAMES:
                raise FormatError(where, "the pickle in this PyTorch file is nested too deeply")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [(f"{prefix}{name}.", item) for name, item in reversed(list(items))]


class _Machine:
    """A stack of data, as the pickle's instructions change it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """What is on the stack at the end: a tensor, dict, list or tuple."""
        for opcode, argument, _ in pickletools.genops(data):
            self.step(opcode.name, argument)
        if len(self.stack) != 1 or not isinstance(self.stack[0], Tensor | dict | list | tuple):
            raise _RefusedError("holds neither a tensor nor a dict or list of tensors")
        return self.stack[0]

    def step(self, code: str, argument: Any) -> None:
        """One instruction."""
        if code in SCALARS:
            self.stack.append(VALUES.get(code, argument))
        elif code in COUNTS:
            self.stack.append(tuple(self.pop(COUNTS[code])))
        elif code == "GLOBAL":
            self.stack.append(_name(argument))
        elif code in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif code in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif hasattr(self, f"do_{code.lower()}"):
            getattr(self, f"do_{code.lower()}")()
        else:
            raise _RefusedError(f"has the instruction {code}, which could run code")

    def pop(self, count: int) -> list[Any]:
        """The last values of the stack."""
        start = len(self.stack) - count
        if start < 0:
            raise _RefusedError("is damaged: it takes more than there is")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def marked(self) -> list[Any]:
        """The values after the last mark."""
        last = max(place for place, value in enumerate(self.stack) if value is MARK)
        values = self.pop(len(self.stack) - last)
        return values[1:]

    def do_proto(self) -> None:
        """The version: what matters is which instructions follow."""

    do_frame = do_stop = do_proto

    def do_mark(self) -> None:
        """Values that belong together begin."""
        self.stack.append(MARK)

    def do_tuple(self) -> None:
        """Values after the mark."""
        self.stack.append(tuple(self.marked()))

    def do_empty_list(self) -> None:
        """A list."""
        self.stack.append([])

    def do_empty_dict(self) -> None:
        """A dict."""
        self.stack.append({})

    def do_append(self) -> None:
        """One more value of a list."""
        self._append(self.pop(1))

    def do_appends(self) -> None:
        """More values of a list."""
        self._append(self.marked())

    def do_setitem(self) -> None:
        """One more entry of a dict."""
        self._set(self.pop(2))

    def do_setitems(self) -> None:
        """More entries of a dict."""
        self._set(self.marked())

    def do_build(self) -> None:
        """The attributes of an OrderedDict, which state_dict() has; they hold no tensors."""
        self.pop(1)
        if not isinstance(self.stack[-1], dict):
            raise _RefusedError("sets attributes of something other than an OrderedDict")

    def do_binpersid(self) -> None:
        """A storage."""
        (described,) = self.pop(1)
        match described:
            case ("storage", Name(name=kind), str(key), _, int(count)) if kind.endswith("Storage"):
                self.stack.append(Storage(kind, key, count))
            case _:
                raise _RefusedError("has a reference to something other than a storage")

    def do_reduce(self) -> None:
        """A call of one of the functions that make tensors."""
        function, values = self.pop(2)
        if not isinstance(function, Name) or not isinstance(values, tuple):
            raise _RefusedError("calls something that is no function")
        self.stack.append(_made(function, values))

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _RefusedError("is damaged: it appends to what is no list")
        self.stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict) or len(values) % 2:
            raise _RefusedError("is damaged: it sets entries of what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise _RefusedError("has a dict with keys that are neither text nor integers")
            self.stack[-1][key] = value


def _name(text: str) -> Name:
    """A name that is allowed."""
    module, _, name = text.partition(" ")
    if f"{module}.{name}" in PLAIN or (module == "torch" and name in DTYPES):
        return Name(module, name)
    if module in ("torch", "torch.storage") and name.endswith("Storage") and name.isidentifier():
        return Name(module, name)
    raise _RefusedError(f"names {visible(module)}.{visible(name)}, which could run code")


def _made(function: Name, values: tuple[Any, ...]) -> Any:
    """What a call makes."""
    match function.name, values:
        case "OrderedDict", ():
            return {}
        case "_rebuild_parameter", (Tensor() as tensor, *_):
            return tensor
        case "_rebuild_tensor_v2", (Storage() as storage, offset, shape, strides, bool(), _, *more):
            return _tensor(storage, offset, shape, strides, None, more)
        case "_rebuild_tensor_v3", (
            Storage() as storage, offset, shape, strides, bool(), _, Name("torch", dtype), *more
        ):  # fmt: skip
            return _tensor(storage, offset, shape, strides, dtype, more)
    raise _RefusedError(
        f"calls {function.module}.{function.name} with other values than PyTorch does"
    )


def _tensor(
    storage: Storage, offset: Any, shape: Any, strides: Any, dtype: str | None, more: list[Any]
) -> Tensor:
    if any(more):
        raise _RefusedError("has a tensor that is a conjugate or negative view")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise _RefusedError("has a tensor whose shape or strides are not tuples")
    sizes = (offset, *shape, *strides)
    if not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise _RefusedError("has a tensor whose offset, shape or strides are not sizes")
    if len(shape) != len(strides):
        raise _RefusedError(f"has a tensor of {len(shape)} axes with {len(strides)} strides")
    return Tensor(storage, offset, shape, strides, dtype)
