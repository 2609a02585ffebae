"""Arrays as PyTorch and CuPy have them, in the memory of Numba's simulator, which is the host's.

The simulator has no `__cuda_array_interface__`; here it gets one. It is switched on by the
environment variable NUMBA_ENABLE_CUDASIM=1, before Numba is imported.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from threading import Lock
from typing import ClassVar

import numpy as np
from numba import cuda
from numba.core import types
from numba.np import numpy_support


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


LOCK = Lock()
INSIDE = Counter()  # calls under way, of functions of each module


def hurry():
    """Let threads take turns often: the main one asks without pause whether all wait, 5 ms at a
    time. What it does only once, threads that take turns often would do twice: that gets a lock."""
    from numba.cuda.simulator import kernel, kernelapi

    sys.setswitchinterval(1e-4)
    kernelapi.FakeCUDAShared.array = _shared
    kernel.swapped_cuda_module = _swapped


def _shared(self, shape, dtype):
    """Memory of a block: the same for all threads that come to this line."""
    dtype = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)
    if shape == 0:
        count = self._dynshared_size // dtype.itemsize
        return np.frombuffer(self._dynshared.data, dtype=dtype, count=count)
    caller = sys._getframe(1)
    with LOCK:
        line = caller.f_code.co_filename, caller.f_lineno
        return self._allocations.setdefault(line, np.empty(shape, dtype))


@contextmanager
def _swapped(function, fake):
    """The simulated `cuda` in a function's module, until the last thread has left it."""
    names = function.__globals__
    module = function.__module__
    with LOCK:
        INSIDE[module] += 1
        names.update({name: fake for name, value in names.items() if value is cuda})
    try:
        yield
    finally:
        with LOCK:
            INSIDE[module] -= 1
            if not INSIDE[module]:
                names.update({name: cuda for name, value in names.items() if value is fake})
