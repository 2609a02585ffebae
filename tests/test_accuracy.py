"""Errors in units in the last place, against exact results, with no absolute tolerance.

The bounds are read from `xentcli/backends/accuracy.py`, where they are promised. `python
tests/test_accuracy.py` prints the largest errors of the rows below, `python tests/test_accuracy.py
search [SECONDS [BACKEND]]` looks for worse ones; what it finds goes into `worst_rows.json`.
"""

import itertools
import json
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import exact
import numpy as np
import pytest
from backends import BACKENDS, SIMULATED, up_to
from hardest import EXTRAS, KINDS, LIMITS, Case, climb, units
from helpers import assert_ulps, exactly, ulps

from xentcli import cross_entropy
from xentcli.backends import accuracy
from xentcli.backends.accuracy import PROMISES
from xentcli.options import LossOptions

DTYPES = {"f32": "f4", "f64": "f8"}
LENGTHS = [3, pytest.param(up_to(70, 65), marks=pytest.mark.slow)]  # of short and of long kernels

# Every case of a table of hard ones: row, target, loss and the target's gradient in float64.
CASES = [
    ([0, 0], 0, 0.6931471805599453, -0.5),
    ([1, 2, 3], 0, 2.40760596444438, -0.9099694268296196),
    ([0, 1, 2, 3], 3, 0.44018969856119533, -0.3560857401120277),
    ([1000, 0], 1, 1000.0, -1.0),
    ([1000, 0], 0, 0.0, 0.0),
    ([1e8, 1e8], 0, 0.6931471805599453, -0.5),
    ([-1e7, -1e7 + 1, -1e7 + 2], 0, 2.40760596444438, -0.9099694268296196),
    ([1e4, 1e4 - 1], 0, 0.3132616875182228, -0.2689414213699951),
    ([2**24, 2**24 - 1], 0, 0.3132616875182228, -0.2689414213699951),
    ([2, -1], 0, 0.04858735157374206, -0.04742587317756678),
    ([2 + 2**10, -1 + 2**10], 0, 0.04858735157374206, -0.04742587317756678),
    ([2 + 2**20, -1 + 2**20], 0, 0.04858735157374206, -0.04742587317756678),
    ([16.942384719848633, 0], 0, 4.3854664851156856e-08, -4.385466388954106e-08),
    ([20, 0], 0, 2.061153620314381e-09, -2.0611536181902037e-09),
    ([37.42994775023705, 0], 0, 5.551115123125776e-17, -5.551115123125776e-17),
    ([40, 0], 0, 4.248354255291589e-18, -4.248354255291589e-18),
    ([0, -36.7], 0, 1.1518409493076095e-16, -1.1518409493076095e-16),
    ([30] + [0] * 99999, 0, 9.357529348828808e-09, -9.357529305047131e-09),
    ([0] + [-20] * 100000, 0, 0.0002060941233909651, -0.00020607288745600914),
    ([700, 0], 0, 9.85967654375977e-305, -9.85967654375977e-305),
    ([708, 0], 0, 3.307553003638408e-308, -3.307553003638408e-308),
    ([709, 0], 0, 1.216780750623423e-308, -1.216780750623423e-308),
    ([744, 0], 0, 1e-323, -1e-323),
    ([745.13, 0], 0, 5e-324, -5e-324),
    ([745.2, 0], 0, 0.0, 0.0),
    ([0] * 1000, 0, 6.907755278982137, -0.999),
    ([0] * 50257, 0, 10.82490511970208, -0.99998010227431),
    ([1e-8, 0], 0, 0.6931471755599453, -0.4999999975),
    ([5e-324, 0], 0, 0.6931471805599453, -0.5),
    ([-0.0, 0.0], 0, 0.6931471805599453, -0.5),
]
if SIMULATED:  # a class takes half a millisecond there
    CASES = [case for case in CASES if len(case[0]) <= 1000]


@pytest.mark.parametrize(("row", "target", "loss", "grad"), CASES, ids=lambda v: str(v)[:24])
def test_hard_cases_in_float64(backend, row, target, loss, grad):
    r = cross_entropy([row], [target], backend=backend)
    assert ulps(r.loss, loss, "f8") <= 1
    assert ulps(r.grad[0, target], grad, "f8") <= 3
    assert np.signbit(r.grad[0, target]) == (grad < 0)


