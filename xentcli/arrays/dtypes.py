"""The float dtypes of logits and gradients, and their conversion for the kernels.

Kernels compute on float32 or float64. float16 and bfloat16 are widened on the way in, which is
exact, and rounded once on the way out. NumPy has no bfloat16, and an .npy file holds one as dtype
V2, two raw bytes; inside xent such an array has the dtype `BF16`.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np

from xentcli.errors import DataError, DtypeError, Setting, ShapeError, Words, reason

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]  # `NDArray[Any]`, which takes 0.4 ms to import

BF16 = np.dtype([("bfloat16", "<u2")])
NAMES = {
    "f16": np.dtype(np.float16),
    "bf16": BF16,
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
HALVES = (NAMES["f16"], BF16)
# The dtypes of logits in either byte order, as which ml_dtypes has none: a lookup takes 0.1 µs, and
# to compare names 5.
LOGITS = frozenset(NAMES.values()) | {NAMES[name].newbyteorder() for name in ("f16", "f32", "f64")}

SUPPORTED_FLOATS = "supported: float16, bfloat16, float32 and float64"  # hints of errors
SUPPORTED = "supported: float16, bfloat16, float32, float64 and integers"
NO_AUTOGRAD = "the tensor requires grad, but xent records nothing for autograd"
DETACH = "pass tensor.detach()"

TEXT = "SUT"  # the kinds of dtypes that hold text


@lru_cache(maxsize=64)  # NumPy takes longer to compare dtypes than to compute with a few numbers
def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in native byte order; `BF16`, which is always little-endian, and text unchanged."""
    return dtype if dtype == BF16 or dtype.kind in TEXT else dtype.newbyteorder("=")


def name_of(dtype: np.dtype[Any]) -> str:
    """The name of a dtype in messages.

    >>> name_of(BF16), name_of(np.dtype(">f4")), name_of(np.dtype("V2")), name_of(np.dtype("U9"))
    ('bfloat16', 'float32', 'V2', 'str')
    """
    if dtype == BF16:
        return "bfloat16"
    if dtype.kind in TEXT:
        return "bytes" if dtype.kind == "S" else "str"
    return f"{dtype.kind}{dtype.itemsize}" if dtype.kind == "V" else dtype.name


def as_array(values: Any, where: str) -> Array:
    """numpy.asarray, with an error for what is not an array, such as lists of unequal length.

    A new view of the same memory: the shape of the caller's array may change meanwhile.
    """
    if type(values) is np.ndarray and values.dtype.kind in "iuf":
        return values.view()
    if attribute(values, "requires_grad") is True:
        raise DataError(where, NO_AUTOGRAD, DETACH)
    try:
        masked = _is_masked(values)
        array = np.empty(0) if masked else _converted(values)
        masked |= _is_masked(array)
    except MemoryError:
        raise
    except Exception as error:  # a caller's `__array__` may raise anything
        raise ShapeError(where, f"not an array: {reason(error)}") from error
    if masked:
        what = "masked arrays are not supported: the mask would be ignored"
        raise DataError(where, what, "fill the masked entries first, as array.filled(0) does")
    if array.ndim == 0 and array.dtype.kind in TEXT + "O":
        raise ShapeError(where, f"expected an array of numbers, not {type(values).__name__}")
    return array.view(np.ndarray)


def _converted(values: Any) -> Array:
    """NumPy's conversion, and that of a bfloat16 tensor of PyTorch, which NumPy does not know."""
    if str(attribute(values, "dtype")) != "torch.bfloat16":
        return np.asanyarray(values)
    bits: Array = values.view(sys.modules["torch"].int16).numpy()
    return bits.view(BF16)


def _is_masked(values: Any) -> bool:
    """Whether there is a mask, which `numpy.asarray` ignores, in an array or a list of arrays."""
    if isinstance(values, np.ndarray):
        masked = sys.modules.get("numpy.ma")  # whoever has a masked array has loaded it
        return masked is not None and isinstance(values, masked.MaskedArray)
    if isinstance(values, list | tuple):
        return any(_is_masked(item) for item in values if not isinstance(item, float | int))
    return getattr(values, "__array_interface__", {}).get("mask") is not None


def attribute(values: Any, name: str) -> Any:
    """An attribute of a caller's object; None where there is none, or where it raises an error."""
    try:
        return getattr(values, name, None)
    except Exception:  # noqa: BLE001 (a caller's object may raise anything)
        return None


def as_logits(values: Any, where: str = "logits") -> Array:
    """An array of logits in one of the four dtypes, in any byte order; integers become float64.

    A view where possible: an array of ml_dtypes.bfloat16 is seen as `BF16`.
    """
    array = as_array(values, where)
    if array.dtype in LOGITS:
        return array
    if array.dtype.name == "bfloat16":
        return array.view(BF16)
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    raise DtypeError(where, f"dtype {name_of(array.dtype)} is not supported", _hint(array.dtype))


def _hint(dtype: np.dtype[Any]) -> Words:
    if dtype == np.dtype("V2"):
        read_as = Setting("dtype", "bf16", in_python="array.view(ml_dtypes.bfloat16)")
        return "if dtype V2 holds bfloat16, use ", read_as
    return SUPPORTED


def reals(values: Any, where: str) -> Array:
    """Weights, upstream gradients and the like as float64."""
    return widen(as_logits(values, where), NAMES["f64"])


def bits(array: Array) -> Array:
    """A view with a dtype that Numba supports: uint16 for float16, int16 for bfloat16."""
    if array.dtype == BF16:
        return array.view(np.int16)
    return array.view(np.uint16) if array.dtype == np.float16 else array


@lru_cache(maxsize=64)
def default_output(logits: np.dtype[Any]) -> np.dtype[Any]:
    """The gradient's dtype by default: the logits', or float32 for float16 and bfloat16."""
    return NAMES["f32"] if native(logits) in HALVES else native(logits)


def widen(array: Array, dtype: np.dtype[Any]) -> Array:
    """Native, C-contiguous values in `dtype`; the array itself where it is that already.

    >>> widen(narrow(np.float32([1.0, -2.5]), BF16), np.dtype("f4")).tolist()
    [1.0, -2.5]
    """
    if array.dtype == BF16:
        bits = np.ascontiguousarray(array).view("<u2").astype(np.uint32) << 16
        array = bits.view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)


def narrow(array: Array, dtype: np.dtype[Any]) -> Array:
    """float32 or float64 values rounded to `dtype`, to nearest, ties to even."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype != BF16:
            return array.astype(dtype, copy=False)
        single = np.ascontiguousarray(array, dtype=np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    quiet_nan = (bits >> 16) | 0x40
    return np.where(np.isnan(single), quiet_nan, rounded).astype("<u2").view(BF16)
