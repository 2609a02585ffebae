"""What the CPU kernels once got wrong, and the borders of their paths for rows out of range."""

import math

import exact
import numpy as np
import pytest
from hardest import kind_of
from helpers import assert_same_bits

from xentcli import cross_entropy, log_softmax
from xentcli.backends.accuracy import PROMISES

UNITS = {"f32": 2, "f64": 3}  # in the last place of each number
TYPES = {"f32": "f4", "f64": "f8"}
LENGTHS = [17, 80]  # 16 rows at a time, and one after the other


def assert_exact(x, y, dtype, **options):
    """Loss and every entry of one row, in units of its own; the same in place."""
    array = np.array([x], TYPES[dtype])
    r = cross_entropy(array, [y], backend="cpu", reduction="none", **options)
    expected = exact.cross_entropy([array[0].tolist()], [y], reduction="none", **options)
    assert exact.error(r.loss[0], expected.loss[0], "f64") <= 3 or dtype == "f32"
    for found, number in zip(r.grad[0], expected.grad[0], strict=True):
        assert exact.error(found, number, dtype) <= UNITS[dtype], f"{found}: {number}"
        assert not (found == 0 and np.signbit(found))
    in_place = array.copy()
    cross_entropy(in_place, [y], backend="cpu", reduction="none", out=in_place, **options)
    assert_same_bits(in_place, r.grad)


@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("gap", [100.0, 119.0, 121.0, 150.0])
@pytest.mark.parametrize("upstream", [1.0, 1e10, -1e10, 1e20, -1e20, 1e-30])
def test_float32_exponentials_below_its_range_come_back(classes, gap, upstream):
    """Beyond a gap of 120 they were 0, and the target's entry 8,561 ULP off."""
    row = [gap, 1.0] + [0.0] * (classes - 2)
    for target in (0, 1):
        assert_exact(row, target, "f32", upstream=upstream)


@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("temperature", [0.7, 1.3, 2.0**-21, 2.0**21])
@pytest.mark.parametrize(("gap", "upstream"), [(3.0, 1.0), (90.0, 1.0), (121.0, 1e20), (150, -1.0)])
def test_float32_rows_with_a_temperature(classes, temperature, gap, upstream):
    """In and out of the range of float32, of rows and of temperatures."""
    row = [gap * temperature, temperature] + [0.0] * (classes - 2)
    for target in (0, 1):
        assert_exact(row, target, "f32", upstream=upstream, temperature=temperature)


@pytest.mark.parametrize("classes", LENGTHS)
def test_a_loss_of_float32_logits_below_the_range_of_float32(classes):
    row = [150.0, 1.0] + [0.0] * (classes - 2)
    r = cross_entropy(np.array([row], "f4"), [0], backend="cpu", weight=[1e30] * classes)
    expected = math.exp(-149) + (classes - 2) * math.exp(-150)
    assert r.loss == pytest.approx(expected, rel=1e-7)
    r = cross_entropy(
        np.array([row], "f4"), [0], backend="cpu", reduction="sum", weight=[1e30] * classes
    )
    assert r.loss == pytest.approx(1e30 * expected, rel=1e-7)


@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize(
    ("gap", "upstream"),
    [
        (735.0, 1e20),  # 6.2166411825687872e-300 with 17 others
        (700.0, 1e-30),
        (900.0, 1e100),
        (1100.0, -1e200),
        (1250.0, 1e250),
        (1290.0, -1e250),
        (40.0, 1e300),
        (40.0, 1e-300),
    ],
)
def test_float64_exponentials_below_its_range_come_back(classes, gap, upstream):
    row = [gap, 1.0] + [0.0] * (classes - 2)
    for target in (0, 1):
        assert_exact(row, target, "f64", upstream=upstream)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("classes", LENGTHS)
def test_a_row_out_of_range_changes_no_bit_of_its_neighbours(classes, dtype):
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=(40, classes)) * 5).astype(dtype), rng.integers(0, classes, 40)
    factors = np.ones(40)
    factors[::3], factors[1::5] = 1e200, -1e-250
    options = {"backend": "cpu", "reduction": "none"}
    usual = cross_entropy(x, y, **options)
    found = cross_entropy(x, y, upstream=factors, **options)
    assert_same_bits(found.grad[factors == 1], usual.grad[factors == 1])
    assert_same_bits(found.loss, usual.loss)
    alone = cross_entropy(x[3:4], y[3:4], upstream=factors[3:4], **options)
    assert_same_bits(found.grad[3:4], alone.grad)