@pytest.mark.parametrize(
    ("row", "loss", "grad"),
    [
        ([87, 0], 1.6458114e-38, -1.6458114e-38),
        ([88.72284, 0], 2.9387345e-39, -2.9387345e-39),
        ([100, 0], 3.783506e-44, -3.783506e-44),
        ([103.9, 0], 7.5e-46, -1.4e-45),
        ([104, 0], 0.0, 0.0),
        ([20, 0], 2.0611537e-09, -2.0611537e-09),
    ],
)
def test_hard_cases_in_float32(backend, row, loss, grad):
    r = cross_entropy(np.array([row], dtype="f4"), [0], backend=backend)
    assert r.grad[0, 0] == np.float32(grad)
    assert ulps(r.loss, np.float64(loss), "f4") <= 1


def test_the_largest_numbers(backend):
    for dtype in ("f4", "f8"):
        top = np.finfo(dtype).max
        tie = cross_entropy(np.array([[top, top]], dtype), [0], backend=backend)
        assert tie.loss == np.log(2)
        assert tie.grad.tolist() == [[-0.5, 0.5]]
        far = cross_entropy(np.array([[top, -top]], dtype), [1], backend=backend)
        assert far.grad.tolist() == [[1.0, -1.0]]
        assert far.loss == (np.inf if dtype == "f8" else 2 * float(top))


def text_of(string):
    """A text without its line breaks."""
    return " ".join(string.split())


def test_readme_and_docstring_say_what_is_promised():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for line in accuracy.table():
        assert line in readme
    for border in accuracy.BORDERS:
        assert border in text_of(readme)
    assert accuracy.sentence() in text_of(cross_entropy.__doc__)


def test_every_option_of_the_loss_has_a_kind():
    named = {name for names in accuracy.KINDS.values() for name in names}
    others = {"class indices", "probability targets", "a teacher", *EXTRAS}
    chooses = {"target_kind", "class_axis"}  # what the arrays mean
    assert named == {item.name for item in fields(LossOptions)} - chooses | others


@pytest.mark.parametrize("bound", PROMISES.values(), ids=map(str, PROMISES))
def test_no_promise_is_looser_than_it_has_been(bound):
    assert max(bound[:3]) <= (8 if bound.terms else 4)


def strata():
    """Rows of every kind that has cost somebody digits."""
    rng = np.random.default_rng(7)
    for classes, scale, offset in itertools.product(
        (2, 3, 9, 33, 100), (1e-8, 1e-3, 1, 10, 100), (0, 1e4, -1e8)
    ):
        yield rng.normal(size=(2, classes)) * scale + offset, rng.integers(0, classes, 2)
    for gap in np.linspace(0, 120, 40):  # confident rows, and confidently wrong ones
        row = rng.normal(size=(2, 12))
        row[:, 5] += gap
        yield row, np.array([5, 1])
    yield rng.normal(size=(1, 1000)) * 10, np.array([1])
    for scale, offset in itertools.product((1e-3, 1, 10, 100), (0, 1e4, -1e8)):  # long rows
        yield rng.normal(size=(2, 70)) * scale + offset, rng.integers(0, 70, 2)
    for gap in np.linspace(0, 110, 8):
        row = rng.normal(size=(2, 65))
        row[:, 7] += gap
        yield row, np.array([7, 1])


@cache  # the exact numbers are the same for every backend
def exact_rows(case):
    """The exact results of a case."""
    return exact.cross_entropy(case.logits, case.targets, **dict(case.options))


def errors_of(backend, dtype, case, out=None):
    """The errors of the loss, of the target's entries and of the others, in the promised units."""
    x, y, options = case.arrays(DTYPES.get(dtype, "f8"))
    r = cross_entropy(x, y, backend=backend, out=out, **options)
    return units(r, case, exact_rows(case), dtype)


def assert_promised(backend, dtype, case):
    """Every number is within the bound of the dtype and the kind of options."""
    found, bound = errors_of(backend, dtype, case), PROMISES[dtype, case.kind]
    for name, error, limit in zip(LIMITS, found, bound, strict=False):
        assert error <= limit, f"{name}: {error:.3f} units, {limit} promised for {case.kind}"


@cache
def cases_of_strata(dtype):
    """The strata with the logits rounded to a dtype."""
    rows = itertools.islice(strata(), 0, None, 3 if SIMULATED else 1)
    return [Case.of(x.astype(DTYPES[dtype]), y, reduction="none") for x, y in rows]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_strata_stay_within_the_bounds(backend, dtype):
    for case in cases_of_strata(dtype):
        assert_promised(backend, dtype, case)


