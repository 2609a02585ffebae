"""The constants of exp and log1p, against the script that makes or checks them."""

import math

import mpmath as mp
import numpy as np
import pytest
from constants.make_polynomials import POLYNOMIALS, best, excess, made

from xentcli.backends import elementary
from xentcli.backends.cpu import exponential, softcap
from xentcli.backends.cuda import exp_pass, launch_params

MADE = made()


@pytest.mark.parametrize("name", ["ROUND", "LN2_HIGH", "LN2_LOW", "PER_LN2"])
def test_constants_of_both_backends_are_those_that_the_script_makes(name):
    assert getattr(elementary, name) == MADE[name]


def test_constants_of_one_backend_are_those_that_the_script_makes():
    powers = launch_params.ExpConstants()
    assert MADE["SINGLE_ROUND"] == exponential.F32_ROUND
    assert MADE["SINGLE_LN2_HIGH"] == exponential.F32_LN2_HIGH
    assert MADE["SINGLE_LN2_LOW"] == np.float32(exponential.F32_LN2_LOW)
    assert (powers.per_ln2, powers.ln2) == (MADE["PER_LN2"], MADE["LN2"])
    assert powers.round == MADE["ROUND"] + launch_params.SINGLE_SCALE_BITS
    assert powers[3:] == elementary.EXP_FOR_FLOAT32[:-1]
    assert elementary.EXP_FOR_FLOAT32[-1] == 1.0  # `single` adds it as a literal


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_a_polynomial_has_the_error_that_is_stated(name):
    polynomial = POLYNOMIALS[name]
    assert 0.98 * polynomial.bound < polynomial.worst() <= polynomial.bound


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_another_coefficient_is_noticed(name):
    """The bounds hold for these coefficients, and not for others that are nearly the same."""
    polynomial = POLYNOMIALS[name]
    for k, share in ((0, 1e-2), (-1, 1e-6)):
        coefficients = list(polynomial.coefficients)
        coefficients[k] *= 1 + share
        assert polynomial.worst(coefficients) > polynomial.bound


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("EXP_SINGLE", 1e-4), ("EXP_FOR_FLOAT32", 2e-4)])
def test_no_polynomial_of_that_degree_is_better(name, limit):
    assert abs(excess(POLYNOMIALS[name])) < limit


@pytest.mark.parametrize(
    ("name", "share"),
    [("EXP", 1e-10), ("EXP_SINGLE", 2e-7), ("EXP_FOR_FLOAT32", 2e-7)]
    + [(name, 1e-15) for name in ("EXP_51", "EXP_45", "EXP_39")],
)
def test_the_coefficients_are_those_of_remezs_algorithm_but_for_the_last_digits(name, share):
    """In float64 the rounding of the coefficients is most of the error; they are compared."""
    polynomial = POLYNOMIALS[name]
    for ours, other in zip(polynomial.coefficients, best(polynomial), strict=True):
        assert abs(ours / other - 1) < share


def test_what_is_set_to_zero_is_zero():
    """Beyond these gaps an exponential is less than half of the smallest number, or no longer
    counts beside 1; up to them its power of two is a normal number."""
    assert mp.exp(-elementary.MAX_GAP) < mp.mpf(2) ** -1075
    assert mp.exp(-exponential.MAX_SCALED_GAP) < mp.mpf(2) ** -1075
    assert exponential.MAX_SCALED_GAP / math.log(2) < 1022 + exponential.SCALE_BITS
    for power, gap in (
        (exponential.SCALE_BITS, exponential.GAP_OF_0),
        (exponential.SLOPE_BITS, softcap.ANGLE_OF_1),
    ):
        assert round(-gap * elementary.PER_LN2) + power + 1023 == 0  # the bits of the power of two
    assert mp.exp(exponential.F32_MIN_DIFFERENCE) < mp.mpf(2) ** -150
    assert -exponential.F32_MIN_DIFFERENCE / math.log(2) < 126 + exponential.F32_SCALE_BITS
    assert mp.exp(-exp_pass.MAX_FLOAT32_GAP) < mp.mpf(2) ** -150