@pytest.mark.parametrize("classes", LENGTHS)
def test_a_difference_that_overflows_before_the_temperature_divides_it(classes):
    row = [1e308, -1e308] + [0.0] * (classes - 2)
    assert_exact(row, 1, "f64", temperature=10.0)
    assert_exact(row, 2, "f64", temperature=3e307)


@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_logarithm_of_a_probability_near_1(classes, dtype):
    """Below the normal range it has the digits of one rounding; what rounds to 0 is +0.0."""
    row = [735.0] + [0.0] * (classes - 1)
    found = log_softmax(np.array([row], dtype), backend="cpu")
    expected = [np.array(float(log_p), dtype) for _, log_p in exact.log_softmax(row)]
    assert found[0].tolist() == expected
    assert not np.signbit(found[found == 0]).any()


def test_the_loss_of_a_million_unlikely_classes():
    row = np.zeros((1, 10**6 + 1))
    row[0, 0] = 746
    found = cross_entropy(row, [0], backend="cpu").loss
    assert found == pytest.approx(1.038284e-318, rel=1e-5)


@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("softcap", [0.6465598757037537, 10.0, 200.0])
@pytest.mark.parametrize("upstream", [1.0, 1e100])
def test_slopes_of_a_softcap_below_the_normal_range(classes, softcap, upstream):
    """A slope of 1e-306 was 0."""
    row = [softcap * 353.1, softcap * 124.7, -softcap * 66.4] + [0.5] * (classes - 3)
    assert_exact(row, 2, "f64", softcap=softcap, upstream=upstream)


@pytest.mark.parametrize("classes", LENGTHS)
def test_nearly_equal_capped_logits_under_label_smoothing(classes):
    """The loss was 222 units off: gaps of capped logits need their second words."""
    rng = np.random.default_rng(4)
    for softcap in (30.0, 124.76172245680436, 200.0):
        row = (0.7 * softcap + rng.normal(size=classes) * 1e-3).tolist()
        options = {"softcap": softcap, "label_smoothing": 0.9, "reduction": "none"}
        r = cross_entropy([row], [3], backend="cpu", **options)
        expected = exact.cross_entropy([row], [3], **options)
        size = expected.loss_size[0]
        assert exact.error(r.loss[0], expected.loss[0], "f64", size) <= 8


@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("target", ["index", "probs"])
def test_infinite_terms_of_both_kinds_of_rows(classes, target):
    """A negative weight at −inf: the loss is −inf; it was NaN for up to 64 classes."""
    row = [-np.inf, 1.0, 2.0] + [0.0] * (classes - 3)
    weight = [-1.0] + [2.0] * (classes - 1)
    y = [1] if target == "index" else np.full((1, classes), 1 / classes)
    smoothing = {"label_smoothing": 0.1} if target == "index" else {}
    r = cross_entropy([row], y, backend="cpu", reduction="none", weight=weight, **smoothing)
    assert r.loss[0] == -np.inf
    assert np.isfinite(r.grad).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("place", [0, 31, 64, 79])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_a_number_is_not_hidden(dtype, place, value):
    """Not by a weight of 0, not by a row of zero probabilities, wherever the number is."""
    x = np.zeros((3, 80), dtype)
    x[1, place] = value
    for y, options in (
        ([5, 5, 5], {"weight": [0.0] * 80}),
        (np.zeros((3, 80)), {}),
        ([5, 5, 5], {"upstream": [0.0] * 3}),
        ([5, 5, 5], {}),
    ):
        r = cross_entropy(x, y, backend="cpu", reduction="none", **options)
        assert np.isnan(r.loss).tolist() == [False, True, False]
        assert np.isnan(r.grad).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("classes", [5, 70])
def test_a_mean_of_float64_is_not_rounded_twice(classes):
    """1/3987 is rounded by almost half a unit; with it an entry was 2.3 units off."""
    row = [1.152686508133309, -0.11280843290329297, -0.4365617587703734, 0.03168073211722411]
    row += [0.6048404540473724] + [-np.inf] * (classes - 5)
    x, y = np.tile(row, (3987, 1)), np.full(3987, 2)
    r = cross_entropy(x, y, backend="cpu")
    (expected,) = exact.cross_entropy([row], [2], reduction="none").grad
    with exact.mp.workdps(exact.DIGITS):
        shares = [number / 3987 for number in expected]
    for found, share in zip(r.grad[3986], shares, strict=True):
        assert exact.error(found, share, "f64") <= 2


@pytest.mark.parametrize("by", ["numpy", "cpu"])
@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("softcap", "offset"),
    [(1e5, 1e4), (1e6, 1e5), (1e6, -1e5), (1e6, 3e6), (1e9, 1e10), (1e9, -1e10), (3.0, 5.0)],
)
def test_capped_logits_that_have_much_in_common(by, classes, dtype, softcap, offset):
    """z at its own size had lost their differences: 129 units."""
    rng = np.random.default_rng(classes)
    size = max(1.0, abs(offset) * 2.0**-23 if dtype == "f4" else 1.0)
    row = (offset + size * rng.normal(size=classes)).astype(dtype)
    assert_promised(by, row, 1, softcap=softcap)


