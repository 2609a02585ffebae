"""Special values in every argument, under every option, on every backend: one table.

Each cell is compared with `exact.py`, which is written from the semantics alone, and the backends
with each other.
"""

import itertools
import math
from functools import cache

import exact
import numpy as np
import pytest
from backends import BACKENDS, SIMULATED

from xentcli import cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import NAMES, widen

INF, NAN = math.inf, math.nan
UNITS = {"f32": 2, "f64": 8}  # in the last place of the terms: the weakest promise

ROWS = {
    "ordinary": [1.0, 2.0, 0.5],
    "equal": [0.0, 0.0, 0.0],
    "NaN": [NAN, 2.0, 0.5],
    "+inf": [1.0, INF, 0.5],
    "-inf": [-INF, 2.0, 0.5],
    "two -inf": [-INF, -INF, 0.5],
    "all -inf": [-INF, -INF, -INF],
    "+inf and -inf": [INF, -INF, 0.0],
    "huge": [3e38, -3e38, 0.0],
    "far": [130.0, 0.0, 1.0],
    "very far": [700.0, 0.0, 1.0],
    "minus zero": [-0.0, 0.0, -0.0],
}
ROWS_F64 = {"huge": [3e100, -3e100, 0.0]}  # what float32 cannot hold

INDICES = [0, 1, 2, -100]
PROBABILITIES = [
    [1.0, 0.0, 0.0],
    [0.0, 1.0, 0.0],
    [0.25, 0.25, 0.5],
    [0.0, 0.0, 0.0],
    [2.0, -1.0, 0.0],
]

WEIGHTS = {
    "none": None,
    "zero": [0.0, 1.0, 2.0],
    "all zero": [0.0, 0.0, 0.0],
    "negative": [-1.0, 2.0, 0.5],
    "huge and zero": [1e200, 0.0, 1.0],
    "tiny": [1e-200, 1e-200, 1e-200],
}

OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.3},
    "all smoothing": {"label_smoothing": 1.0},
    "temperature": {"temperature": 10.0},
    "softcap": {"softcap": 5.0},
    "z-loss": {"z_loss": 0.1},
    "upstream 0": {"upstream": 0.0},
    "upstream 1e20": {"upstream": 1e20},
    "upstream -1e-20": {"upstream": -1e-20},
    "sample weight 0": {"sample_weight": 0.0},
    "negative sample weight": {"sample_weight": -2.0},
    "tiny sample weight": {"sample_weight": 1e-200},
    "all": {"label_smoothing": 0.3, "z_loss": 0.1, "temperature": 10.0, "sample_weight": 0.5},
}


def rows_of(dtype):
    """The special rows of a dtype."""
    return list({**ROWS, **(ROWS_F64 if dtype == "f64" else {})}.values())


def extended(row, classes):
    """A row with more classes, all of them unlikely, for the kernels of long rows."""
    return [*row, *[-3.0] * (classes - len(row))]


@cache
def cells(dtype, classes, target_kind):
    """Logits and targets: every row with every target."""
    targets = INDICES if target_kind == "index" else PROBABILITIES
    pairs = list(itertools.product(rows_of(dtype), targets))
    x = [extended(row, classes) for row, _ in pairs]
    y = [[*t, *[0.0] * (classes - 3)] if isinstance(t, list) else t for _, t in pairs]
    return np.array(x, {"f32": "f4", "f64": "f8"}[dtype]), np.array(y)


def options_of(name, weight, classes, rows, **more):
    """An option of the table, with an array where one number for each row is wanted."""
    options = {**OPTIONS[name], **more}
    if "sample_weight" in options:
        options["sample_weight"] = [options["sample_weight"]] * rows
    if WEIGHTS[weight] is not None:
        options["weight"] = [*WEIGHTS[weight], *[1.0] * (classes - 3)]
    return options


@cache
def exact_cells(dtype, classes, target_kind, name, weight):
    """The exact results of all cells."""
    x, y = cells(dtype, classes, target_kind)
    options = options_of(name, weight, classes, len(x), reduction="none")
    return exact.cross_entropy(x.astype(float).tolist(), y.tolist(), **options)


def assert_number(found, expected, size, dtype, where, counted=None):
    """NaN for NaN, infinity for infinity, no −0.0, and everything else as promised."""
    assert not (found == 0 and np.signbit(found)), f"{where}: -0.0"
    off = exact.error(found, expected, dtype, size, counted)
    what = f"{where}: {found}, exactly {exact.mp.nstr(expected, 17)}"
    assert off <= UNITS[counted or dtype], what


def assert_loss(found, expected, size, dtype, where):
    """A loss is a float64, of which logits in float32 determine fewer digits."""
    assert_number(found, expected, size, "f64", f"loss of {where}", dtype)