def ordinary(classes, dtype, rows=4):
    """Rows from nearly equal logits to confident ones, and their targets."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(rows, classes)) * np.resize([1, 3, 10, 100], (rows, 1))
    return x.astype(DTYPES[dtype]), rng.integers(0, classes, rows)


def factors(rng, rows, classes):
    """Options that only scale, each alone and together."""
    weight, sample = rng.random(classes) * 3, rng.random(rows) * 2
    upstream = rng.normal(size=rows) * 5
    yield from ({"temperature": t} for t in (0.1, 0.7, 1.3, 7.3))
    yield {"weight": weight}
    yield {"weight": weight, "reduction": "sum", "sample_weight": sample}
    yield {"upstream": upstream}
    yield {"reduction": "mean", "upstream": -0.3, "temperature": 3.0}
    yield {"reduction": "mean", "weight": weight, "sample_weight": sample}
    yield {"reduction": "mean", "normalizer": 7.3}
    yield {"temperature": 1.3, "weight": weight, "sample_weight": sample, "upstream": upstream}


def caps():
    """Softcaps from below the logits to far beyond them, with and without a temperature."""
    yield from ({"softcap": k} for k in (0.5, 3.0, 10.0, 30.0, 50.0, 100.0, 200.0, 1e4))
    yield {"softcap": 30.0, "temperature": 1.3}
    yield {"softcap": 50.0, "temperature": 0.1, "reduction": "mean"}


def differences(rng, rows, classes):
    """Options with terms that cancel."""
    yield from ({"label_smoothing": e} for e in (1e-10, 0.1, 0.3, 1.0))
    yield {"z_loss": 0.01}
    yield {"label_smoothing": 0.2, "z_loss": 0.1}
    yield {"label_smoothing": 0.1, "weight": rng.random(classes), "temperature": 1.3}
    yield {"softcap": 30.0, "label_smoothing": 0.1, "z_loss": 1e-4}
    yield {"z_loss": 0.3, "upstream": rng.normal(size=rows)}
    yield {"label_smoothing": 0.3, "weight": rng.normal(size=classes), "reduction": "sum"}
    yield {"weight": rng.normal(size=classes), "reduction": "mean", "normalizer": 3.0}


def option_cases(kind, classes, dtype):
    """Every option of a kind on the same rows."""
    (x, y), rng = ordinary(classes, dtype, up_to(4, 2)), np.random.default_rng(3)
    given = {"factors": lambda: factors(rng, len(x), classes), "softcap": caps}
    given["cancelling"] = lambda: differences(rng, len(x), classes)
    for options in given[kind]():
        yield Case.of(x, y, **{"reduction": "none", **options})
        if kind == "cancelling":  # and with probabilities
            q = rng.dirichlet(np.ones(classes), len(x))
            q[0] = np.eye(classes)[y[0]]
            yield Case.of(x, q, **{"reduction": "none", **options})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("kind", ["factors", "softcap", "cancelling"])
def test_every_option_keeps_its_bounds(backend, dtype, classes, kind):
    cases = option_cases(kind, classes, dtype)
    for case in itertools.islice(cases, 0, None, 4 if SIMULATED else 1):
        assert_promised(backend, dtype, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [3, up_to(6_666, 66)])
def test_the_mean_of_equal_rows_divides_each_entry_once(backend, dtype, rows):
    """The gradient's factor 1/D is no float64, and is rounded before the row is."""
    row = [0.3, -1.2, 0.7]
    x = np.repeat(np.array([row], DTYPES[dtype]), rows, axis=0)
    r = cross_entropy(x, np.zeros(rows, int), backend=backend)
    one = exact.cross_entropy(x[:1].tolist(), [0])
    assert exact.error(r.loss, one.loss, dtype) <= PROMISES[dtype, "plain"].loss
    for g, e, limit in zip(
        r.grad[-1], one.grad[0], PROMISES[dtype, "plain"][1:3] * 2, strict=False
    ):
        assert exact.error(g, e / rows, dtype) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [5, 63, 70])
