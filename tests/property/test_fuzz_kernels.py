"""Rows of special numbers on every backend, against the naive oracle without rounding errors.

`python tests/fuzz.py` runs the same for minutes.
"""

import mpmath
import naive
import numpy as np
import pytest
from backends import BACKENDS, up_to
from helpers import DIGITS, exactly, ulps
from hypothesis import given, settings
from hypothesis import strategies as st

from xentcli import cross_entropy, softmax
from xentcli.arrays.dtypes import NAMES, widen
from xentcli.backends.accuracy import PROMISES

BITS = {"f16": "u2", "bf16": "u2", "f32": "u4", "f64": "u8"}


def numbers_of(name):
    """Values of a dtype, as their bits: special ones, and any."""
    width = 8 * np.dtype(BITS[name]).itemsize
    exponent = {"f16": 5, "bf16": 8, "f32": 8, "f64": 11}[name]
    fraction = width - 1 - exponent
    top = ((1 << exponent) - 1) << fraction  # of infinity
    special = [0, 1, 2, (1 << fraction) - 1, 1 << fraction, top - 1, top, top + 1]
    special += [top | 1 << (fraction - 1), top | (1 << fraction) - 1]  # quiet, all payload
    both = [bits | sign << (width - 1) for bits in special for sign in (0, 1)]
    return st.one_of(st.sampled_from(both), st.integers(0, (1 << width) - 1))


@st.composite
def rows(draw):
    """A dtype, the bits of a row, and its target: a class, or their number if it is ignored."""
    name = draw(st.sampled_from(["f32", "f32", "f64", "f64", "f16", "bf16"]))
    count = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16, 17, 33, 70]))
    kind = draw(st.sampled_from(["any", "usual", "usual", "offset", "masked"]))
    if kind == "any":
        bits = draw(st.lists(numbers_of(name), min_size=count, max_size=count))
        return name, bits, draw(st.integers(0, count))
    scale = draw(st.sampled_from([1e-8, 1e-3, 1.0, 10.0, 100.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.standard_normal(count) * scale
    if kind == "offset":
        values = values + draw(st.sampled_from([1e4, -1e8, 1e12, 3e4, -3e38, 1e300]))
    if kind == "masked":
        values[rng.random(count) < 0.4] = -np.inf
    if draw(st.booleans()):
        values[rng.integers(count)] += draw(st.floats(0, 750))
    return name, bits_of(values, name), draw(st.integers(0, count))


def bits_of(values, name):
    """Rounded to a dtype, as integers."""
    from xentcli.arrays.dtypes import narrow

    with np.errstate(all="ignore"):
        return narrow(values, NAMES[name]).view(BITS[name]).tolist()


EXAMPLES = st.tuples(rows(), st.sampled_from(BACKENDS))


def row_of(name, bits):
    """The row as the library takes it, and as plain floats."""
    x = np.array(bits, BITS[name]).view(NAMES[name])
    return x[None, :], widen(x, NAMES["f64"]).tolist()


def result_of(x, target, backend):
    """Loss, gradient and probabilities of one row."""
    count = x.shape[1]
    y = [-100 if target == count else target]
    r = cross_entropy(x, y, reduction="none", backend=backend)
    return r.loss[0], r.grad[0], softmax(x, backend=backend)[0]


def rounded(exact, dtype):
    """What is beyond the largest number is infinite."""
    limit = mpmath.mpf(float(np.finfo(dtype).max)) * (1 + mpmath.mpf(2) ** -60)
    return exact if abs(exact) <= limit else mpmath.inf * mpmath.sign(exact)


def has_no_answer(values):
    """Rows that give NaN throughout."""
    return any(np.isnan(values)) or np.inf in values or all(v == -np.inf for v in values)


def assert_ignored(loss, grad):
    """Exactly plus zero."""
    assert (loss, np.signbit(loss)) == (0.0, False)
    assert not grad.any()
    assert not np.signbit(grad).any()


def check(example):
    """Within the promised ULP of the exact result, or what is promised where there is none."""
    (name, bits, target), backend = example
    x, values = row_of(name, bits)
    loss, grad, p = result_of(x, target, backend)
    if has_no_answer(values):
        assert np.isnan(p).all()
    if target == len(values):
        assert_ignored(loss, grad)
    elif has_no_answer(values):
        assert np.isnan(loss)
        assert np.isnan(grad).all()
    else:
        assert_exact(values, target, (loss, grad, p))


def assert_exact(values, target, found):
    """Every number against the oracle's."""
    loss, grad, p = found
    kind = "f8" if grad.dtype == np.float64 else "f4"
    limits = PROMISES["f64" if kind == "f8" else "f32", "plain"]
    (exact_loss,), (exact_grad,) = exactly([values], [target], reduction="none")
    with mpmath.workdps(DIGITS):
        exact_p, _ = naive.softmax([mpmath.mpf(v) for v in values], mpmath.mp)
        exact_loss = rounded(exact_loss, "f8")
    assert not np.signbit(loss)
    error = ulps(loss, exact_loss, kind) if mpmath.isfinite(exact_loss) else loss != np.inf
    assert error <= limits[0] * bool(mpmath.isfinite(exact_loss)), f"loss {loss}: {exact_loss}"
    for c, (g, e) in enumerate(zip(grad, exact_grad, strict=True)):
        limit = limits[1] if c == target else limits[2]
        assert ulps(g, e, kind) <= limit, f"entry {c} is {g}, exactly {e}"
    for c, (g, e) in enumerate(zip(p, exact_p, strict=True)):
        assert ulps(g, e, kind) <= limits[2], f"probability {c} is {g}, exactly {e}"


@pytest.mark.slow
@pytest.mark.backends
@settings(max_examples=up_to(60, 15), deadline=None, derandomize=True)
@given(EXAMPLES)
def test_a_row_of_any_bits_is_exact_or_as_promised(example):
    check(example)


WRONG = [
    ([0.0, 1.0], 0, lambda loss, grad, p: (loss * (1 + 1e-15), grad, p)),
    ([0.0, 1.0], 0, lambda loss, grad, p: (loss, grad * (1 + 1e-15), p)),
    ([0.0, 1.0], 0, lambda loss, grad, p: (loss, grad, p * (1 + 2e-15))),
    ([0.0, -np.inf], 1, lambda loss, grad, p: (1e300, grad, p)),
    ([0.0, np.nan], 1, lambda loss, grad, p: (loss, np.nan_to_num(grad), p)),
    ([0.0, np.inf], 1, lambda loss, grad, p: (loss, grad, np.nan_to_num(p))),
    ([0.0, 1.0], 2, lambda loss, grad, p: (loss, -grad, p)),
    ([0.0], 0, lambda loss, grad, p: (-loss, grad, p)),
]


@pytest.mark.parametrize(("row", "target", "spoil"), WRONG)
def test_the_check_finds_a_wrong_number(row, target, spoil, monkeypatch):
    example = ("f64", np.array(row).view("u8").tolist(), target), "numpy"
    check(example)
    spoiled = spoil(*result_of(row_of(*example[0][:2])[0], target, "numpy"))
    monkeypatch.setattr("test_fuzz_kernels.result_of", lambda *given: spoiled)
    with pytest.raises(AssertionError):
        check(example)
