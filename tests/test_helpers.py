"""A check that cannot fail is a defect: each helper is shown wrong data here."""

import math

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, assert_ulps, exactly, ulps


def test_ulps_counts_in_the_last_place_of_the_dtype():
    assert ulps(1.0 + 2**-52, 1.0, "f8") == 1
    assert ulps(1.0 + 2**-23, 1.0, "f4") == 1
    assert ulps(0.0, 2.0**-149, "f4") == 1


def test_ulps_of_a_number_that_should_be_finite_is_infinite():
    assert ulps(math.nan, 1.0, "f8") == math.inf
    assert ulps(math.inf, 1.0, "f8") == math.inf
    assert ulps(math.inf, math.inf, "f8") == 0


def test_assert_ulps_fails_on_one_wrong_entry():
    with pytest.raises(AssertionError, match="ULP"):
        assert_ulps([1.0, 2.0 + 2**-50], [[1.0, 2.0]], 1, "f8")


def test_assert_ulps_fails_on_a_missing_entry():
    with pytest.raises(AssertionError, match="expected"):
        assert_ulps([1.0], [[1.0, 2.0]], 1, "f8")


def test_assert_close_fails_on_a_wrong_digit_and_on_a_wrong_shape():
    with pytest.raises(AssertionError):
        assert_close([1.0], [1.0 + 1e-12])
    with pytest.raises(AssertionError):
        assert_close([1.0], [1.0, 1.0])


def test_assert_close_fails_on_nan():
    with pytest.raises(AssertionError):
        assert_close([math.nan], [1.0])


@pytest.mark.parametrize("other", [-0.0, 5e-324, math.nan])
def test_assert_same_bits_fails_on_any_other_bits(other):
    with pytest.raises(AssertionError):
        assert_same_bits(np.array([0.0]), np.array([other]))


def test_assert_same_bits_fails_on_another_dtype():
    with pytest.raises(AssertionError):
        assert_same_bits(np.zeros(1, "f4"), np.zeros(1, "f8"))


def test_the_exact_oracle_keeps_the_digits_of_a_confident_row():
    loss, grad = exactly([[40.0, 0.0]], [0])
    assert float(loss) == 4.248354255291589e-18
    assert float(grad[0][0]) == -4.248354255291589e-18
