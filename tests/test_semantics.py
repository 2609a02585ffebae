"""Every option, alone and together, against the naive oracle, on every backend."""

import itertools

import naive
import numpy as np
import pytest
from backends import up_to
from helpers import assert_close, assert_same_bits, loss_rtol

from xentcli import cross_entropy, log_softmax, softmax

N, C = 7, 5
X = np.random.default_rng(1).normal(size=(N, C)) * 3
Y = np.array([0, 4, 2, -100, 1, 2, 3])
Q = np.random.default_rng(2).dirichlet(np.ones(C), size=N)
WEIGHT = [0.5, 2.0, 0.0, 1.25, 3.0]
ROWS = [1.0, 0.5, 2.0, 7.0, 0.0, 1.5, 0.25]
UPSTREAM = [0.5, -1.0, 2.0, 1.0, 3.0, -0.25, 1.5]

OPTIONS = {
    "weight": WEIGHT,
    "sample_weight": ROWS,
    "ignore_index": 2,
    "label_smoothing": 0.2,
    "temperature": 2.5,
    "softcap": 4.0,
    "z_loss": 0.1,
    "normalizer": 11.0,
    "upstream": -2.0,
}


def check(backend, targets, **options):
    """The same job for the package and the oracle."""
    if "ignore_index" in options:
        targets = np.where(targets == -100, options["ignore_index"], targets)
    expected_loss, expected_grad = naive.cross_entropy(X.tolist(), targets.tolist(), **options)
    for dtype in ("f8", "f4"):
        x = X.astype(dtype)
        if dtype == "f4":
            expected_loss, expected_grad = naive.cross_entropy(
                x.tolist(), targets.tolist(), **options
            )
        r = cross_entropy(x, targets, backend=backend, **options)
        assert r.backend == backend
        assert r.grad.dtype == x.dtype
        rtol, atol = loss_rtol(x, backend, 2e-13), 2e-13
        np.testing.assert_allclose(r.loss, expected_loss, rtol=rtol, atol=atol)
        if dtype == "f8":
            assert_close(r.grad, expected_grad)
        else:
            np.testing.assert_allclose(r.grad, expected_grad, rtol=1e-6, atol=1e-8)


def usable(options, reduction, targets):
    return not (
        ("normalizer" in options and reduction != "mean")
        or ("ignore_index" in options and targets is Q)
    )


@pytest.mark.parametrize("targets", [Y, Q], ids=["index", "probs"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", [None, *OPTIONS])
def test_each_option_alone(backend, name, reduction, targets):
    options = {name: OPTIONS[name]} if name else {}
    if usable(options, reduction, targets):
        check(backend, targets, reduction=reduction, **options)
    else:
        with pytest.raises(ValueError, match=name):
            cross_entropy(X, targets, reduction=reduction, **options)


@pytest.mark.parametrize("pair", list(itertools.combinations(OPTIONS, 2)), ids="+".join)
def test_each_pair_of_options(backend, pair):
    options = {name: OPTIONS[name] for name in pair}
    for reduction, targets in itertools.product(("mean", "sum", "none"), (Y, Q)):
        if usable(options, reduction, targets):
            check(backend, targets, reduction=reduction, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_options_together(backend, reduction):
    options = {k: v for k, v in OPTIONS.items() if usable({k: v}, reduction, Y)}
    check(backend, Y, reduction=reduction, **options)
    options.pop("ignore_index")
    check(backend, Q, reduction=reduction, **options)


def test_upstream_per_row_with_reduction_none(backend):
    check(backend, Y, reduction="none", upstream=UPSTREAM, label_smoothing=0.1)
    check(backend, Q, reduction="none", upstream=UPSTREAM, sample_weight=ROWS)


@pytest.mark.parametrize(
    "option", [{}, {"label_smoothing": 0.3, "weight": WEIGHT}, {"z_loss": 0.2}]
)
def test_gradient_is_the_central_difference_of_the_loss(backend, option):
    def loss(x):
        return cross_entropy(x, Y, grad=False, backend=backend, softcap=6.0, **option).loss

    grad = cross_entropy(X, Y, backend=backend, softcap=6.0, **option).grad
    step = 1e-5
    for i, c in itertools.product(range(up_to(N, 2)), range(C)):
        shift = np.zeros_like(X)
        shift[i, c] = step
        difference = (loss(X + shift) - loss(X - shift)) / (2 * step)
        assert difference == pytest.approx(grad[i, c], abs=1e-9)


def test_without_gradient_the_loss_has_the_same_bits(backend):
    with_grad = cross_entropy(X, Y, backend=backend, reduction="none")
    without = cross_entropy(X, Y, backend=backend, reduction="none", grad=False)
    assert without.grad is None
    assert_same_bits(with_grad.loss, without.loss)


def test_lse_is_the_log_sum_exp_of_every_row_that_counts(backend):
    lse = cross_entropy(X, Y, backend=backend).lse
    expected = np.log(np.exp(X).sum(axis=1))
    assert np.isnan(lse[3])
    assert_close(np.delete(lse, 3), np.delete(expected, 3))


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0}, {"softcap": 2.0}])
def test_softmax_and_its_logarithm(backend, options):
    expected = [
        naive.softmax(
            naive.capped(row, options.get("temperature", 1.0), options.get("softcap"), naive.FLOATS)
        )[0]
        for row in X.tolist()
    ]
    assert_close(softmax(X, backend=backend, **options), expected)
    assert_close(log_softmax(X, backend=backend, **options), np.log(expected), scale=10)


