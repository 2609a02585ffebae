"""The primitives in Python, for Numba's simulator, where kernels run without a GPU."""

from __future__ import annotations

import math

import numpy as np

from xentcli.backends.elementary import ROUND


def get(array, index):
    """One element as a number."""
    value = array[index]
    if value.dtype == np.uint16:
        return np.float32(value.view(np.float16))
    if value.dtype == np.int16:
        return (np.uint32(value.view(np.uint16)) << np.uint32(16)).view(np.float32)
    return value


def put(array, index, value):
    """Write one number, rounded to what the array holds."""
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
    """Four neighbours as numbers."""
    return tuple(get(array, index + i) for i in range(4))


def store4(array, index, numbers):
    """Write four neighbours."""
    for i, number in enumerate(numbers):
        put(array, index + i, number)


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
    """A finite number times 2ⁿ."""
    if not math.isfinite(biased):
        return np.float64(0.0)  # on a device anything
    return np.ldexp(np.float64(value), int(biased - ROUND))


def fma(a, b, c):
    """a·b + c, rounded once, or of float64 nearly so."""
    kind = type(a + b + c)
    wide = np.float64 if kind is np.float32 else np.longdouble
    return kind(wide(a) * wide(b) + wide(c))


def polynomial(coefficients):
    """A function that computes a polynomial; the highest power comes first."""

    def value_at(x):
        value = coefficients[0]
        for coefficient in coefficients[1:]:
            value = fma(value, x, coefficient)
        return value

    return value_at


ALL = {
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
