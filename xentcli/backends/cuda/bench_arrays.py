"""Arrays in device memory for benchmarks: created, repeated, copied, and copied back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from xentcli.arrays.dtypes import BF16, Array
from xentcli.backends.devices import INSTEAD
from xentcli.errors import UnavailableError


def require_memory() -> None:
    """An error on the simulator, whose arrays cannot be passed to other libraries."""
    if not hasattr(cuda, "as_cuda_array"):
        what = "the simulator runs kernels and has no memory that others could compute in"
        raise UnavailableError("backend", what, INSTEAD)


class BenchArray:
    """Numba's array in C order; also bfloat16, for which Numba holds the bits.

    Other libraries use it through `__cuda_array_interface__`; `dtype` is the dtype's name.
    """

    def __init__(self, data: Any, dtype: np.dtype[Any]) -> None:
        self.data, self.numpy_dtype = data, dtype
        self.shape: tuple[int, ...] = tuple(data.shape)
        self.dtype = "bfloat16" if dtype == BF16 else dtype.name

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Pointer, shape and type, for other libraries."""
        interface: dict[str, Any] = self.data.__cuda_array_interface__
        return interface | ({"typestr": "<V2"} if self.numpy_dtype == BF16 else {})

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> BenchArray:
        return BenchArray(self.data[index], self.numpy_dtype)

    def reshape(self, *shape: int) -> BenchArray:
        """The same memory in another shape."""
        return BenchArray(self.data.reshape(*shape), self.numpy_dtype)

    def copy(self) -> BenchArray:
        """A copy in device memory."""
        other = cuda.device_array(self.shape, self.data.dtype)
        other.copy_to_device(self.data)
        return BenchArray(other, self.numpy_dtype)

    def copy_to_host(self) -> Array:
        """A copy as a NumPy array."""
        host: Array = self.data.copy_to_host()
        return host.view(self.numpy_dtype)


def repeated(part: Array, first: int) -> BenchArray:
    """An array with `first` entries along axis 0: those of the part, repeated."""
    host = np.ascontiguousarray(part)
    host = host.view(np.int16) if part.dtype == BF16 else host
    whole = cuda.device_array((first, *host.shape[1:]), host.dtype)
    done = min(len(host), first)
    whole[:done].copy_to_device(host[:done])
    while done < first:  # doubles each time
        more = min(done, first - done)
        whole[done : done + more].copy_to_device(whole[:more])
        done += more
    return BenchArray(whole, part.dtype)


def synchronize() -> None:
    """Wait until the device has done everything."""
    cuda.synchronize()