@pytest.mark.parametrize(
    "kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8", "f4", "f8"]
)
def test_index_targets_of_every_dtype(backend, kind):
    y = np.abs(Y) % C
    assert_same_bits(
        cross_entropy(X, y.astype(kind), backend=backend).grad,
        cross_entropy(X, y, backend=backend).grad,
    )


def test_one_hot_integers_are_probabilities(backend):
    onehot = np.eye(C, dtype=int)[np.abs(Y) % C]
    for reduction in ("sum", "none", "mean"):
        a = cross_entropy(X, onehot, backend=backend, reduction=reduction)
        b = cross_entropy(X, np.abs(Y) % C, backend=backend, reduction=reduction)
        assert_close(a.loss, b.loss)
        assert_close(a.grad, b.grad)


def test_weighted_mean_divides_probabilities_by_the_rows_and_indices_by_the_weights(backend):
    y = np.abs(Y) % C
    a = cross_entropy(X, np.eye(C)[y], weight=WEIGHT, backend=backend)
    b = cross_entropy(X, y, weight=WEIGHT, backend=backend)
    assert a.loss * N == pytest.approx(b.loss * np.take(WEIGHT, y).sum(), rel=1e-13)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f2", ">f4", ">f8", "i4", "u1"])
def test_logits_of_every_dtype_are_read_exactly(backend, kind):
    x = np.round(np.abs(X) * 4).astype(kind)
    r = cross_entropy(x, Y, backend=backend)
    exact = cross_entropy(x.astype(float), Y, backend=backend)
    expected = {"f2": "f4", "f4": "f4", "f8": "f8", "i4": "f8", "u1": "f8"}[kind.lstrip(">")]
    assert r.grad.dtype == np.dtype(expected)
    np.testing.assert_allclose(r.loss, exact.loss, rtol=loss_rtol(r.grad, backend, 2e-13))
    np.testing.assert_allclose(r.grad, exact.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed", "read-only", "unaligned"])
def test_any_memory_order_gives_the_same_bits(backend, order):
    wide = np.zeros((2 * N, 3 * C))
    wide[::2, ::3] = X
    reverse = X[::-1, ::-1].copy()[::-1, ::-1]
    unaligned = np.frombuffer(b" " + X.tobytes(), dtype=float, offset=1).reshape(X.shape)
    frozen = X.copy()
    frozen.flags.writeable = False
    x = {
        "C": X,
        "F": np.asfortranarray(X),
        "strided": wide[::2, ::3],
        "reversed": reverse,
        "read-only": frozen,
        "unaligned": unaligned,
    }[order]
    assert_same_bits(
        cross_entropy(x, Y, backend=backend).grad, cross_entropy(X, Y, backend=backend).grad
    )


SHAPES = [
    ((3, 5, 4), (3, 4), 1),
    ((3, 4, 5), (3, 4), 2),
    ((2, 5, 3, 4), (2, 3, 4), 1),
    ((2, 3, 4, 5), (2, 3, 4), 3),
    ((5, 2, 3), (2, 3), 0),
]


@pytest.mark.parametrize(("shape", "target_shape", "axis"), SHAPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("probs", [False, True])
def test_classes_on_any_axis(backend, shape, target_shape, axis, order, probs, rng):
    x = np.array(rng.normal(size=shape), order=order)
    y = rng.integers(0, 5, size=target_shape)
    flat = np.moveaxis(x, axis, -1).reshape(-1, 5)
    flat_y = y.reshape(-1)
    given_axis = axis if probs or axis == 0 else None
    if probs:
        flat_y = rng.dirichlet(np.ones(5), size=flat.shape[0])
        y = np.moveaxis(flat_y.reshape(*target_shape, 5), -1, axis)
    r = cross_entropy(x, y, reduction="none", backend=backend, class_axis=given_axis)
    expected = cross_entropy(flat, flat_y, reduction="none", backend=backend)
    assert_same_bits(r.loss, expected.loss.reshape(target_shape))
    assert_same_bits(np.moveaxis(r.grad, axis, -1).reshape(-1, 5), expected.grad)


def test_one_row_without_a_batch_axis(backend):
    r = cross_entropy([1.0, 2.0, 3.0], 0, backend=backend)
    assert r.loss == pytest.approx(2.4076059644443806, rel=1e-15)
    assert r.grad.shape == (3,)
    assert r.lse.shape == ()
    assert cross_entropy([1.0, 2.0, 3.0], [1, 0, 0], backend=backend).loss == r.loss


def test_a_column_of_targets_is_taken(backend):
    a = cross_entropy(X, Y[:, None], backend=backend)
    assert_same_bits(a.grad, cross_entropy(X, Y, backend=backend).grad)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_in_place(backend, dtype):
    x = X.astype(dtype)
    expected = cross_entropy(X.astype(dtype), Y, backend=backend, out=np.empty_like(x)).grad
    r = cross_entropy(x, Y, backend=backend, out=x)
    assert r.grad is x
    assert_same_bits(x, expected)


@pytest.mark.parametrize("order", ["C", "F", "strided", "unaligned", ">f8", "f4"])
def test_out_of_any_layout(backend, order):
    out = {
        "C": np.empty((N, C)),
        "F": np.empty((N, C), order="F"),
        "strided": np.empty((N, 2 * C))[:, ::2],
        "unaligned": np.empty(N * C * 8 + 1, "u1")[1:].view(float).reshape(N, C),
        ">f8": np.empty((N, C), dtype=">f8"),
        "f4": np.empty((N, C), dtype="f4"),
    }[order]
    r = cross_entropy(X, Y, backend=backend, out=out)
    assert r.grad is out
    expected = cross_entropy(X, Y, backend=backend).grad
    np.testing.assert_array_equal(out, expected.astype(out.dtype))


def test_out_that_overlaps_the_logits_elsewhere(backend):
    memory = np.zeros((N + 1, C))
    memory[1:] = X
    cross_entropy(memory[1:], Y, backend=backend, out=memory[:-1])
    assert_same_bits(memory[:-1], cross_entropy(X, Y, backend=backend).grad)


def test_out_that_overlaps_the_probabilities(backend):
    q = Q.copy()
    cross_entropy(X, q, backend=backend, out=q)
    assert_same_bits(q, cross_entropy(X, Q, backend=backend).grad)


def test_softmax_in_place(backend):
    x = X.copy()
    assert softmax(x, backend=backend, out=x) is x
    assert_same_bits(x, softmax(X, backend=backend))
    x = X.copy()
    log_softmax(x, backend=backend, out=x)
    assert_same_bits(x, log_softmax(X, backend=backend))
