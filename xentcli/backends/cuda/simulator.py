"""What kernels need on Numba's simulator, which runs them as Python with NUMBA_ENABLE_CUDASIM=1.

Stand-ins: the primitives of `primitives`, which are LLVM code, as Python functions.

Patches of Numba's own simulator, which runs each CUDA thread in a thread of Python. Two threads
that reach the same line at the same time may get two arrays of shared memory, and a thread that
ends gives the real `cuda` back to a module in which another one still computes: both get a lock.
And its main thread polls the barriers: with Python's default switch interval rows of 200 classes
take four times as long. Whoever runs `--backend cuda` on the simulator needs all of it, so it is
here and not among the tests.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from threading import Lock
from typing import Any

import numpy as np
from numba import cuda
from numba.core import types
from numba.np import numpy_support

SWITCH_INTERVAL = 1e-4  # seconds
SPLITTER = 134217729.0  # 2²⁷ + 1
MINUS_ZERO = {np.dtype(np.uint16): 0x8000, np.dtype(np.int16): -0x8000}  # bits of half types
SAFE = 1e-280, 1e290  # between them the error of a product is a float64, and its parts are
LOCK = Lock()
RUNNING: Counter[str] = Counter()  # calls under way, of functions of each module


def get(array, index):
    """One element as a number."""
    value = array[index]
    if value.dtype == np.uint16:
        return np.float32(value.view(np.float16))
    if value.dtype == np.int16:
        return (np.uint32(value.view(np.uint16)) << np.uint32(16)).view(np.float32)
    return value


def put(array, index, value):
    """Write one number, rounded to the dtype of the array; −0.0 of another dtype becomes 0.0."""
    store(array, index, value)
    if np.result_type(value) != array.dtype and array[index] == MINUS_ZERO.get(array.dtype, 0):
        array[index] = 0


def store(array, index, value):
    """Write one number, rounded to the dtype of the array."""
    if array.dtype == np.uint16:
        value = np.float16(np.float32(value)).view(np.uint16)
    elif array.dtype == np.int16:
        value = _bfloat16(np.float32(value))
    array[index] = value


def _bfloat16(value):
    bits = value.view(np.uint32)
    high = bits >> np.uint32(16)
    rounded = (int(bits) + 0x7FFF + int(high & np.uint32(1))) >> 16
    if np.isnan(value):
        rounded = int(high) | 0x40
    return np.uint16(rounded).view(np.int16)


def load4(array, index):
    """Four consecutive elements as numbers."""
    return tuple(get(array, index + i) for i in range(4))


def store4(array, index, numbers):
    """Write four consecutive elements."""
    for i, number in enumerate(numbers):
        store(array, index + i, number)


def larger(a, b):
    """The larger of two numbers; NaN where one is."""
    return np.maximum(a, b)


def smaller(a, b):
    """The smaller of two numbers; the other one of a NaN."""
    return np.fmin(a, b)


def size_of(array):
    """Bytes of each element."""
    return array.dtype.itemsize


def times(a, b):
    """a·b, rounded."""
    return a * b


def fraction_and_power(value):
    """f and n of a positive normal number f·2ⁿ, ½ ≤ f < 1."""
    fraction, power = np.frexp(value)
    return fraction, np.float64(power)


def times_power(value, biased):
    """A finite number times 2ⁿ: n is added to the bits of the exponent, as on a device, where other
    numbers give anything."""
    value, biased = np.float64(value), np.float64(biased)
    moved = int(value.view(np.uint64)) + (int(biased.view(np.uint64)) << 52)
    return np.uint64(moved & (2**64 - 1)).view(np.float64)


def fma(a, b, c):
    """a·b + c, rounded once, or of float32 nearly so."""
    if isinstance(a, np.float32):
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    a, b, c = float(a), float(b), float(c)
    product = a * b
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)) or 0 in (a, b):
        return np.float64(product + c)
    if SAFE[0] < abs(product) < SAFE[1] and max(abs(a), abs(b)) < SAFE[1]:
        return np.float64(math.fsum((product, _lost(a, b, product), c)))
    return np.float64(_nearest(Fraction(a) * Fraction(b) + Fraction(c)))


def _lost(a, b, product):
    """What the rounded product of two numbers lacks (Dekker)."""
    shifted = a * SPLITTER, b * SPLITTER
    a_high, b_high = shifted[0] - (shifted[0] - a), shifted[1] - (shifted[1] - b)
    a_low, b_low = a - a_high, b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _nearest(exact):
    """A fraction as a float; beyond the largest it is infinite."""
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def polynomial(coefficients):
    """A function that evaluates a polynomial, highest power first."""

    def value_at(x):
        value = coefficients[0]
        for coefficient in coefficients[1:]:
            value = fma(value, x, coefficient)
        return value

    return value_at


STAND_INS = {
    function.__name__: function
    for function in (
        fma,
        fraction_and_power,
        get,
        larger,
        load4,
        polynomial,
        put,
        size_of,
        smaller,
        store4,
        times,
        times_power,
    )
}


def patch_numba() -> None:
    """Put the following functions in the place of Numba's own."""
    from numba.cuda.simulator import kernel, kernelapi

    sys.setswitchinterval(SWITCH_INTERVAL)
    kernelapi.FakeCUDAShared.array = _shared_array
    kernel.swapped_cuda_module = _swapped_cuda_module


def _shared_array(memory: Any, shape: Any, dtype: Any, alignment: Any = None) -> Any:
    """Shared memory of a block: the same array for all threads that reach this line."""
    kind = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)
    if shape == 0:
        count = memory._dynshared_size // kind.itemsize
        return np.frombuffer(memory._dynshared.data, dtype=kind, count=count)
    caller = sys._getframe(1)
    with LOCK:
        line = caller.f_code.co_filename, caller.f_lineno
        return memory._allocations.setdefault(line, np.empty(shape, kind))


@contextmanager
def _swapped_cuda_module(function: Any, fake: Any) -> Iterator[None]:
    """The simulated `cuda` in a function's module, until the last thread has left it."""
    names, module = function.__globals__, function.__module__
    with LOCK:
        RUNNING[module] += 1
        names.update({name: fake for name, value in names.items() if value is cuda})
    try:
        yield
    finally:
        with LOCK:
            RUNNING[module] -= 1
            if not RUNNING[module]:
                names.update({name: cuda for name, value in names.items() if value is fake})
