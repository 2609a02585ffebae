"""Arrays on a device: their shape, dtype and memory. Their data are not read here.

PyTorch, CuPy, JAX and Numba describe an array by `__cuda_array_interface__`, where a bfloat16
array has the dtype `<V2`; its own `dtype` attribute tells that it is bfloat16.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, SUPPORTED, Array, name_of
from xentcli.errors import DataError, DtypeError, ShapeError

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
        covered = 0
        steps = zip(self.strides, self.shape, strict=True)
        for stride, n in sorted((stride, n) for stride, n in steps if n > 1):
            if stride < covered + self.dtype.itemsize:
                return True
            covered += (n - 1) * stride
        return False

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
    if isinstance(values, np.ndarray):
        return None
    try:
        interface = values.__cuda_array_interface__
    except AttributeError as error:
        if _dlpack_device(values)[0] == CUDA:
            raise _undescribed(where, error) from error
        return None
    except Exception as error:
        raise _undescribed(where, error, values) from error
    return _described(values, where, interface)


def require_host(**arrays: Any) -> None:
    """An error for arrays on a device where the logits are on the host."""
    for where, values in arrays.items():
        if device_array(values, where) is not None:
            what = "the array is on a device, but the logits are on the host"
            raise DataError(where, what, "move the logits to the device, or the array to the host")


def _undescribed(where: str, error: Exception, values: Any = None) -> DataError:
    if getattr(values, "requires_grad", False):
        what = "the tensor requires grad, but xent records nothing for autograd"
        return DataError(where, what, "pass tensor.detach()")
    reason = " ".join(str(error).split())
    return DataError(where, f"the array is on a device, but its memory cannot be found: {reason}")


def _described(values: Any, where: str, interface: dict[str, Any]) -> DeviceArray:
    if interface.get("mask") is not None:
        raise DataError(where, "masked arrays are not supported")
    shape = tuple(int(n) for n in interface["shape"])
    dtype = _dtype(values, where, interface["typestr"])
    strides = interface.get("strides")
    if strides is None:
        strides = [prod(shape[axis + 1 :]) * dtype.itemsize for axis in range(len(shape))]
    pointer, read_only = interface["data"]
    if any(stride < 0 or stride % dtype.itemsize for stride in strides):
        raise ShapeError(where, f"strides of {tuple(strides)} bytes are not supported", HINT)
    if pointer % dtype.itemsize:
        raise ShapeError(where, f"the data are not aligned to {dtype.itemsize} bytes", HINT)
    return DeviceArray(
        where=where,
        owner=values,
        pointer=int(pointer),
        shape=shape,
        strides=tuple(int(stride) for stride in strides),
        dtype=dtype,
        read_only=bool(read_only),
        stream=_stream(values, interface),
        device=_device(values),
    )


def _dtype(values: Any, where: str, typestr: str) -> np.dtype[Any]:
    dtype = np.dtype(typestr)
    if dtype == np.dtype("V2") and str(getattr(values, "dtype", "")).endswith("bfloat16"):
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
    ask = getattr(values, "__dlpack_device__", None)
    if ask is None:
        return None, None
    try:
        kind, number = ask()
    except (BufferError, RuntimeError, ValueError):  # PyTorch's device "meta" has no number
        return None, None
    return int(kind), int(number)
