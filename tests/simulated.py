"""Arrays as PyTorch and CuPy have them, in the memory of Numba's simulator, which is the host's.

The simulator has no `__cuda_array_interface__`; here it gets one. It is switched on by the
environment variable NUMBA_ENABLE_CUDASIM=1, before Numba is imported.
"""

from typing import ClassVar

import numpy as np
from numba import cuda


class Tensor:
    """Some memory, and what a library says of it."""

    def __init__(self, array, *, device=0, dtype="", read_only=False, **interface):
        self.array, self.device, self.dtype = array, device, dtype
        shown = array.__array_interface__
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": shown["shape"],
            "strides": shown["strides"],
            "typestr": "<V2" if dtype.endswith("bfloat16") else shown["typestr"],
            "data": (shown["data"][0], read_only),
            "stream": None,
            **interface,
        }

    def __dlpack_device__(self):
        return 2, self.device


class _Mapped:
    def __init__(self, tensor):
        self.tensor = tensor
        described = tensor.__cuda_array_interface__
        self.__array_interface__ = {k: v for k, v in described.items() if k != "stream"}


class Stream:
    """A stream that remembers what was asked of it."""

    waited: ClassVar[list] = []

    def __init__(self, handle=0):
        self.handle = handle

    def synchronize(self):
        self.waited.append(self.handle)


def _as_cuda_array(tensor, sync=True):
    return type(cuda.device_array(1))(np.asarray(_Mapped(tensor)))


def _interface(fake):
    return Tensor(fake._ary).__cuda_array_interface__


def complete():
    """Add to the simulator what it lacks and every device has."""
    fake = type(cuda.device_array(1))
    fake.__cuda_array_interface__ = property(_interface)
    cuda.as_cuda_array = _as_cuda_array
    cuda.external_stream = Stream
    cuda.default_stream = Stream
