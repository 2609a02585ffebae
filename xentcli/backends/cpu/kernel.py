"""Which kernel a job needs, and the arguments that its machine code takes.

Machine code is an ordinary C function of integers and floats: addresses, lengths, strides, scalars.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xentcli.arrays.dtypes import Array, name_of

Dtype: TypeAlias = "np.dtype[Any]"


class Kernel(NamedTuple):
    """One specialisation: the function, and the dtypes of its boxes.

    >>> str(Kernel("general", "float16", "float32", None))
    'general float16 float32 none'
    """

    function: str  # a name in `kernels.FUNCTIONS`
    logits: str
    probs: str | None = None  # of probabilities as targets; None: class indices
    out: str | None = None  # of the gradient or the probabilities

    @classmethod
    def of(cls, function: str, logits: Array, probs: Array | None, out: Array | None) -> Kernel:
        """The kernel for some arrays."""
        dtypes = None if probs is None else probs.dtype, None if out is None else out.dtype
        return kernel_of(function, logits.dtype, *dtypes)

    @property
    def compute(self) -> str:
        """The dtype that is computed in."""
        return "float64" if "float64" in (self.logits, self.out) else "float32"

    def __str__(self) -> str:
        return " ".join(name or "none" for name in (self.function, *self.dtypes))

    @property
    def dtypes(self) -> tuple[str | None, str | None, str | None]:
        """Of logits, probabilities and output."""
        return self.logits, self.probs, self.out


@cache  # NumPy takes 5 µs to name a dtype
def kernel_of(function: str, logits: Dtype, probs: Dtype | None, out: Dtype | None) -> Kernel:
    """The kernel for arrays of some dtypes."""
    names = (None if dtype is None else name_of(dtype) for dtype in (logits, probs, out))
    return Kernel(function, *names)  # type: ignore[arg-type] # only the last two may be None


# Where the address of the data is in NumPy's `PyArrayObject`: behind what every Python object has.
# `PyArray_DATA`, which is compiled into every library that uses NumPy, reads it there, too.
_DATA = object.__basicsize__
_pointer_at = ctypes.c_void_p.from_address


def address(array: Array) -> int:
    """Where an array begins: `array.ctypes.data`, in a sixth of its time.

    >>> array = np.arange(9)[3:]
    >>> address(array) == array.ctypes.data
    True
    """
    return _pointer_at(id(array) + _DATA).value or 0


def box(array: Array | None) -> tuple[int, ...]:
    """An array (outer, C, inner) as `BoxView`: address, strides in elements, shape. None is a
    null pointer."""
    if array is None:
        return (0,)
    outer, step, inner = array.strides
    size = array.itemsize
    return (address(array), outer // size, step // size, inner // size, *array.shape)