def assert_cells(r, expected, dtype, x, y, options=""):
    """Every number of a result."""
    for i, row in enumerate(expected.grad):
        where = f"{options}row {x[i].tolist()[:3]}, target {y[i].tolist()}"
        assert_loss(r.loss[i], expected.loss[i], expected.loss_size[i], dtype, where)
        for c, value in enumerate(row):
            what = f"class {c} of {where}"
            assert_number(r.grad[i, c], value, expected.sizes[i][c], dtype, what)


CLASSES = [3] if SIMULATED else [3, 70]
SOME_WEIGHTS = (
    "none",
    "negative",
    *(() if SIMULATED else ("zero", "all zero", "huge and zero", "tiny")),
)
FAST = ("plain", "smoothing", "upstream 1e20", "negative sample weight")  # the others are slow


def marks(name, classes=3, dtype="f64"):
    """What is marked slow."""
    return [] if classes == 3 and dtype == "f64" and name in FAST else [pytest.mark.slow]


TABLES = [
    pytest.param(name, classes, dtype, marks=marks(name, classes, dtype))
    for name in OPTIONS
    for classes in CLASSES
    for dtype in (("f64",) if SIMULATED else ("f32", "f64"))
]
SOME_SLOW = [pytest.param(name, marks=marks(name)) for name in OPTIONS]


@pytest.mark.parametrize("target_kind", ["index", "probs"])
@pytest.mark.parametrize(("name", "classes", "dtype"), TABLES)
def test_every_cell_is_that_of_the_semantics(backend, name, dtype, target_kind, classes):
    x, y = cells(dtype, classes, target_kind)
    for weight in SOME_WEIGHTS if classes == 3 else ("none", "negative"):
        options = options_of(name, weight, classes, len(x), reduction="none")
        r = cross_entropy(x, y, backend=backend, **options)
        expected = exact_cells(dtype, classes, target_kind, name, weight)
        assert_cells(r, expected, dtype, x, y, f"weight {weight}, ")