def assert_promised(by, row, target, **options):
    """Loss and entries of a row are as near as it is promised for the options."""
    name = "f64" if row.dtype == "f8" else "f32"
    bound = PROMISES[name, kind_of(options)]
    r = cross_entropy(row[None], [target], backend=by, reduction="none", **options)
    expected = exact.cross_entropy([row.tolist()], [target], reduction="none", **options)
    size = expected.loss_size[0] if bound.terms else None
    found = exact.error(r.loss[0], expected.loss[0], "f64", size, name)
    assert found <= bound.loss, f"loss {r.loss[0]}, {found:.3g} units off"
    for c, (entry, number) in enumerate(zip(r.grad[0], expected.grad[0], strict=True)):
        size = expected.sizes[0][c] if bound.terms else None
        found = exact.error(entry, number, name, size)
        assert found <= bound.others, f"entry {c}: {entry}, {found:.3g} units off"


FAR = [  # the other logits are those of the last one
    ([-1e-200, 1e-200, 0.0], {"softcap": 1e-200, "temperature": 1e-200}),
    ([-1.0, 1.0, 0.0], {"softcap": 1e-160, "temperature": 1e-160}),
    ([-1.0, 1.0, 0.0], {"softcap": 1.0, "temperature": 1e-310}),
    ([1.0, 1.5, 0.0], {"softcap": 1e200, "temperature": 1e200}),
    ([1e200, 1.5e200, 0.0], {"softcap": 1e200, "temperature": 1e200}),
    ([1e300, 1.5e300, 0.0], {"softcap": 1e-10, "temperature": 1e300}),
    ([0.0, -1e-305, -1e-304], {"temperature": 1e-308, "upstream": 1e308}),
    ([0.0, -1e-290, -1e-292], {"temperature": 1e-300, "upstream": -1e250}),
    ([0.0, -1e-300, 0.0], {"temperature": 1e-310}),
    ([0.0, 1e10, 0.0], {"temperature": 1e-20, "upstream": 1e300}),
    ([2.0, 900.0, 1.0], {"upstream": 1e300, "softcap": 1.0}),
    ([-1.0, 100.0, 1.0], {"upstream": 1e280, "softcap": 0.3}),
    ([1.0, 1300.0, 0.0], {"upstream": 3.6e181, "softcap": 3.4, "label_smoothing": 0.5}),
    ([1.0, 2.0, 0.0], {"temperature": 1e-300, "label_smoothing": 1e-10, "upstream": 1e9}),
    ([1.0, 2.0, 0.0], {"temperature": 1e300, "label_smoothing": 0.1, "upstream": 1e-10}),
    ([0.0, 1e-248, 0.0], {"temperature": 1e-251, "z_loss": 1e113}),
    ([1.1e293, 1e293, 0.0], {"temperature": 4e290, "z_loss": 1e110, "sample_weight": [1e-21]}),
    ([-3e151, -3.1e151, -3.1e151], {"z_loss": 1e30}),
    ([471.0, 471.0, 470.0], {"softcap": 1.0, "upstream": 1e300}),  # slopes of 1e-409
    ([2.0, 1.0, 0.0], {"softcap": 1e300}),
    ([2.0, 1.0, 0.0], {"upstream": 1e180, "sample_weight": [1e120]}),
]


@pytest.mark.parametrize("by", ["numpy", "cpu"])
@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize(("row", "options"), FAR, ids=str)
def test_options_far_out_of_the_range(by, classes, row, options):
    """Where factors or T·softcap leave the range, but results do not, or only some of them."""
    row = np.array(row + row[-1:] * (classes - 3))
    for target in (0, 1):
        assert_promised(by, row, target, **options)


