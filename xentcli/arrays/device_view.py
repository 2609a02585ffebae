"""Arrays on a device: their shape, dtype and memory. Their data are not read here.

PyTorch, CuPy, JAX and Numba describe an array by `__cuda_array_interface__`, where a bfloat16
array has the dtype `<V2`; its own `dtype` attribute tells that it is bfloat16.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from operator import index
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import (
    BF16,
    DETACH,
    NO_AUTOGRAD,
    SUPPORTED,
    Array,
    attribute,
    name_of,
)
from xentcli.arrays.layout import overlaps_itself
from xentcli.errors import DataError, DtypeError, ShapeError, XentError, reason
from xentcli.records import dataclass

CUDA = 2  # DLPack's device type
LEGACY = 1  # the interface's value for the default stream, whose handle is 0
HINT = "make it contiguous first: for example tensor.contiguous()"


@dataclass(frozen=True)
class DeviceArray:
    """An array in device memory. `strides` are bytes; `owner` keeps the memory alive.

    `stream` is the one that the producer works on, 0 for the default one and None where it is
    unknown; `device` its number, or None.
    """

    where: str
    owner: Any
    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    read_only: bool
    stream: int | None
    device: int | None

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def span(self) -> int:
        """The number of elements from the first to the last in memory, gaps included."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((n - 1) * stride for n, stride in steps) // self.dtype.itemsize

    def folded(self, groups: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
        """The stride in elements of each group of axes, merged into one.

        None if the axes of a group cannot be merged without a copy.
        """
        steps = [
            _step([(self.shape[axis], self.strides[axis]) for axis in group]) for group in groups
        ]
        if None in steps:
            return None
        return tuple((step or 0) // self.dtype.itemsize for step in steps)

    @property
    def overlaps_itself(self) -> bool:
        """Whether two elements may share memory."""
        return overlaps_itself(self.shape, self.strides, self.dtype.itemsize)

    def shares_memory(self, other: DeviceArray) -> bool:
        """Whether any element shares memory with the other array."""
        return np.shares_memory(_unread(self), _unread(other))

    def is_same(self, other: DeviceArray) -> bool:
        """Whether both are the same view of the same memory."""
        one, two = (
            (array.pointer, array.shape, array.strides, array.dtype) for array in (self, other)
        )
        return one == two


class _UnreadMemory:
    """Memory that NumPy compares with other memory, and never reads."""

    def __init__(self, array: DeviceArray) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": array.shape,
            "strides": array.strides,
            "typestr": f"|V{array.dtype.itemsize}",
            "data": (array.pointer, True),
        }


def _unread(array: DeviceArray) -> Array:
    return np.asarray(_UnreadMemory(array))


def _step(axes: list[tuple[int, int]]) -> int | None:
    """The stride of adjacent axes (length, stride) as one axis; None if they cannot be merged."""
    axes = [(n, stride) for n, stride in axes if n != 1]
    for (_, before), (n, stride) in pairwise(axes):
        if before != n * stride:
            return None
    return axes[-1][1] if axes else 0


def device_array(values: Any, where: str) -> DeviceArray | None:
    """The description of an array on a device; None for everything on the host."""
    if values is None or issubclass(type(values), np.ndarray):  # isinstance would ask the object
        return None
    try:
        interface = values.__cuda_array_interface__
    except AttributeError as error:
        if _dlpack_device(values)[0] == CUDA:
            raise _undescribed(where, error) from error
        return None
    except Exception as error:
        raise _undescribed(where, error, values) from error
    try:
        return _described(values, where, interface)
    except XentError:
        raise
    except Exception as error:  # it may hold anything
        found = f"{type(error).__name__}: {reason(error)}"
        raise DataError(where, f"its __cuda_array_interface__ is invalid: {found}") from error


def require_host(**arrays: Any) -> None:
    """An error for arrays on a device where the logits are on the host."""
    for where, values in arrays.items():
        if values is not None and device_array(values, where) is not None:
            what = "the array is on a device, but the logits are on the host"
            raise DataError(where, what, "move the logits to the device, or the array to the host")


def _undescribed(where: str, error: Exception, values: Any = None) -> DataError:
    if attribute(values, "requires_grad") is True:
        return DataError(where, NO_AUTOGRAD, DETACH)
    what = f"the array is on a device, but its memory cannot be found: {reason(error)}"
    return DataError(where, what)


def _described(values: Any, where: str, interface: dict[str, Any]) -> DeviceArray:
    missing = [name for name in ("shape", "typestr", "data") if name not in interface]
    if missing:
        raise DataError(where, f"its __cuda_array_interface__ has no {' and no '.join(missing)}")
    if interface.get("mask") is not None:
        raise DataError(where, "masked arrays are not supported: the mask would be ignored")
    shape = tuple(index(n) for n in interface["shape"])
    dtype = _dtype(values, where, interface["typestr"])
    pointer, read_only = interface["data"]
    pointer = index(pointer or 0)
    if min(shape, default=0) < 0 or (pointer == 0 and 0 not in shape):
        what = f"its __cuda_array_interface__ is invalid: shape {shape} at address {pointer}"
        raise DataError(where, what)
    if pointer % dtype.itemsize:
        raise ShapeError(where, f"the data are not aligned to {dtype.itemsize} bytes", HINT)
    return DeviceArray(
        where=where,
        owner=values,
        pointer=pointer,
        shape=shape,
        strides=_strides(where, interface.get("strides"), shape, dtype.itemsize),
        dtype=dtype,
        read_only=bool(read_only),
        stream=_stream(values, interface),
        device=_device(values),
    )


def _strides(where: str, given: Any, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides in bytes; None is C order."""
    if given is None:
        return tuple(prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape)))
    strides = tuple(index(stride) for stride in given)
    if len(strides) != len(shape):
        what = f"its __cuda_array_interface__ is invalid: strides {strides} for shape {shape}"
        raise DataError(where, what)
    if any(stride < 0 or stride % itemsize for stride in strides):
        raise ShapeError(where, f"strides of {strides} bytes are not supported", HINT)
    return strides


def _dtype(values: Any, where: str, typestr: str) -> np.dtype[Any]:
    dtype = np.dtype(typestr)
    if dtype == np.dtype("V2") and str(attribute(values, "dtype")).endswith("bfloat16"):
        return BF16
    if dtype.kind not in "iufb" or not dtype.isnative:
        raise DtypeError(where, f"dtype {name_of(dtype)} is not supported", SUPPORTED)
    return dtype


def _stream(values: Any, interface: dict[str, Any]) -> int | None:
    """The producer's stream; PyTorch omits it from the interface, and its current one is meant."""
    stream = interface.get("stream")
    torch: Any = sys.modules.get("torch")
    tensor: Any = getattr(torch, "Tensor", ())
    if stream is None and isinstance(values, tensor):
        stream = torch.cuda.current_stream(values.device).cuda_stream
    if stream is None:
        return None
    return 0 if stream == LEGACY else int(stream)


def _device(values: Any) -> int | None:
    """The device's number; arrays of Numba keep it elsewhere."""
    kind, number = _dlpack_device(values)
    if kind is not None:
        return number
    context = getattr(getattr(values, "gpu_data", None), "context", None)
    return getattr(getattr(context, "device", None), "id", None)


def _dlpack_device(values: Any) -> tuple[int | None, int | None]:
    ask = attribute(values, "__dlpack_device__")
    if ask is None:
        return None, None
    try:
        kind, number = ask()
        return int(kind), int(number)
    except Exception:  # noqa: BLE001 (PyTorch's device "meta" has no number; a caller's raises anything)
        return None, None