@pytest.mark.parametrize("smoothing", [1e-10, 0.5, 1.0])
def test_rows_whose_terms_cancel(backend, dtype, classes, smoothing):
    """A·p − a is nearly 0 where the softmax is nearly the smoothed target."""
    x = np.zeros((3, classes))
    x[0, 0] = 1.0
    x[1] = 2.0**-20 * np.arange(classes)
    x[2, 0] = np.log((1 - smoothing) * classes / smoothing + 1) if smoothing < 1 else 0.0
    x, y = x.astype(DTYPES[dtype]), np.zeros(3, int)
    assert_promised(backend, dtype, Case.of(x, y, reduction="none", label_smoothing=smoothing))
    q = exact_softmax(x)
    assert_promised(backend, dtype, Case.of(x, q, reduction="none"))


def exact_softmax(x):
    """The probabilities that a row itself has, rounded: the worst target of all."""
    e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# What `search` has found so far: the worst rows for each dtype and kind of options, in any backend.
WORST = [
    Case(**kept) for kept in json.loads(Path(__file__).with_name("worst_rows.json").read_text())
]


@pytest.mark.parametrize("case", WORST[:: 3 if SIMULATED else 1], ids=str)
def test_the_worst_rows_that_a_search_has_found(backend, case):
    assert_promised(backend, case.dtype, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", LENGTHS)
def test_a_short_search_finds_nothing_beyond_the_bounds(backend, dtype, kind, classes):
    rng = np.random.default_rng([classes, KINDS.index(kind)])
    case = climb(backend, (dtype, kind, classes), rng, up_to(20, 3), up_to(60, 4))
    assert_promised(backend, dtype, case)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_short_search_among_many_classes(backend, kind):
    where = "f64", kind, up_to(1000, 65)
    case = climb(backend, where, np.random.default_rng(1000), up_to(8, 2), up_to(20, 3))
    assert_promised(backend, "f64", case)


def test_a_search_climbs_and_an_error_beyond_the_bounds_is_seen(monkeypatch):
    """An error of a few units in the last place of a gradient is found."""
    case = climb("numpy", ("f64", "plain", 3), np.random.default_rng(0), 1, 20)
    assert_promised("numpy", "f64", case)
    real = cross_entropy

    def spoiled(*arguments, **options):
        r = real(*arguments, **options)
        r.grad[...] *= 1 + 2.0**-50
        return r

    monkeypatch.setattr("test_accuracy.cross_entropy", spoiled)
    with pytest.raises(AssertionError, match=r"entry: .* units, 2 promised for plain"):
        assert_promised("numpy", "f64", case)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 3.0, "upstream": -0.3},
        {"reduction": "mean", "weight": [0.3, 1.7, 2.0], "sample_weight": [0.1, 3.0, 1.0, 0.7]},
        {"reduction": "mean", "normalizer": 7.0},
    ],
    ids=str,
)
def test_options_that_only_scale_keep_the_bounds(backend, dtype, options):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(4, 3)) * [[1], [10], [100], [300]]).astype(dtype)
    y = np.array([0, 1, 2, 1])
    r = cross_entropy(x, y, backend=backend, **{"reduction": "sum", **options})
    loss, grad = exactly(x, y, **{"reduction": "sum", **options})
    single = dtype == "f4" and backend == "cpu"  # whose float32 kernels keep what is promised
    assert_ulps([r.loss], [loss], 2, "f4" if single else "f8")
    assert_ulps(r.grad, grad, 3 if dtype == "f8" else 2, dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("target", ["index", "probs"])
@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"label_smoothing": 1e-10},
        {"z_loss": 0.01},
        {"label_smoothing": 0.2, "z_loss": 0.1},
    ],
    ids=str,
)
def test_differences_keep_the_digits_of_their_terms(backend, dtype, target, options):
    """A·p − a may cancel for good; what is promised is relative to the smaller way to write it:
    |p·Σ others of a| + |a·(1 − p)|, and the z-loss term."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(6, 7)) * 4
    x[3:, 2] += 30
    x = x.astype(dtype)
    y = np.array([0, 1, 2, 2, 2, 6])
    if target == "probs":
        y = np.eye(7)[y]
        y[1] = rng.dirichlet(np.ones(7))
    r = cross_entropy(x, y, reduction="none", backend=backend, **options)
    loss, grad = exactly(x, y, reduction="none", **options)
    assert_ulps(r.loss, loss, 8, "f8")
    p = np.array(
        [[float(g) for g in row] for row in exactly(x, np.zeros((6, 7)), reduction="none")[1]]
    )
    assert not p.any()  # without target mass there is no gradient
    for i, row in enumerate(grad):
        terms = size_of_terms(x[i], y[i], **options)
        for c, wanted in enumerate(row):
            spacing = np.spacing(np.array(terms[c], dtype=dtype))
            assert abs(float(r.grad[i, c] - wanted)) <= 8 * float(spacing)


def size_of_terms(x, target, label_smoothing=0.0, z_loss=0.0):
    """|p·Σ others of a| + |a·(1 − p)| + |2·λ·lse·p| of one row, in plain float64."""
    x = x.astype(float)
    e = np.exp(x - x.max())
    q = np.eye(len(x))[target] if np.ndim(target) == 0 else target
    a = (1 - label_smoothing) * q + label_smoothing / len(x)
    others = np.array([np.delete(a, c).sum() for c in range(len(x))])
    rest = np.array([np.delete(e, c).sum() for c in range(len(x))]) / e.sum()
    lse = x.max() + np.log(e.sum())
    return e / e.sum() * others + a * rest + abs(2 * z_loss * lse * e / e.sum())


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_types_are_rounded_once(backend, name, kind):
    from xentcli.arrays.dtypes import NAMES, narrow, widen

    rng, dtype = np.random.default_rng(11), NAMES[name]
    x, y = narrow(rng.normal(size=(up_to(40, 4), 6)) * 5, dtype), rng.integers(0, 6, up_to(40, 4))
    options = {"plain": {}, "factors": {"temperature": 1.3, "upstream": 0.7}}
    options |= {"softcap": {"softcap": 10.0}, "cancelling": {"label_smoothing": 0.1}}
    case = Case.of(widen(x, np.dtype("f8")), y, **options[kind])
    r = cross_entropy(x, y, backend=backend, out=np.empty(x.shape, dtype), **options[kind])
    r = r.__class__(**{**vars(r), "grad": widen(r.grad, np.dtype("f8"))})
    found, bound = units(r, case, exact_rows(case), name), PROMISES[name, case.kind]
    assert all(e <= limit for e, limit in zip(found, bound, strict=False)), (found, bound)


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("classes", [6, 70])
def test_half_logits_may_have_gradients_of_more_bits(backend, name, classes):
    from xentcli.arrays.dtypes import NAMES, narrow, widen

    rng = np.random.default_rng(11)
    x = narrow(rng.normal(size=(up_to(10, 2), classes)) * 5, NAMES[name])
    case = Case.of(widen(x, np.dtype("f8")), rng.integers(0, classes, len(x)), reduction="none")
    r = cross_entropy(x, np.array(case.targets), backend=backend, reduction="none")
    found, bound = units(r, case, exact_rows(case), "f32"), PROMISES["f32", "plain"]
    assert all(e <= limit for e, limit in zip(found, bound, strict=False)), (found, bound)


def test_the_mean_of_many_losses(backend):
    x = np.zeros((up_to(100_000, 300), 2), dtype="f4")
    x[:, 0] = 2.25
    r = cross_entropy(x, np.zeros(len(x), int), backend=backend)
    one = cross_entropy(x[:1], [0], backend=backend)
    assert ulps(r.loss, one.loss, "f8") <= 1


@pytest.mark.parametrize("shift", [2.0**10, -(2.0**20), 2.0**30])
def test_a_shift_that_is_exact_changes_no_bit(backend, shift, rng):
    x = np.round(rng.normal(size=(5, 9)) * 64) / 8
    y = rng.integers(0, 9, 5)
    a = cross_entropy(x, y, reduction="none", backend=backend)
    b = cross_entropy(x + shift, y, reduction="none", backend=backend)
    assert a.grad.tobytes() == b.grad.tobytes()
    assert a.loss.tobytes() == b.loss.tobytes()


def measure(backend, dtype, kind):
    """The largest errors of loss, target entries and other entries over all rows above."""
    cases = cases_of_strata(dtype) if kind == "plain" else option_cases(kind, 5, dtype)
    kept = [case for case in WORST if (case.dtype, case.kind) == (dtype, kind)]
    found = [errors_of(backend, dtype, case) for case in (*cases, *kept)]
    return [max(column) for column in zip(*found, strict=True)]


if __name__ == "__main__":
    if "search" in sys.argv:
        import hardest

        hardest.search(*sys.argv[2:])
        sys.exit()
    for name, dtype, kind in itertools.product(BACKENDS, DTYPES, KINDS):
        figures = ", ".join(f"{error:.2f}" for error in measure(name, dtype, kind))
        print(f"{name} {dtype} {kind}: loss, target, other: {figures}")  # noqa: T201 (a script)