@pytest.mark.parametrize("by", ["numpy", "cpu"])
@pytest.mark.parametrize("classes", LENGTHS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_entry_of_0_under_an_infinite_factor(by, classes, dtype):
    """0·∞ was NaN: weights and upstream of 1e300 and more."""
    row = np.array([3e4, 0.0] + [-1e4] * (classes - 2), dtype)
    for options in ({"upstream": 1e300, "temperature": 1e-300}, {"upstream": 1e308}):
        r = cross_entropy(row[None], [1], backend=by, reduction="none", **options)
        assert r.grad[0, 0] == -r.grad[0, 1] > 0
        assert not r.grad[0, 2:].any()


@pytest.mark.slow
@pytest.mark.parametrize("upstream", [1e130, -1e130])
def test_many_classes_under_a_large_factor(upstream):
    """The sum of more than 2²⁴ exponentials times a power of two may overflow."""
    x = np.zeros((1, (1 << 24) + 64))
    r = cross_entropy(x, [0], backend="cpu", reduction="none", upstream=upstream, softcap=1e3)
    share = 1 / x.size
    assert r.grad[0, 0] == pytest.approx(-upstream * (1 - share), rel=1e-15)
    assert r.grad[0, 1] == pytest.approx(upstream * share, rel=1e-15)
    factors = {"upstream": upstream * 1e178, "temperature": 1e-200}
    r = cross_entropy(x, [0], backend="cpu", reduction="none", **factors)
    assert r.grad[0, 0] == -np.copysign(np.inf, upstream)


def extreme_options(rng):
    """A row of logits and options of any size that the borders of the promise allow."""
    any_size = lambda most: float(10 ** rng.uniform(-most, most))  # noqa: E731 (a short name)
    options = {"temperature": any_size(rng.choice([2, 100, 300])) if rng.random() < 0.7 else 1.0}
    size = options["temperature"]
    if rng.random() < 0.5:
        options["softcap"] = any_size(rng.choice([2, 7, 100, 300]))
        size *= options["softcap"] if rng.random() < 0.5 else 1.0
    most = 250 + np.log10(min(options["temperature"], 1.0))
    if rng.random() < 0.5 and most > 0:
        options["upstream"] = any_size(most) * float(rng.choice([-1, 1]))
    if rng.random() < 0.3:
        options["label_smoothing"] = float(rng.choice([1e-10, 0.1, 1.0]))
    if rng.random() < 0.3:
        options["z_loss"] = any_size(4)
    row = rng.normal(size=int(rng.choice([3, 17, 70]))) * rng.choice([0.1, 1, 30])
    row = row + rng.choice([0, 1e4, -1e6]) + (np.arange(len(row)) == 0) * rng.choice([0, 40, 900])
    row = row * min(max(size, 1e-300), 1e290)
    angles = 450 * options["temperature"] * min(options.get("softcap", 1e300), 1e307)
    return (np.clip(row, -angles, angles) if 0 < angles < np.inf else row), options


@pytest.mark.parametrize("by", ["numpy", "cpu"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))])
def test_random_options_of_extreme_sizes(by, seed):
    rng = np.random.default_rng(seed)
    for _ in range(150):
        row, options = extreme_options(rng)
        assert_promised(by, row, int(rng.integers(len(row))), **options)


def rows_of_every_kind(rng, rows, classes):
    """Ordinary rows, rows of two or three different numbers, whose rounding errors add up, and
    rows with one large number."""
    scale, every = 10 ** rng.uniform(-3, 1.6, (rows, 1)), np.arange(rows)
    ordinary = rng.normal(size=(rows, classes)) * scale
    few = np.take_along_axis(ordinary, rng.integers(0, min(3, classes), (rows, classes)), 1)
    equal = np.repeat(ordinary[:, :1], classes, 1)
    equal[every, rng.integers(0, classes, rows)] = ordinary[:, 1]
    large = ordinary.copy()
    large[every, rng.integers(0, classes, rows)] += rng.uniform(0, 95, rows)
    return np.concatenate([ordinary, few, equal, large]).astype("f4")


@pytest.mark.parametrize("classes", [2, 3, 10, 17, 64])
def test_short_rows_in_float32_keep_the_promise(classes):
    """Against the reference in float64: a factor of one word, as an example, is not enough."""
    rng = np.random.default_rng(classes)
    x = rows_of_every_kind(rng, 60_000 // classes, classes)
    y = np.where(rng.random(len(x)) < 0.5, x.argmax(axis=1), rng.integers(0, classes, len(x)))
    options = {"reduction": "none", "weight": rng.random(classes) * 3 + 0.01}
    options["upstream"] = rng.normal(size=len(x))
    found = cross_entropy(x, y, backend="cpu", **options)
    expected = cross_entropy(x.astype("f8"), y, backend="numpy", **options)
    bound = PROMISES["f32", "factors"]
    for a, b, limit in (
        (found.loss, expected.loss, bound.loss),
        (found.grad, expected.grad, bound.others),
    ):
        unit = np.spacing(np.maximum(np.abs(b), np.finfo("f4").tiny).astype("f4")).astype("f8")
        assert (np.abs(a.astype("f8") - b) / unit).max() <= limit
    np.testing.assert_allclose(found.lse, expected.lse, rtol=0, atol=3e-9 * np.abs(x).max())
