"""Numba's simulator, made safe for the threads that it runs kernels in, and quicker.

It does twice what shall be done once where two threads come to it at the same time: shared memory
is made twice, and `cuda` is given back to a module in which another thread still computes. Both
get a lock here. And its main thread asks without pause whether all have come to a barrier: unless
threads take turns often, three quarters of the time go there.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from numba import cuda
from numba.core import types
from numba.np import numpy_support

LOCK = Lock()
INSIDE: Counter[str] = Counter()  # calls under way, of functions of each module


def mend() -> None:
    """Put what follows in the place of Numba's own."""
    from numba.cuda.simulator import kernel, kernelapi

    sys.setswitchinterval(1e-4)
    kernelapi.FakeCUDAShared.array = _shared
    kernel.swapped_cuda_module = _swapped


def _shared(memory: Any, shape: Any, dtype: Any, alignment: Any = None) -> Any:
    """Memory of a block: the same for all threads that come to this line."""
    kind = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)
    if shape == 0:
        count = memory._dynshared_size // kind.itemsize
        return np.frombuffer(memory._dynshared.data, dtype=kind, count=count)
    caller = sys._getframe(1)
    with LOCK:
        line = caller.f_code.co_filename, caller.f_lineno
        return memory._allocations.setdefault(line, np.empty(shape, kind))


@contextmanager
def _swapped(function: Any, fake: Any) -> Iterator[None]:
    """The simulated `cuda` in a function's module, until the last thread has left it."""
    names, module = function.__globals__, function.__module__
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
