"""Which kernel a job needs, and the arguments that its machine code takes.

Machine code is an ordinary C function of integers and floats: addresses, lengths, strides, scalars.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from xentcli.arrays.dtypes import Array, name_of

Dtype: TypeAlias = "np.dtype[Any]"


@dataclass(frozen=True)
class Kernel:
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
        dtypes = (None if array is None else array.dtype for array in (probs, out))
        return _kernel(function, logits.dtype, *dtypes)

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
def _kernel(function: str, logits: Dtype, probs: Dtype | None, out: Dtype | None) -> Kernel:
    names = (None if dtype is None else name_of(dtype) for dtype in (logits, probs, out))
    return Kernel(function, *names)  # type: ignore[arg-type] # only the last two may be None


def address(array: Array) -> int:
    """Where an array begins."""
    begin: int = array.__array_interface__["data"][0]  # a third of the time of `array.ctypes.data`
    return begin


def box(array: Array | None) -> tuple[int, ...]:
    """An array (outer, C, inner) as `BoxView`: address, strides in elements, shape. None is a
    null pointer."""
    if array is None:
        return (0,)
    outer, step, inner = array.strides
    size = array.itemsize
    return (address(array), outer // size, step // size, inner // size, *array.shape)
