"""A stream of a device: what is put into it is done one after the other."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numba import cuda
from numpy.lib.stride_tricks import as_strided

from xentcli.arrays.device_view import DeviceArray
from xentcli.arrays.dtypes import Array, bits
from xentcli.backends.cuda import per_row_kernels
from xentcli.backends.cuda.box import Box
from xentcli.backends.cuda.primitives import configured, device_number
from xentcli.backends.cuda.reductions import WARP


def on_device(number: int | None) -> AbstractContextManager[Any]:
    """Make a device the current one for a while; the one that is where nobody knows the number."""
    context: AbstractContextManager[Any] = nullcontext() if number is None else cuda.gpus[number]
    return context


def ones(count: int) -> Any:
    """Weights that nobody gave, on the device."""
    return _ones(count, device_number())


@lru_cache(maxsize=8)
def _ones(count: int, device: int) -> Any:
    """Kept, for the next call needs them; each device has its own."""
    array = cuda.to_device(np.ones(count))
    cuda.synchronize()  # the copy may be under way still, and PyTorch's streams do not wait for it
    return array


class _Flat:
    """An array's memory from the first element on to the last, as bits of one kind."""

    def __init__(self, array: DeviceArray) -> None:
        kind = bits(np.empty(0, array.dtype)).dtype
        self.owner = array.owner
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (array.span,),
            "typestr": kind.str,
            "strides": None,
            "data": (array.pointer, array.read_only),
            "stream": None,  # `Queue` has waited where that was needed
        }


def flat(array: DeviceArray) -> Any:
    """A device array of one axis over the memory of another's array."""
    return cuda.as_cuda_array(_Flat(array), sync=False)


def placed_box(array: DeviceArray, shape: tuple[int, int, int], steps: tuple[int, ...]) -> Box:
    """An array where it is, for kernels; an axis of one entry has no stride of its own."""
    outer, classes, inner = steps
    return Box(flat(array), shape, (outer, classes, inner if shape[2] > 1 else 1))


class _View:
    """Some memory as an array of that shape and those strides, in bytes."""

    def __init__(self, memory: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.memory = memory
        described = memory.__cuda_array_interface__
        self.__cuda_array_interface__ = {**described, "shape": shape, "strides": strides}


def viewed(memory: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """A device array over the memory of another."""
    return cuda.as_cuda_array(_View(memory, shape, strides), sync=False)


class Queue:
    """The stream with that handle (0: the default one), and what the host asks of it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.stream: Any = cuda.external_stream(handle) if handle else 0

    def wait_for(self, arrays: list[DeviceArray]) -> None:
        """Wait until what other streams do to the arrays is done: seldom, so the host may wait."""
        for handle in {array.stream for array in arrays} - {None, self.handle}:
            Queue(handle or 0).finish()

    def finish(self) -> None:
        """Wait until everything is done."""
        (self.stream or cuda.default_stream()).synchronize()

    def room(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
        """Device memory for an array."""
        return cuda.device_array(shape, dtype)

    def send(self, array: Array) -> Any:
        """A copy on the device."""
        return cuda.to_device(np.ascontiguousarray(array), stream=self.stream)

    def send_box(self, array: Array, shape: tuple[int, int, int]) -> Box:
        """A copy on the device, for kernels; `shape` is (outer, C, inner)."""
        numbers = bits(np.ascontiguousarray(array)).reshape(-1)
        return Box(self.send(numbers), shape, (shape[1] * shape[2], shape[2], 1))

    def fetch(self, array: Any) -> Array:
        """A copy on the host, when everything before is done."""
        host: Array = array.copy_to_host(stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        return host

    def fetch_placed(self, array: DeviceArray) -> Array:
        """A copy on the host of somebody's array."""
        if not array.span:
            return np.empty(array.shape, array.dtype)
        host = self.fetch(flat(array)).view(array.dtype)
        return as_strided(host, array.shape, array.strides).copy()

    def indices(
        self, array: DeviceArray, steps: tuple[int, ...], inner: int, limits: tuple[int, int]
    ) -> tuple[Any, int, int]:
        """Class indices, how many are ignored and how many wrong; (C, ignore_index) are given."""
        indices, found = self.room((array.size,), np.int64), self.send(np.zeros(2, np.int64))
        kernel = per_row_kernels.over_rows(per_row_kernels.class_indices, array.size, self.stream)
        kernel(flat(array), inner, steps, *limits, indices, found)
        ignored, wrong = self.fetch(found).tolist()
        return indices, ignored, wrong

    def doubles(self, array: DeviceArray, steps: tuple[int, ...], inner: int) -> tuple[Any, int]:
        """Numbers as float64, and how many of them are not finite."""
        numbers, found = self.room((array.size,)), self.send(np.zeros(1, np.int64))
        kernel = per_row_kernels.over_rows(per_row_kernels.doubles, array.size, self.stream)
        kernel(flat(array), inner, steps, numbers, found)
        return numbers, int(self.fetch(found)[0])

    def row_weights(self, indices: Any, weight: Any, sample_weight: Any) -> Any:
        """v_i·w_{y_i}, 0 for ignored rows."""
        weights = self.room((indices.size,))
        kernel = per_row_kernels.over_rows(per_row_kernels.row_weights, indices.size, self.stream)
        kernel(indices, weight, sample_weight, weights)
        return weights

    def scaled(self, values: Any, divisor: float, factors: Any, results: Any) -> Any:
        """values / divisor · factors, written into `results`."""
        kernel = per_row_kernels.over_rows(per_row_kernels.scaled, results.size, self.stream)
        kernel(values, divisor, factors, results)
        return results

    def sums(self, values: Any) -> Array:
        """The sums of blocks of rows, and under each what it lost."""
        blocks = ceil(values.size / per_row_kernels.BLOCK)
        parts = self.room((2, blocks))
        configured(per_row_kernels.block_sums, blocks, WARP, self.stream)(values, parts)
        return self.fetch(parts)
