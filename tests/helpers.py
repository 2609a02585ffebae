"""Checks that several test modules share. Each is itself tested to fail, in test_helpers.py."""

import mpmath
import naive
import numpy as np

DIGITS = 420  # exp(-745) has 323 zeros; 40 digits more, and some

TINY = {
    np.dtype(np.float16): 2.0**-14,
    np.dtype(np.float32): 2.0**-126,
    np.dtype(float): 2.0**-1022,
}
BITS = {np.dtype(np.float16): 11, np.dtype(np.float32): 24, np.dtype(float): 53}


def ulps(actual, exact, dtype):
    """The error of one number in units in the last place of `dtype` at the exact value."""
    dtype = np.dtype(dtype)
    if not np.isfinite(actual):
        return 0.0 if mpmath.mpf(exact) == mpmath.mpf(float(actual)) else np.inf
    size = max(abs(mpmath.mpf(exact)), mpmath.mpf(TINY[dtype]))
    exponent = mpmath.frexp(size)[1] - BITS[dtype]
    return float(abs(mpmath.mpf(float(actual)) - exact) / mpmath.ldexp(mpmath.mpf(1), exponent))


def largest_ulps(actual, exact, dtype):
    """The largest error over nested lists of exact numbers."""
    flat = [e for row in exact for e in (row if isinstance(row, list) else [row])]
    values = np.asarray(actual).reshape(-1)
    assert len(values) == len(flat), f"{len(values)} numbers, {len(flat)} expected"
    return max((ulps(a, e, dtype) for a, e in zip(values, flat, strict=True)), default=0.0)


def assert_ulps(actual, exact, limit, dtype):
    """Every number is within `limit` ULP of the exact one; absolute errors are not forgiven."""
    found = largest_ulps(actual, exact, dtype)
    assert found <= limit, f"{found:.3g} ULP, at most {limit} allowed"


def exactly(logits, targets, digits=DIGITS, **options):
    """Loss and gradient without rounding errors, from the naive oracle."""
    with mpmath.workdps(digits):
        return naive.cross_entropy(
            np.asarray(logits, dtype=float).tolist(),
            np.asarray(targets).tolist(),
            m=mpmath.mp,
            **options,
        )


def assert_close(actual, expected, scale=1.0):
    """Equal to within the rounding of an oracle in float64, relative to the terms' size."""
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=2e-13, atol=2e-14 * scale)


def loss_rtol(x, backend, tight):
    """How close losses are: 2 ULP of float32 where a kernel has logits of fewer bits than 64.

    The reference computes in float64 whatever the logits are, and is held to what that gives.
    """
    return tight if backend == "numpy" or np.dtype(x.dtype).itemsize == 8 else 2.0**-22


def assert_same_bits(a, b):
    """Equal in every bit: zeros keep their sign, a NaN equals a NaN."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype, f"{a.dtype} is not {b.dtype}"
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    same = (a.tobytes() == b.tobytes()) or bool(
        np.all((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b)))
    )
    assert same, f"{np.count_nonzero(a != b)} of {a.size} differ"
