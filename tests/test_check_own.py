"""Our own results pass our own judge: every option, every dtype, and losses that are not finite."""

import itertools
import math

import numpy as np
import pytest
from backends import SIMULATED, up_to

from xentcli import cross_entropy
from xentcli.arrays.dtypes import NAMES, narrow
from xentcli.backends.accuracy import PROMISES
from xentcli.check import check

INF, NAN = math.inf, math.nan
N, C = up_to(12, 3), 7


def rows(classes=C):
    """Rows from nearly equal logits to certain ones, one of them near the target's border."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(N, classes)) * np.resize([0.1, 1, 5, 20, 80, 300], (N, 1))
    y = rng.integers(0, classes, N)
    x[0, y[0]] += 40
    return x, y


def matrix():
    """Each option by itself, and pairs of them."""
    rng = np.random.default_rng(9)
    alone = [
        ("weight", rng.random(C) * 3),
        ("weight", rng.normal(size=C)),
        ("sample_weight", rng.random(N) * 2),
        ("label_smoothing", 0.1),
        ("label_smoothing", 1.0),
        ("temperature", 0.1),
        ("temperature", 7.3),
        ("z_loss", 1e-3),
        ("upstream", -3e4),
        ("softcap", 2.0),
        *(("softcap", kappa) for kappa in (10.0, 20.0, 30.0, 50.0, 100.0, 150.0, 200.0)),
    ]
    yield {}
    yield from ({name: value} for name, value in alone)
    for (a, first), (b, second) in itertools.combinations(alone, 2):
        if a != b:
            yield {a: first, b: second}


OPTIONS = list(matrix())


@pytest.mark.parametrize("probabilities", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "dtype",
    ["f64", *(pytest.param(name, marks=pytest.mark.slow) for name in ("f32", "f16", "bf16"))],
)
def test_our_own_gradient_and_loss_pass_under_every_option(backend, dtype, probabilities):
    x, y = rows()
    x = narrow(x, NAMES[dtype])
    targets = np.random.default_rng(1).dirichlet(np.ones(C), N) if probabilities else y
    few = 20 if SIMULATED else 7
    for number, options in enumerate(OPTIONS[:: few if SIMULATED or dtype != "f64" else 1]):
        reduction = ("mean", "sum", "none")[number % 3]
        if reduction != "none":
            options = {**options, "reduction": reduction}
        assert_judged_right(backend, x, targets, options, dtype)


def assert_judged_right(backend, x, targets, options, dtype):
    """Right by default, and the gradient within what is promised: a loss has no terms there."""
    given = {"reduction": "none", **options}
    r = cross_entropy(x, targets, backend=backend, out=np.empty(x.shape, NAMES[dtype]), **given)
    within = PROMISES[dtype, "cancelling"].others + (0 if dtype == "f64" else 0.51)
    for tolerance in ({"loss": np.array(r.loss)}, {"ulp": within}):
        report = check(x, targets, r.grad, **given, **tolerance)
        assert report.ok, f"{given}, {list(tolerance)}: {report.statistics.off} entries"


@pytest.mark.parametrize("classes", [3, up_to(70, 65)])
@pytest.mark.parametrize("softcap", [10.0, 30.0, 50.0, 100.0, 200.0])
@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_a_softcap_in_long_and_short_rows(backend, dtype, softcap, classes):
    x, y = rows(classes)
    x = x.astype(NAMES[dtype])
    assert_judged_right(backend, x, y, {"softcap": softcap}, dtype)


ENDLESS = [
    ([[0.0, -INF, 1.0], [1.0, 2.0, 3.0]], [1, 0], INF),
    ([[0.0, -INF, 1.0], [INF, 2.0, 3.0]], [1, 0], NAN),
    ([[0.0, NAN, 1.0], [1.0, 2.0, 3.0]], [1, 0], NAN),
    ([[-INF, -INF, -INF], [1.0, 2.0, 3.0]], [1, 0], NAN),
]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("x", "y", "loss"), ENDLESS, ids=str)
def test_a_loss_that_is_not_finite_is_right_as_it_is_and_wrong_as_anything_else(
    x, y, loss, reduction, dtype
):
    x, options = np.array(x, dtype), {"reduction": reduction}
    r = cross_entropy(x, y, backend="numpy", **options)
    given = np.atleast_1d(np.array(r.loss))
    if reduction == "none":
        loss = given[0]
    np.testing.assert_equal(given[0], loss)
    assert check(x, y, r.grad, loss=given, **options).loss.off == 0
    for wrong in {INF, -INF, NAN, 0.0, 1e300} - {loss}:
        if not (math.isnan(loss) and math.isnan(wrong)):
            changed = given.copy()
            changed[0] = wrong
            report = check(x, y, r.grad, loss=changed, **options)
            assert report.loss.off == 1, f"{wrong} instead of {loss}"
            assert not report.ok


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_minus_infinity_under_a_negative_weight(reduction):
    x, y = [[0.0, -INF, 1.0], [1.0, 2.0, 3.0]], [0, 0]
    options = {"weight": [1.0, -1.0, 2.0], "label_smoothing": 0.3, "reduction": reduction}
    r = cross_entropy(x, y, backend="numpy", **options)
    given = np.atleast_1d(np.array(r.loss))
    assert given[0] == -INF
    assert check(np.array(x), y, r.grad, loss=given, **options).loss.off == 0
    for wrong in (INF, NAN, 0.0):
        changed = given.copy()
        changed[0] = wrong
        assert check(np.array(x), y, r.grad, loss=changed, **options).loss.off == 1
