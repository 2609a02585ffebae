"""What must hold for every problem, whatever the numbers."""

import numpy as np
import pytest
from backends import BACKENDS as NAMES
from backends import up_to
from helpers import assert_same_bits, loss_rtol
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xentcli import backends, cross_entropy, softmax

pytestmark = pytest.mark.backends

BACKENDS = st.sampled_from(NAMES)
FLOATS = st.floats(-50, 50, width=32)
SETTINGS = settings(max_examples=up_to(60, 4), deadline=None, derandomize=True)


@st.composite
def problems(draw, finite=True):
    n, c = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    numbers = FLOATS if finite else st.floats(width=32)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = draw(hnp.arrays(np.float32, (n, c), elements=numbers)).astype(dtype)
    return x, draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))


@SETTINGS
@given(problems(), BACKENDS)
def test_each_row_of_the_gradient_sums_to_zero(problem, backend):
    x, y = problem
    grad = cross_entropy(x, y, reduction="none", backend=backend).grad
    assert np.abs(grad.sum(axis=1, dtype=float)).max() <= 2 * np.finfo(x.dtype).eps


@SETTINGS
@given(problems(), BACKENDS)
def test_signs_and_ranges(problem, backend):
    x, y = problem
    r = cross_entropy(x, y, reduction="none", backend=backend)
    rows = np.arange(len(y))
    target = r.grad[rows, y]
    assert ((target >= -1) & (target <= 0)).all()
    others = np.delete(r.grad, y + rows * x.shape[1])
    assert ((others >= 0) & (others <= 1)).all()
    gap = x.max(axis=1).astype(float) - x[rows, y]
    near = loss_rtol(x, backend, 1e-15)
    assert (r.loss >= gap * (1 - near)).all()
    assert (r.loss <= (gap + np.log(x.shape[1])) * (1 + near)).all()
    assert not np.signbit(r.loss).any()


@SETTINGS
@given(problems(), BACKENDS, st.integers(0, 2**32))
def test_rows_do_not_know_of_each_other(problem, backend, seed):
    x, y = problem
    order = np.random.default_rng(seed).permutation(len(y))
    a = cross_entropy(x, y, reduction="none", backend=backend)
    b = cross_entropy(x[order], y[order], reduction="none", backend=backend)
    assert_same_bits(a.grad[order], b.grad)
    assert_same_bits(a.loss[order], b.loss)


@SETTINGS
@given(problems(), BACKENDS, st.integers(0, 2**32))
def test_classes_can_be_renamed(problem, backend, seed):
    x, y = problem
    order = np.random.default_rng(seed).permutation(x.shape[1])
    a = cross_entropy(x, y, backend=backend)
    b = cross_entropy(x[:, order], np.argsort(order)[y], backend=backend)
    np.testing.assert_allclose(
        a.grad[:, order], b.grad, rtol=1e-6 if x.itemsize == 4 else 2e-15, atol=0
    )
    assert a.loss == pytest.approx(b.loss, rel=loss_rtol(x, backend, 1e-14))


@SETTINGS
@given(problems(), BACKENDS, st.floats(-8, 8).map(lambda e: float(2 ** round(e))))
def test_the_gradient_is_linear_in_the_upstream(problem, backend, factor):
    x, y = problem
    a = cross_entropy(x, y, reduction="sum", backend=backend)
    b = cross_entropy(x, y, reduction="sum", upstream=-factor, backend=backend)
    np.testing.assert_allclose(b.grad, a.grad * -factor, rtol=1e-15, atol=1e-300)
    assert a.loss == b.loss


@SETTINGS
@given(problems(), BACKENDS)
def test_the_gradient_is_softmax_minus_one_hot(problem, backend):
    x, y = problem
    p = softmax(x, backend=backend)
    onehot = np.eye(x.shape[1])[y]
    grad = cross_entropy(x, y, reduction="none", backend=backend).grad
    np.testing.assert_allclose(grad, p - onehot, rtol=0, atol=2 * np.finfo(x.dtype).eps)


@SETTINGS
@given(problems(), BACKENDS)
def test_one_hot_probabilities_equal_indices(problem, backend):
    x, y = problem
    a = cross_entropy(x, y, reduction="none", backend=backend)
    b = cross_entropy(
        x, np.eye(x.shape[1])[y], reduction="none", backend=backend, target_kind="probs"
    )
    np.testing.assert_allclose(a.grad, b.grad, rtol=1e-6 if x.itemsize == 4 else 2e-15, atol=0)
    np.testing.assert_allclose(a.loss, b.loss, rtol=2 * loss_rtol(x, backend, 5e-15))


@SETTINGS
@given(problems(), BACKENDS, st.data())
def test_ignored_rows_might_as_well_not_be_there(problem, backend, data):
    x, y = problem
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(y), max_size=len(y))))
    kept[data.draw(st.integers(0, len(y) - 1))] = True
    r = cross_entropy(x, np.where(kept, y, -100), backend=backend)
    alone = cross_entropy(x[kept], y[kept], backend=backend)
    assert r.loss == pytest.approx(alone.loss, rel=1e-15)
    assert_same_bits(r.grad[kept], alone.grad)
    assert_same_bits(r.grad[~kept], np.zeros_like(r.grad[~kept]))


@SETTINGS
@given(problems(finite=False), st.sampled_from([name for name in NAMES if name != "numpy"]))
def test_the_backends_agree_on_what_is_not_finite(problem, backend):
    x, y = problem
    a = cross_entropy(x, y, reduction="none", backend="numpy")
    b = cross_entropy(x, y, reduction="none", backend=backend)
    np.testing.assert_array_equal(np.isnan(a.grad), np.isnan(b.grad))
    np.testing.assert_array_equal(np.isnan(a.loss), np.isnan(b.loss))
    np.testing.assert_array_equal(np.isinf(a.loss), np.isinf(b.loss))
    tiny = 2 * np.finfo(x.dtype).smallest_subnormal
    rtol = 1e-6 if x.itemsize == 4 else 4e-15
    np.testing.assert_allclose(a.grad, b.grad, rtol=rtol, atol=float(tiny))


@SETTINGS
@given(problems(), st.integers(1, 4), st.integers(1, 40))
def test_the_bits_do_not_depend_on_threads_or_blocks(problem, threads, block):
    x, y = problem
    for name in NAMES:
        kind = type(backends.get(name, x.size))
        a = cross_entropy(x, y, backend=name)
        before = kind.block
        kind.block = block
        try:
            b = cross_entropy(x, y, backend=name, threads=threads)
        finally:
            kind.block = before
        assert_same_bits(a.grad, b.grad)
        assert a.loss == b.loss