@pytest.mark.parametrize("target_kind", ["index", "probs"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", SOME_SLOW)
def test_reductions_of_each_row_beside_an_ordinary_one(backend, name, reduction, target_kind):
    x, y = cells("f64", 3, target_kind)
    step = len(INDICES) if target_kind == "index" else len(PROBABILITIES)
    chosen = range(2 if target_kind == "probs" else 0, len(x), step * (4 if SIMULATED else 1))
    for i, weight in itertools.product(chosen, SOME_WEIGHTS):
        two, t = np.stack([x[i], x[0]]), np.stack([y[i], y[1]])
        options = options_of(name, weight, 3, 2, reduction=reduction)
        r = cross_entropy(two, t, backend=backend, **options)
        expected = exact_pair(i, target_kind, name, weight, reduction)
        where = f"weight {weight}, row {x[i].tolist()}, target {y[i].tolist()}"
        assert_loss(r.loss, expected.loss, expected.loss_size, "f64", where)
        for g, row, sizes in zip(r.grad, expected.grad, expected.sizes, strict=True):
            for number, value, size in zip(g, row, sizes, strict=True):
                assert_number(number, value, size, "f64", where)


@cache
def exact_pair(i, target_kind, name, weight, reduction):
    """The exact results of a cell and an ordinary row."""
    x, y = cells("f64", 3, target_kind)
    two, t = np.stack([x[i], x[0]]), np.stack([y[i], y[1]])
    options = options_of(name, weight, 3, 2, reduction=reduction)
    return exact.cross_entropy(two.tolist(), t.tolist(), **options)


@pytest.mark.skipif(len(BACKENDS) < 2, reason="one backend has nothing to be compared with")
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("target_kind", ["index", "probs"])
@pytest.mark.parametrize("name", OPTIONS)
def test_backends_agree_on_what_is_not_a_number(name, target_kind, dtype):
    for classes, weight in itertools.product(CLASSES, WEIGHTS):
        x, y = cells(dtype, classes, target_kind)
        options = options_of(name, weight, classes, len(x), reduction="none")
        first, *others = (cross_entropy(x, y, backend=b, **options) for b in BACKENDS)
        for other in others:
            for a, b in (
                (first.loss, other.loss),
                (first.grad, other.grad),
                (first.lse, other.lse),
            ):
                np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=str(options))
                infinite = np.isinf(a) | np.isinf(b)
                np.testing.assert_array_equal(a[infinite], b[infinite], err_msg=str(options))


@pytest.mark.parametrize(
    "classes", [3, *(pytest.param(c, marks=pytest.mark.slow) for c in CLASSES[1:])]
)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("options", [{}, {"temperature": 10.0}, {"softcap": 5.0}], ids=str)
def test_softmax_and_its_logarithm_of_special_rows(backend, options, dtype, classes):
    x, _ = cells(dtype, classes, "index")
    p, log_p = (f(x, backend=backend, **options) for f in (softmax, log_softmax))
    for i in range(0, len(x), len(INDICES)):
        expected = exact.log_softmax(x[i].astype(float).tolist(), **options)
        for c, (probability, logarithm) in enumerate(expected):
            where = f"class {c} of {x[i][:3].tolist()}"
            assert_number(p[i, c], probability, abs(probability), dtype, where)
            assert_number(log_p[i, c], logarithm, abs(logarithm), dtype, f"log, {where}")


# Numbers at the end of the range, each with its exact result.
FAR = [
    ("f32", [[121.0, 0.0]], 0, {"upstream": 1e20}),
    ("f32", [[121.0, 0.0]], 1, {"weight": [1e30, 1e30], "reduction": "sum"}),
    ("f32", [[160.0, 0.0, 1.0]], 0, {"upstream": 1e30}),
    ("f32", [[125.0, 0.0, 1.0]], 0, {"sample_weight": [1e10], "reduction": "sum"}),
    ("f32", [[121.0] + [0.0] * 69], 0, {"upstream": 1e20}),
    ("f32", [[125.0] + [0.0] * 69], 0, {"sample_weight": [1e10], "reduction": "sum"}),
    ("f64", [[735.0] + [0.0] * 17], 0, {"upstream": 1e20}),
    ("f64", [[735.0] + [0.0] * 69], 0, {"upstream": 1e20}),
    ("f64", [[740.0, 1.0, 0.0]], 0, {"upstream": 1e30, "reduction": "sum"}),
    ("f64", [[760.0, 1.0, 0.0]], 1, {"upstream": 1e100}),
    ("f64", [[1200.0, 1.0, 0.0]], 0, {"upstream": 1e250}),
    ("f64", [[700.0, 1.0]], 0, {"upstream": 1e-10}),
    ("f64", [[1e308, -1e308]], 1, {"temperature": 10.0}),
    ("f64", [[1e308, -1e308, 0.0]], 1, {"softcap": 5.0}),
    ("f64", [[1.7e308, -1.7e308]], 1, {"temperature": 1e10}),
    ("f64", [[5e-324, 0.0]], 0, {"temperature": 5e-324}),
    ("f64", [[1e-300, -1e-300]], 0, {"temperature": 1e-300}),
    ("f64", [[1.0, 2.0]], 0, {"weight": [1e-200, 1.0], "sample_weight": [1e-200]}),
    (
        "f64",
        [[1.0, 2.0], [0.5, 3.0]],
        0,
        {"weight": [1e-200] * 2, "sample_weight": [1e-200, 3e-200]},
    ),
    ("f64", [[1.0, 2.0], [0.5, 3.0]], 0, {"weight": [1e200] * 2, "sample_weight": [1e200, 3e200]}),
    ("f64", [[1.0, 2.0], [0.5, 3.0]], 0, {"weight": [1e308, 1.0], "sample_weight": [1.0, 3.0]}),
    ("f64", [[1e308, -1e308], [0.0, 0.0]], 0, {"weight": [1e308, 0.0]}),
    ("f64", [[0.0, 1e300]], 0, {"weight": [1e300, 0.0]}),
    ("f64", [[0.0, 1e300]], 0, {"weight": [1e300, 1e-300], "label_smoothing": 0.1}),
    ("f64", [[1.0, 2.0], [2.0, 1.0]], 0, {"normalizer": 1e-300, "weight": [1e-300, 1.0]}),
    (
        "f64",
        [[1.0, 2.0]],
        0,
        {"reduction": "none", "weight": [1e200, 1.0], "sample_weight": [1e-200]},
    ),
    ("f64", [[1.0, 2.0]], 0, {"reduction": "sum", "weight": [1e-200, 1.0], "upstream": 1e200}),
]


@pytest.mark.parametrize(("dtype", "x", "target", "options"), FAR, ids=lambda v: str(v)[:40])
def test_numbers_at_the_end_of_the_range(backend, dtype, x, target, options):
    logits = np.array(x, {"f32": "f4", "f64": "f8"}[dtype])
    targets = [target] * len(x)
    r = cross_entropy(logits, targets, backend=backend, **options)
    expected = exact.cross_entropy(logits.astype(float).tolist(), targets, **options)
    losses = [(r.loss, expected.loss, expected.loss_size)]
    if isinstance(expected.loss, list):
        losses = list(zip(r.loss, expected.loss, expected.loss_size, strict=True))
    for found, value, size in losses:
        assert_loss(found, value, size, dtype, "the rows")
    for g, row, sizes in zip(r.grad, expected.grad, expected.sizes, strict=True):
        for c, (found, value, size) in enumerate(zip(g, row, sizes, strict=True)):
            assert_number(found, value, size, dtype, f"class {c}")


@pytest.mark.parametrize(("dtype", "x", "target", "options"), FAR, ids=lambda v: str(v)[:40])
def test_no_warning_of_numpy_leaves_the_package(dtype, x, target, options):
    logits = np.array(x, {"f32": "f4", "f64": "f8"}[dtype])
    with np.errstate(all="raise"):
        cross_entropy(logits, [target] * len(x), backend="numpy", **options)


def test_a_loss_below_the_normal_range(backend):
    x = np.zeros((1, 10**3 if SIMULATED else 10**6))
    x[0, 0] = 746.0
    r = cross_entropy(x, [0], backend=backend)
    expected = (x.shape[1] - 1) * exact.mp.exp(-746)
    assert exact.error(r.loss, expected, "f64") <= 1
    assert exact.error(r.grad[0, 0], -expected, "f64") <= 1


@pytest.mark.parametrize("gap", [720.0, 740.3, 744.9, 745.2])
def test_a_logarithm_of_a_probability_below_the_normal_range(backend, gap):
    for row in ([gap, 0.0], [gap] + [0.0] * (CLASSES[-1] - 1)):
        found = log_softmax(row, backend=backend)[0]
        assert exact.error(found, exact.log_softmax(row)[0][1], "f64") <= 1


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_what_rounds_to_zero_is_plus_zero_in_every_dtype(backend, name, classes):
    x = np.zeros((4, classes))
    x[1, 0], x[2, 1], x[3, 0] = 60.0, 60.0, 700.0
    for upstream in (-1e-320, 1e-320, -1e-60, 1e-60, -0.0, -1.0):
        out = np.empty(x.shape, NAMES[name])
        options = {"reduction": "none", "sample_weight": [1.0, -1.0, 0.0, -1e-300]}
        r = cross_entropy(
            x, [0, 0, 0, -100], upstream=upstream, backend=backend, out=out, **options
        )
        for values in (widen(r.grad, np.dtype("f8")), r.loss):
            assert not np.signbit(values[values == 0]).any()
    for function in (softmax, log_softmax):
        values = widen(
            function(x, out=np.empty(x.shape, NAMES[name]), backend=backend), np.dtype("f8")
        )
        assert not np.signbit(values[values == 0]).any()


def test_the_borders_of_the_range_are_where_the_promise_says():
    """Inside of each border the digits are there, and beyond it they are not: `BORDERS`."""

    def entry(gap, upstream):
        r = cross_entropy([[gap, 0.0]], [0], upstream=upstream, backend="numpy")
        return r.grad[0, 1], exact.mp.exp(-gap) * exact.mp.mpf(upstream)

    assert exact.error(*entry(1240.0, 1e250), "f64") <= 3
    assert exact.error(*entry(1300.0, 1e300), "f64") > 3
    for gap, rough in ((700.0, False), (740.0, True)):
        options = {"weight": [1e20, 1.0], "reduction": "sum", "backend": "numpy"}
        loss = cross_entropy([[gap, 0.0]], [0], **options).loss
        expected = exact.mp.exp(-gap) * exact.mp.mpf(1e20)
        assert (exact.error(loss, expected, "f64") > 3) == rough
    for small, lost in ((1e-100, False), (1e-130, True)):
        options = {"weight": [1e200, small], "reduction": "none", "backend": "numpy"}
        assert (cross_entropy([[0.0, 0.0]], [1], **options).loss[0] == 0) == lost
    for size, lost in ((1e50, False), (1e160, True)):
        options = {"z_loss": 1.0, "backend": "numpy"}
        assert np.isinf(cross_entropy([[size, size]], [0], **options).loss) == lost


def test_the_table_sees_a_hidden_nan(monkeypatch):
    """Wrong results of each kind are found: a NaN that is lost, a −0.0, a wrong digit."""
    x, y = cells("f64", 3, "index")
    expected = exact_cells("f64", 3, "index", "plain", "none")
    r = cross_entropy(x, y, reduction="none", backend="numpy")
    assert_cells(r, expected, "f64", x, y)
    for array, wrong in (
        (r.loss, np.where(np.isnan(r.loss), 0.0, r.loss)),
        (r.loss, np.where(r.loss == 0, -0.0, r.loss)),
        (r.grad, np.where(r.grad == 0, -0.0, r.grad)),
        (r.grad, r.grad * (1 + 1e-14)),
        (r.loss, np.where(np.isinf(r.loss), NAN, r.loss)),
    ):
        kept = array.copy()
        array[...] = wrong
        with pytest.raises(AssertionError):
            assert_cells(r, expected, "f64", x, y)
        array[...] = kept
