"""The CPU kernel for long rows with options: blocks of classes, masses, softcaps, special rows."""

import exact
import numpy as np
import pytest
from helpers import assert_same_bits
from test_kernels_accuracy import assert_promised

from xentcli import cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import NAMES, narrow, widen
from xentcli.backends.cpu import backend
from xentcli.backends.cpu.workspace import GAP_BLOCK

# Around a block, where the last vectors are whole or not, and of several blocks.
CLASSES = [GAP_BLOCK + n for n in (-33, -16, -1, 0, 1, 16, 17, 47)] + [2 * GAP_BLOCK, 3000]
SMOOTHING, CAPPED = {"label_smoothing": 0.1}, {"softcap": 20.0}
OPTIONS = {
    "smoothing": SMOOTHING,
    "smoothing, weights": {**SMOOTHING, "weight": True},
    "softcap": CAPPED,
    "softcap, z-loss, temperature": {**CAPPED, "z_loss": 0.01, "temperature": 0.7},
    "softcap, smoothing": {**CAPPED, **SMOOTHING},
    "large softcap": {"softcap": 1e5},
}


def rows_of(classes, dtype="f4", rows=5):
    """Rows of which some are confident, their targets, and probabilities."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(rows, classes)) * 4
    x[1, classes - 1] += 25
    x[2, classes // 2] += 25
    y = rng.integers(0, classes, rows)
    y[1] = classes - 1
    q = rng.dirichlet(np.full(classes, 0.1), rows)
    return x.astype(dtype), y, q.astype(dtype)


def options_of(name, classes):
    options = dict(OPTIONS[name])
    if options.pop("weight", False):
        options["weight"] = np.linspace(0.0, 2.0, classes)
    return {**options, "reduction": "none"}


def assert_close(found, expected, dtype):
    """Two results are equal but for the last digits, and entries but for what cancels in them."""
    digits = {"f4": 2e-7, "f8": 1e-14}[dtype]
    np.testing.assert_allclose(found.loss, expected.loss, rtol=min(digits, 1e-11))
    np.testing.assert_allclose(found.lse, expected.lse, rtol=min(digits, 1e-11))
    size = np.abs(expected.grad).max(axis=1, keepdims=True)
    wrong = np.abs(found.grad.astype("f8") - expected.grad)
    assert (wrong <= digits * np.abs(expected.grad) + 1e-16 * size).all()


@pytest.mark.parametrize("past_caches", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", OPTIONS)
def test_rows_of_blocks_against_the_reference(monkeypatch, name, dtype, past_caches):
    monkeypatch.setattr(backend, "STREAM_FROM", 0 if past_caches else 1 << 60)
    for classes in CLASSES:
        x, y, q = rows_of(classes, dtype)
        options = options_of(name, classes)
        for targets in (y, q):
            found = cross_entropy(x, targets, backend="cpu", **options)
            wide = x.astype("f8"), targets if targets is y else q.astype("f8")
            assert_close(found, cross_entropy(*wide, backend="numpy", **options), dtype)


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("options", [{}, CAPPED], ids=str)
def test_softmax_of_rows_of_blocks(function, options):
    """The exponentials of the loss are kept multiplied by their slopes, these are not."""
    for classes in CLASSES:
        x, _, _ = rows_of(classes)
        found = function(x, backend="cpu", **options)
        expected = function(x.astype("f8"), backend="numpy", **options)
        np.testing.assert_allclose(found, expected, rtol=2e-7)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_changes_its_own_row_only(name, value):
    """Wherever it is, and whether its row is ignored or not: the maximum of a row is found while
    the row before it is computed."""
    classes = GAP_BLOCK + 40
    x, y, q = rows_of(classes)
    y[3] = -100
    options = options_of(name, classes)
    for targets in (y, q):
        before = cross_entropy(x, targets, backend="cpu", **options)
        for row in (0, 2, 3, 4):
            for place in (0, 15, GAP_BLOCK - 1, GAP_BLOCK, classes - 9, classes - 1):
                spoiled = x.copy()
                spoiled[row, place] = value
                found = cross_entropy(spoiled, targets, backend="cpu", **options)
                others = np.arange(len(x)) != row
                assert_same_bits(found.grad[others], before.grad[others])
                assert_same_bits(found.loss[others], before.loss[others])
                expected = cross_entropy(spoiled, targets, backend="numpy", **options)
                assert np.isnan(found.grad[row]).all() == np.isnan(expected.grad[row]).all()
                assert np.isnan(found.loss[row]) == np.isnan(expected.loss[row])
                assert np.isinf(found.loss[row]) == np.isinf(expected.loss[row])


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_softmax_of_a_row_after_one_that_is_not_a_number(function):
    x, _, _ = rows_of(100)
    before = function(x, backend="cpu")
    for row in (0, 1, 4):
        spoiled = x.copy()
        spoiled[row, 97] = np.nan
        found = function(spoiled, backend="cpu")
        assert np.isnan(found[row]).all()
        others = np.arange(len(x)) != row
        assert_same_bits(found[others], before[others])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("places", [(3,), (3, 70), (3, 4, 19, 79)])
def test_several_largest_logits_with_masses(dtype, places):
    """The mass of the others is summed without the largest, of which there may be several."""
    x = np.full(80, -2.5, dtype)
    x[list(places)] = 1.5
    for target in (places[-1], 50):
        assert_promised("cpu", x, target, label_smoothing=0.3)
    for favoured in (places[0], places[-1], 50):
        q = np.full((1, 80), 1e-9)
        q[0, favoured] = 1 - 79e-9
        r = cross_entropy(x[None], q.astype(dtype), backend="cpu", reduction="none")
        targets = q.astype(dtype).tolist()
        expected = exact.cross_entropy([x.tolist()], targets, reduction="none")
        for found, number, size in zip(r.grad[0], expected.grad[0], expected.sizes[0], strict=True):
            assert exact.error(found, number, {"f4": "f32", "f8": "f64"}[dtype], size) <= 8


def test_weights_of_1_are_no_weights():
    x, y, q = rows_of(200)
    for targets in (y, q):
        plain = cross_entropy(x, targets, backend="cpu", label_smoothing=0.1)
        found = cross_entropy(x, targets, backend="cpu", label_smoothing=0.1, weight=np.ones(200))
        assert_same_bits(found.grad, plain.grad)
        assert found.loss == plain.loss


@pytest.mark.parametrize("softcap", [0.3, 30.0, 1000.0, 65_535.0, 65_537.0, 1e6, 1e30])
@pytest.mark.parametrize("temperature", [1.0, 0.01, 1e-31])
def test_softcaps_of_any_size_in_float32(softcap, temperature):
    """Up to 2¹⁶ gaps are differences of capped logits; beyond, these have too much in common."""
    rng = np.random.default_rng(5)
    unit = temperature * min(softcap, 1e30)
    for size in (1e-3, 0.3, 3.0):
        x = (rng.normal(size=80) * min(size * unit, 1e30)).astype("f4")
        for target in (7, int(x.argmax())):
            assert_promised("cpu", x, target, softcap=softcap, temperature=temperature)


@pytest.mark.parametrize("upstream", [1.0, 1e250])
@pytest.mark.parametrize("softcap", [0.3, 5.0])
def test_small_slopes_of_a_softcap_in_float32(softcap, upstream):
    """Products with slopes of 1e-290, which a large factor brings back."""
    for angle in (10.0, 50.0, 290.0, 333.0):
        x = np.array([softcap * angle, -softcap * angle, 0.1 * softcap] + [0.0] * 77, "f4")
        assert_promised("cpu", x, 0, softcap=softcap, upstream=upstream)


def test_half_types_with_every_option():
    """They are computed as float32 is, and rounded once."""
    for name in OPTIONS:
        x, y, _ = rows_of(GAP_BLOCK + 70)
        x = narrow(x, NAMES["bf16"])
        wide = widen(x, NAMES["f32"])
        options = options_of(name, x.shape[1])
        found = cross_entropy(x, y, backend="cpu", out=np.zeros_like(x), **options)
        expected = cross_entropy(wide, y, backend="cpu", **options)
        assert_same_bits(found.loss, expected.loss)
        assert_same_bits(found.grad, narrow(expected.grad, NAMES["bf16"]))
