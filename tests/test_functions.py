"""The functions that the CPU kernels bring along, against mpmath, one number and 16 at a time."""

import mpmath
import numpy as np
import pytest
from helpers import DIGITS, ulps
from numba import njit

from xentcli.kernels import arithmetic
from xentcli.kernels.memory import load, pointer, store

SPECIAL = [0.0, 1e-300, 1e-20, 0.34657359027997264, 0.3465735902799727, 708.5, 744.0, 745.13]

FUNCTIONS = {
    "exp": (njit(lambda x: arithmetic.exp_below(x, x - x)), lambda x: mpmath.exp(-x), 1),
    "exp, no error": (njit(lambda x: arithmetic.exp_below(x, None)), lambda x: mpmath.exp(-x), 1.2),
    "log1p": (arithmetic.log1p, mpmath.log1p, 1),
    "tanh": (arithmetic.tanh, mpmath.tanh, 3),
    "sech²": (arithmetic.sech_squared, lambda x: mpmath.sech(x) ** 2, 4),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_in_ulps(name, rng):
    function, exact, limit = FUNCTIONS[name]
    compiled = njit(lambda x: function(x))
    numbers = [
        *SPECIAL,
        *rng.uniform(0, 2, 400),
        *rng.uniform(0, 340, 400),
        *rng.uniform(0, 1e5, 99),
    ]
    with mpmath.workdps(DIGITS):
        worst = max(ulps(compiled(x), exact(mpmath.mpf(x)), "f8") for x in map(float, numbers))
    assert worst <= limit


@pytest.mark.parametrize("name", ["exp", "exp, no error", "tanh", "sech²"])
def test_sixteen_numbers_have_the_bits_of_one(name, rng):
    function = FUNCTIONS[name][0]
    one = njit(lambda x: function(x))

    @njit
    def sixteen(x, out):
        store(pointer(out, 0), 0, function(load(pointer(x, 0), 0)))

    x = np.concatenate([SPECIAL, rng.uniform(0, 40, 8)])
    out = np.empty(16)
    sixteen(x, out)
    assert out.tolist() == [one(v) for v in x]


def test_the_ends_of_the_range():
    exp = njit(lambda x: arithmetic.exp_below(x, 0.0))
    tanh = njit(lambda x: arithmetic.tanh(x))
    assert [exp(0.0), exp(746.0), exp(1e300), exp(np.inf)] == [1.0, 0.0, 0.0, 0.0]
    assert [tanh(np.inf), tanh(-np.inf), tanh(-0.5)] == [1.0, -1.0, -tanh(0.5)]
    assert np.isnan(tanh(np.nan))
